//! The handshake: versions, ALPN, what is refused, and what is cut.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustls::version::{TLS12, TLS13};

use super::clients::{
    Certificate, H2, HEADERS, HTTP1, Http2, NO_ROOM, client, connect, is_closed, read_frame,
};
use super::{Site, reached, secured};
use crate::common::daemon::{Connection, PATIENCE, eventually, jwksd};
use crate::mistakes::{run, text};

const JWKS: &str = "/.well-known/jwks.json";

#[test]
fn tls_1_2_and_1_3_are_spoken_and_alpn_decides_what_follows() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    for version in [&TLS12, &TLS13] {
        let config = |protocols| client(&[&site.certificate], protocols, &[version]);
        for protocols in [&["h2", "http/1.1"][..], &["http/1.1", "h2"], &["h2"]] {
            let answer = Http2::open(daemon.address, &config(protocols)).get(JWKS);
            assert_eq!(answer.status(), 200, "{version:?} {protocols:?}");
        }
        for protocols in [&["http/1.1"][..], &[]] {
            let stream = connect(daemon.address, &config(protocols)).unwrap();
            assert_eq!(stream.conn.protocol_version(), Some(version.version));
            let mut connection = Connection::over(stream);
            for _ in 0..2 {
                let answer = connection.request("GET", JWKS, &[]).unwrap();
                assert_eq!((answer.status, answer.kids().len()), (200, 1), "{version:?}");
            }
        }
        let strange = connect(daemon.address, &config(&["spdy/1"]));
        assert!(strange.is_err(), "{version:?}: nothing in common");
    }
    assert!(daemon.stop().success());
}

#[test]
fn a_token_is_verified_over_https_by_who_trusts_the_certificate() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    let sign = ["token", "sign", "--audience", "client", "--claims", "{}"];
    let token = text(&run(&site.keys(), &sign).stdout);
    let port = daemon.address.port();
    let verify = |host: &str, trusted: &str| {
        let mut command = jwksd();
        command.args([
            "token",
            "verify",
            token.trim(),
            "--jwks",
            &format!("https://{host}:{port}{JWKS}"),
        ]);
        command.env("SSL_CERT_FILE", site.tls().join(trusted)).output().unwrap()
    };
    let verified = verify("localhost", "tls.crt");
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    let other = site.directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    Certificate::new().write(&other);
    for (host, trusted, words) in [
        ("localhost", "../other/tls.crt", "invalid peer certificate"),
        ("127.0.0.1", "tls.crt", "invalid peer certificate"),
        ("localhost", "tls.key", "has no certificate of an authority"),
        ("localhost", "nothing", "nothing: No such file"),
    ] {
        let refused = verify(host, trusted);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{host} {trusted}: {said}");
        assert!(said.contains(words) && said.contains("SSL_CERT_FILE=FILE"), "{said}");
    }
}

#[test]
fn a_client_that_does_not_go_on_is_cut_at_the_header_timeout() {
    let site = Site::new();
    let daemon = site.start(|command| command.env("JWKSD_LIMITS_HEADER_TIMEOUT", "300ms"));
    let connect_plainly = || {
        let stream = TcpStream::connect(daemon.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut silent = connect_plainly();
    let mut half = connect_plainly();
    // The head of a record that never comes.
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).unwrap();
    assert!(is_closed(&mut silent) && is_closed(&mut half));
    eventually("both are counted", || (reached(&daemon, "handshake-time") >= 2.0).then_some(()));

    // After the handshake, the first request has the same time.
    let config = site.certificate.client(HTTP1);
    let mut connection = Connection::over(connect(daemon.address, &config).unwrap());
    let answer = connection.send(b"GET / HT", false).unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (408, "application/problem+json"));
    let before = reached(&daemon, "head-time");
    let mut silent = connect(daemon.address, &site.certificate.client(H2)).unwrap();
    assert!(is_closed(&mut silent));
    let mut half = connect(daemon.address, &site.certificate.client(H2)).unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
    half.flush().unwrap();
    assert!(is_closed(&mut half));
    eventually("both are counted", || {
        (reached(&daemon, "head-time") >= before + 2.0).then_some(())
    });
}

#[test]
fn what_is_no_handshake_is_refused() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    let mut plain = TcpStream::connect(daemon.address).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // An alert, or nothing.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    eventually("it is counted", || (reached(&daemon, "handshake") >= 1.0).then_some(()));

    // A handshake that is far too long.
    let mut long = TcpStream::connect(daemon.address).unwrap();
    long.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut record = vec![0x16, 0x03, 0x01, 0x3f, 0xff, 0x01, 0x00, 0xff, 0x00];
    record.resize(5 + 0x3fff, 0);
    // It may be closed before the end.
    let _ = long.write_all(&record).and_then(|()| long.write_all(&record));
    assert!(is_closed(&mut long));
}

#[test]
fn a_client_of_http_2_that_takes_no_answer_gives_way() {
    let site = Site::new();
    let daemon = site.start(|command| {
        command.env("JWKSD_LIMITS_MAX_CONNECTIONS", "1").env("JWKSD_LIMITS_WRITE_TIMEOUT", "1h")
    });
    // Its answer has no room to go to.
    let mut stuck = super::clients::by_hand(daemon.address, &site.certificate, &NO_ROOM);
    let path = JWKS.as_bytes();
    let length = u8::try_from(path.len()).unwrap();
    let block = [&[0x82, 0x87, 0x44, length], path, &[0x41, 1, b'a']].concat();
    stuck.write_all(&super::clients::frame(0x1, 0x5, 1, &block)).unwrap();
    stuck.flush().unwrap();
    while read_frame(&mut stuck).unwrap().kind != HEADERS {}
    let config = site.certificate.client(HTTP1);
    eventually("another one is served", || {
        let stream = connect(daemon.address, &config).ok()?;
        let answer = Connection::over(stream).request("GET", JWKS, &[]).ok()?;
        (answer.status == 200).then_some(())
    });
}

#[test]
fn a_start_with_a_bad_pair_fails_and_says_why() {
    let site = Site::new();
    let other = Certificate::new();
    let expired = Certificate::with(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let good = &site.certificate;
    let half = |text: &str| text[..text.len() / 2].to_owned();
    for (certificate, key, file, cause) in [
        (good.chain.clone(), other.key.clone(), "tls.key", "not the key of the certificate"),
        (half(&good.chain), good.key.clone(), "tls.crt", "in the middle of a PEM block"),
        (good.chain.clone(), half(&good.key), "tls.key", "in the middle of a PEM block"),
        (good.chain.clone(), String::new(), "tls.key", "no PEM block"),
        (good.key.clone(), good.key.clone(), "tls.crt", "no PEM block"),
        (expired.chain, expired.key, "tls.crt", "ended at 2020-01-01"),
    ] {
        std::fs::write(site.tls().join("tls.crt"), certificate).unwrap();
        std::fs::write(site.tls().join("tls.key"), key).unwrap();
        fails(&site, file, cause);
    }
    std::fs::remove_file(site.tls().join("tls.key")).unwrap();
    fails(&site, "tls.key", "can't be read");
}

fn fails(site: &Site, file: &str, cause: &str) {
    let mut command = jwksd();
    command.arg("serve").arg("--keys").arg(site.keys()).args(["--listen", "127.0.0.1:0"]);
    let output = secured(&mut command, &site.tls()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    for part in [file, "public.tls", cause, "remedy: "] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn administration_beyond_loopback_needs_tls_and_is_served_by_it() {
    let site = Site::new();
    let token = site.directory.path().join("token");
    std::fs::write(&token, "open sesame").unwrap();
    let mut command = jwksd();
    command.args(["config", "--admin-listen", "0.0.0.0:0"]);
    let refused = command.env("JWKSD_ADMIN_TOKEN_FILE", &token).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("needs admin.tls"));

    let daemon = site.start(|command| {
        command
            .args(["--admin-listen", "0.0.0.0:0"])
            .env("JWKSD_ADMIN_TOKEN_FILE", &token)
            .env("JWKSD_ADMIN_TLS_CERTIFICATE", site.tls().join("tls.crt"))
            .env("JWKSD_ADMIN_TLS_KEY", site.tls().join("tls.key"))
    });
    let address = SocketAddr::from(([127, 0, 0, 1], daemon.address_of("admin").port()));
    let path = "/oauth/keys/keypair";
    let mut http1 = Connection::over(connect(address, &site.certificate.client(HTTP1)).unwrap());
    assert_eq!(http1.request("GET", path, &[]).unwrap().status, 401);
    let bearer = "Bearer open sesame";
    let answer = http1.request("GET", path, &[("authorization", bearer)]).unwrap();
    assert_eq!((answer.status, answer.json().as_array().unwrap().len()), (200, 1));
    let mut http2 = Http2::open(address, &site.certificate.client(H2));
    let mut request = super::clients::get(path);
    request.headers_mut().insert("authorization", bearer.parse().unwrap());
    assert_eq!(http2.ask(request).unwrap().status(), 200);
    assert_eq!(http2.get(path).status(), 401);
}
