//! Certificates that are renewed under a running daemon.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;

use super::clients::{Certificate, H2, HTTP1, Http2, client, connect, shown};
use super::{Site, measured};
use crate::common::daemon::{Connection, Daemon, eventually};

const JWKS: &str = "/.well-known/jwks.json";
const CHANGED: &str = "jwksd_tls_reloads_total{listener=\"public\",outcome=\"changed\"}";
const REFUSED: &str = "jwksd_tls_reloads_total{listener=\"public\",outcome=\"refused\"}";

fn trusting(certificates: &[&Certificate], protocols: &[&str]) -> Arc<ClientConfig> {
    // Without tickets: a resumed session shows no certificate.
    let config = client(certificates, protocols, rustls::ALL_VERSIONS);
    let mut config = ClientConfig::clone(&config);
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

fn await_shown(daemon: &Daemon, config: &Arc<ClientConfig>, expected: &Certificate) {
    eventually("the new certificate is shown", || {
        (shown(&connect(daemon.address, config).unwrap()) == expected.der).then_some(())
    });
}

#[test]
fn a_renewed_pair_is_served_without_a_dropped_connection() {
    let site = Site::new();
    let daemon = site.start(|command| command.env("JWKSD_KEYS_POLL_INTERVAL", "200ms"));
    let first = &site.certificate;
    let second = Certificate::new();
    let config = |protocols| trusting(&[first, &second], protocols);
    let mut http1 = Connection::over(connect(daemon.address, &config(HTTP1)).unwrap());
    let mut http2 = Http2::open(daemon.address, &config(H2));
    assert_eq!(http1.request("GET", JWKS, &[]).unwrap().status, 200);
    assert_eq!(http2.get(JWKS).status(), 200);
    assert_eq!(shown(&connect(daemon.address, &config(HTTP1)).unwrap()), first.der);

    second.write(&site.tls());
    await_shown(&daemon, &config(HTTP1), &second);
    assert_eq!(http1.request("GET", JWKS, &[]).unwrap().status, 200);
    assert_eq!(http2.get(JWKS).status(), 200);
    assert!(measured(&daemon, CHANGED) >= 1.0);
    assert!(daemon.stop().success());
}

#[test]
fn a_volume_that_is_swapped_brings_both_halves_at_once() {
    let site = Site::new();
    let first = &site.certificate;
    let second = Certificate::new();
    // As the kubelet does it: the files lead through ..data, which is replaced.
    let volume = site.directory.path().join("volume");
    let publish = |version: &str, certificate: &Certificate| {
        fs::create_dir_all(volume.join(version)).unwrap();
        certificate.write(&volume.join(version));
        let link = volume.join("..data_tmp");
        std::os::unix::fs::symlink(version, &link).unwrap();
        fs::rename(link, volume.join("..data")).unwrap();
    };
    publish("..one", first);
    for name in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(Path::new("..data").join(name), volume.join(name)).unwrap();
    }
    let daemon = site
        .start(|command| super::secured(command, &volume).env("JWKSD_KEYS_POLL_INTERVAL", "200ms"));
    let config = trusting(&[first, &second], HTTP1);
    assert_eq!(shown(&connect(daemon.address, &config).unwrap()), first.der);
    publish("..two", &second);
    await_shown(&daemon, &config, &second);
    // What fits is never mixed with what does not.
    assert!(measured(&daemon, REFUSED) <= 0.0);
}

#[test]
fn a_bad_pair_is_kept_out_and_told_once() {
    let site = Site::new();
    // Nobody looks but when told to.
    let daemon = site.start(|command| command.env("JWKSD_KEYS_POLL_INTERVAL", "1h"));
    let (first, other, last) = (&site.certificate, Certificate::new(), Certificate::new());
    let expired = Certificate::with(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let config = trusting(&[first, &last], HTTP1);
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let missing = String::new();
    let bad = [
        (&first.chain, &other.key, "not the key of the certificate"),
        (&half(&other.chain), &other.key, "in the middle of a PEM block"),
        (&other.chain, &half(&other.key), "in the middle of a PEM block"),
        (&expired.chain, &expired.key, "ended at 2020-01-01"),
        (&missing, &first.key, "can't be read"),
    ];
    let look = || daemon.signal(rustix::process::Signal::HUP);
    for (certificate, key, cause) in bad {
        let before = measured(&daemon, REFUSED);
        let told = || {
            let lines = daemon.log();
            lines.iter().filter(|line| line.contains("are refused") && line.contains(cause)).count()
        };
        let told_before = told();
        let pair =
            Certificate { der: first.der.clone(), chain: certificate.clone(), key: key.clone() };
        pair.write(&site.tls());
        if certificate.is_empty() {
            fs::remove_file(site.tls().join("tls.crt")).unwrap();
        }
        look();
        eventually("it is told", || (told() > told_before).then_some(()));
        // Again and again, and still told once.
        for _ in 0..3 {
            look();
            assert_eq!(shown(&connect(daemon.address, &config).unwrap()), first.der, "{cause}");
        }
        assert_eq!(told(), told_before + 1, "{cause}: {:?}", daemon.log());
        assert!(measured(&daemon, REFUSED) > before, "{cause}");
        let line = daemon.log().into_iter().rfind(|line| line.contains(cause)).unwrap();
        assert!(line.contains("\"remedy\"") && line.contains("tls."), "{line}");
    }
    let is_refused = "jwksd_tls_certificate_refused{listener=\"public\"}";
    assert!(measured(&daemon, is_refused) >= 1.0);
    last.write(&site.tls());
    look();
    await_shown(&daemon, &config, &last);
    assert!(measured(&daemon, is_refused) <= 0.0);
    assert!(measured(&daemon, CHANGED) >= 1.0);
    // No private byte stands in the log.
    let secrets: Vec<&str> = last.key.lines().filter(|line| line.len() > 40).collect();
    assert!(!secrets.is_empty());
    assert!(!daemon.log().iter().any(|line| secrets.iter().any(|secret| line.contains(secret))));
}
