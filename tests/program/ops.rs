//! The operations listener: what it says of a program that starts, serves, has troubles and ends.

use crate::common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use common::daemon::{Connection, Daemon, Response, drop_by_rename, eventually, jwksd};
use common::faults::{drop_key, new_pem};
use serde_json::{Value, json};

fn ask(daemon: &Daemon, path: &str) -> Response {
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    connection.request("GET", path, &[]).unwrap()
}

/// The samples of an `OpenMetrics` text, by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut samples = BTreeMap::new();
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# ") {
            families.extend(
                line.strip_prefix("TYPE ").map(|line| line.split(' ').next().unwrap().to_owned()),
            );
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(families.last().is_some_and(|family| name.starts_with(family.as_str())), "{line}");
        let before = samples.insert(name.to_owned(), value.parse().unwrap());
        assert_eq!(before, None, "{line} stands twice");
    }
    samples
}

fn metrics(daemon: &Daemon) -> BTreeMap<String, f64> {
    let answer = ask(daemon, "/metrics");
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    samples(&answer.text())
}

#[test]
fn it_is_ready_from_the_first_good_scan_that_publishes_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let state = directory.path().join("state");
    let daemon = Daemon::start_with(&keys, |command| {
        command.arg("--state").arg(&state).env("JWKSD_KEYS_POLL_INTERVAL", "100ms")
    });
    assert_eq!(ask(&daemon, "/livez").status, 200);
    let answer = ask(&daemon, "/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("[-] scan"), "{}", answer.text());

    fs::create_dir(&keys).unwrap();
    let answer = eventually("the empty directory is read", || {
        Some(ask(&daemon, "/readyz")).filter(|answer| answer.text().contains("[+] scan"))
    });
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("[-] keys: no key is published"), "{}", answer.text());

    drop_key(&keys, "a");
    eventually("a key makes it ready", || (ask(&daemon, "/readyz").status == 200).then_some(()));

    // A bad file is no reason, nor is a directory that can't be read any more.
    drop_by_rename(&keys, "bad.pem", "nothing");
    fs::rename(&keys, directory.path().join("away")).unwrap();
    eventually("the directory is missed", || {
        let failed = metrics(&daemon)["jwksd_reloads_total{outcome=\"failed\"}"];
        (failed > 1.0).then_some(())
    });
    assert_eq!(ask(&daemon, "/readyz").status, 200);
}

#[test]
fn readiness_is_the_first_to_fail_and_its_listener_the_last_to_close() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let daemon = Daemon::start(directory.path());
    daemon.await_kids(&["a"]);
    let ops = daemon.address_of("ops");
    // A request under way holds the end up.
    let mut slow = std::net::TcpStream::connect(daemon.address).unwrap();
    std::io::Write::write_all(&mut slow, b"GET / HTTP/1.1\r\nhost:").unwrap();
    let counted = || metrics(&daemon)["jwksd_http_connections{listener=\"public\"}"];
    eventually("the request has begun", || (counted() >= 1.0).then_some(()));
    daemon.signal(rustix::process::Signal::TERM);
    let answer = eventually("it is about to end", || {
        let answer = Connection::open(ops).ok()?.request("GET", "/readyz", &[]).ok()?;
        (answer.status == 503).then_some(answer)
    });
    assert!(answer.text().contains("[-] shutdown"), "{}", answer.text());
    drop(slow);
    assert!(daemon.stop().success());
}

#[test]
fn metrics_say_what_the_status_says() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    drop_key(keys, "old");
    let daemon = Daemon::start(keys);
    daemon.await_kids(&["old"]);
    drop_by_rename(keys, "bad.pem", "nothing");
    drop_key(keys, "new");
    daemon.await_kids(&["new", "old"]);
    let ended = jwksd()
        .args(["keys", "invalidate", "old", "--grace", "2h", "--keys"])
        .arg(keys)
        .output()
        .unwrap();
    assert!(ended.status.success());
    daemon.get("/nothing");

    let status = ask(&daemon, "/status").json();
    assert_eq!(status["ready"], true);
    assert_eq!(status["watcher"]["state"], "events");
    assert_eq!(status["ledger"]["state"], "disk");
    let current = &status["current"].as_array().unwrap()[0];
    assert_eq!((&current["audience"], &current["keyId"]), (&json!("client"), &json!("new")));
    let listed = status["keys"].as_array().unwrap();
    let key = |kid: &str| listed.iter().find(|key| key["keyId"] == kid).unwrap();
    assert_eq!(key("old")["phase"], "grace");
    assert!(key("old")["reasons"][0].as_str().unwrap().contains("order"));
    assert_eq!(key("new")["slot"], "new");
    let [refused] = &status["refused"].as_array().unwrap()[..] else { panic!("{status}") };
    assert!(refused["file"].as_str().unwrap().ends_with("bad.pem"));
    assert!(refused["cause"].is_string() && refused["remedy"].is_string());
    let served = &status["documents"][0];
    assert_eq!(served["path"], "/.well-known/jwks.json");
    assert_eq!(served["etag"], daemon.get("/.well-known/jwks.json").header("etag"));

    let metrics = metrics(&daemon);
    let is = |name: &str, value: f64| {
        let found = metrics.get(name).unwrap_or_else(|| panic!("{name}: {metrics:#?}"));
        assert!((found - value).abs() < 1e-6, "{name} is {found}, not {value}");
    };
    is("jwksd_ready", 1.0);
    is("jwksd_keys{audience=\"client\",phase=\"active\"}", 1.0);
    is("jwksd_keys{audience=\"client\",phase=\"grace\"}", 1.0);
    is("jwksd_keys{audience=\"human\",phase=\"active\"}", 0.0);
    is("jwksd_key_grace_seconds{audience=\"client\",kid=\"old\"}", 7200.0);
    is("jwksd_current_key_info{audience=\"client\",kid=\"new\",algorithm=\"ES256\"}", 1.0);
    is("jwksd_standby_keys{audience=\"client\"}", 0.0);
    is("jwksd_refused_files{reason=\"no-key\"}", 1.0);
    is("jwksd_watcher_events", 1.0);
    is("jwksd_ledger_state{state=\"disk\"}", 1.0);
    is("jwksd_document_keys{audience=\"\"}", 2.0);
    is("jwksd_document_bytes{audience=\"\"}", served["bytes"].as_f64().unwrap());
    is("jwksd_http_requests_total{listener=\"public\",path=\"other\",status=\"404\"}", 1.0);
    is("jwksd_http_requests_total{listener=\"ops\",path=\"/status\",status=\"200\"}", 1.0);
    let end: jiff::Timestamp = key("old")["publishedUntil"].as_str().unwrap().parse().unwrap();
    let end_name = "jwksd_key_publication_end_timestamp_seconds{audience=\"client\",kid=\"old\"}";
    let epoch = jiff::Timestamp::UNIX_EPOCH;
    is(end_name, end.duration_since(epoch).as_secs_f64());
    let next = metrics["jwksd_next_change_seconds"];
    assert!(0.0 < next && next <= 7200.0, "{next}");
    let digest = served["etag"].as_str().unwrap().trim_matches('"');
    is(&format!("jwksd_document_info{{audience=\"\",digest=\"{digest}\"}}"), 1.0);
}

#[test]
fn the_page_is_whole_by_itself_and_obeys_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    drop_key(keys, "a<script>alert(1)<b>");
    drop_by_rename(keys, "<img src=x onerror=alert(2)>.pem", "nothing");
    let daemon = Daemon::start(keys);
    daemon.kids();
    let page = eventually("the refused file is shown", || {
        Some(ask(&daemon, "/")).filter(|page| page.text().contains("onerror"))
    });
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src "));
    let text = page.text();
    for word in ["<script", "<img", "javascript:", "https://", " style=", " on"] {
        let found = text.match_indices(word).map(|(at, _)| &text[at..(at + 60).min(text.len())]);
        let in_a_tag = found.filter(|found| *word != *" on" || found.contains("=\""));
        assert_eq!(in_a_tag.collect::<Vec<_>>(), [""; 0], "{word}");
    }
    let public = format!("<a href=\"http://{}/", daemon.address);
    assert_eq!(text.matches("http://").count(), text.matches(&public).count());
    assert!(text.contains("&lt;script&gt;"));
    // The axis, and a bar for the key.
    assert_eq!(text.matches("<svg").count(), 2);
    assert!(text.contains("What to do:"));
}

#[test]
fn it_shows_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "a");
    let daemon = Daemon::start(directory.path());
    let mut connection = Connection::open(daemon.address_of("ops")).unwrap();
    for (method, path, expected) in [
        ("POST", "/status", 405),
        ("DELETE", "/", 405),
        ("GET", "/oauth/keys/keypair", 404),
        ("GET", "/.well-known/jwks.json", 404),
        ("HEAD", "/metrics", 200),
        ("GET", "/livez?verbose", 200),
    ] {
        let answer = connection.request(method, path, &[]).unwrap();
        assert_eq!(answer.status, expected, "{method} {path}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let _: Value = ask(&daemon, "/status").json();
}

/// The metrics that deploy/operation.md lists, with the names of their labels.
fn listed() -> BTreeMap<String, Vec<String>> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/operation.md");
    let document = fs::read_to_string(document).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| `jwksd_"));
    let cells = rows.map(|row| row.split(" | ").next().unwrap());
    let mut listed = BTreeMap::new();
    for metric in cells.flat_map(|cell| cell.split('`')).filter(|text| text.starts_with("jwksd_")) {
        let (name, labels) = metric.split_once('{').unwrap_or((metric, "}"));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let before = listed.insert(name.to_owned(), labels.map(str::to_owned).collect());
        assert_eq!(before, None, "{name} is listed twice");
    }
    listed
}

#[test]
fn every_metric_is_listed_once_with_its_labels() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path();
    let declared = json!({ "keyId": "old", "invalidatedAt": common::daemon::now().to_string() });
    drop_by_rename(keys, "old.meta.json", declared.to_string());
    let pem = new_pem();
    drop_by_rename(keys, "old.pem", pem.as_bytes());
    let ahead = common::daemon::now() + std::time::Duration::from_secs(9000);
    let declared = json!({ "keyId": "new", "validTo": ahead.to_string() });
    drop_by_rename(keys, "new.meta.json", declared.to_string());
    let pem = new_pem();
    drop_by_rename(keys, "new.pem", pem.as_bytes());
    drop_by_rename(keys, "certified.meta.json", json!({ "keyId": "certified" }).to_string());
    let certificate = "tests/fixtures/keys/accepted/certificate-expired.crt";
    let certificate = Path::new(env!("CARGO_MANIFEST_DIR")).join(certificate);
    drop_by_rename(keys, "certified.crt", fs::read_to_string(certificate).unwrap());
    drop_by_rename(keys, "bad.pem", "nothing");
    let daemon = Daemon::start(keys);
    // A certificate that has ended ends no key.
    daemon.await_kids(&["certified", "new", "old"]);
    daemon.get("/.well-known/jwks.json");
    // Keys are served before the look is told to its end.
    let text = eventually("the look is told", || {
        let text = ask(&daemon, "/metrics").text();
        text.contains("\njwksd_last_good_scan_timestamp_seconds ").then_some(text)
    });
    let mut named: Vec<String> = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        named.push(if kind == "counter" { format!("{name}_total") } else { name.to_owned() });
    }
    named.sort();
    let listed = listed();
    assert_eq!(named, listed.keys().cloned().collect::<Vec<_>>());
    // All but those of what is not configured here have samples.
    let mut sampled: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for sample in samples(&text).into_keys() {
        let (name, labels) = sample.split_once('{').unwrap_or((&sample, "}"));
        let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.split_once("=\"").unwrap().0.to_owned()).collect();
        sampled.insert(name.to_owned(), labels);
    }
    let end = "jwksd_key_certificate_end_timestamp_seconds{audience=\"client\",kid=\"certified\"}";
    assert!((samples(&text)[end] - 1_577_836_800.0).abs() < 1.0);
    let notes = ask(&daemon, "/status").json()["notes"].to_string();
    assert!(notes.contains("certified: its certificate ended on 2020-01-01"), "{notes}");
    let is_plain = |name: &String| {
        let absent = ["jwksd_tls_", "jwksd_export_", "jwksd_rotation_", "jwksd_fleet_"];
        !absent.iter().any(|prefix| name.starts_with(prefix))
    };
    let plain = listed.into_iter().filter(|(name, _)| is_plain(name));
    assert_eq!(sampled, plain.collect());
}

#[test]
fn any_name_can_be_a_label() {
    let directory = tempfile::tempdir().unwrap();
    let kid = r#"a"b\c{d="e"}, ' #"#;
    let declared = json!({ "keyId": kid, "validTo": "2999-01-01T00:00:00Z" });
    drop_by_rename(directory.path(), "a.meta.json", declared.to_string());
    let pem = new_pem();
    drop_by_rename(directory.path(), "a.pem", pem.as_bytes());
    let daemon = Daemon::start(directory.path());
    daemon.await_kids(&[kid]);
    let escaped = kid.replace('\\', r"\\").replace('"', "\\\"");
    let name = "jwksd_key_publication_end_timestamp_seconds";
    let name = format!("{name}{{audience=\"client\",kid=\"{escaped}\"}}");
    assert!(metrics(&daemon).contains_key(&name), "{name}");
}

#[test]
fn more_keys_than_monitoring_takes_are_counted_and_not_listed() {
    let directory = tempfile::tempdir().unwrap();
    let pair = |number: usize| {
        let pem = new_pem();
        let declared = json!({
            "keyId": format!("k{number:03}"), "validTo": "2999-01-01T00:00:00Z",
            "validFrom": format!("2020-01-01T00:{:02}:{:02}Z", number / 60, number % 60),
        });
        fs::write(directory.path().join(format!("{number}.meta.json")), declared.to_string())
            .unwrap();
        fs::write(directory.path().join(format!("{number}.pem")), pem.as_bytes()).unwrap();
    };
    (0..103).for_each(pair);
    let daemon = Daemon::start(directory.path());
    let metrics = eventually("all are read", || {
        let metrics = metrics(&daemon);
        let active = metrics.get("jwksd_keys{audience=\"client\",phase=\"active\"}")?;
        (*active > 102.5).then_some(metrics)
    });
    for (name, expected) in [
        ("jwksd_key_publication_end_timestamp_seconds{", 100),
        ("jwksd_key_safe_to_sign_timestamp_seconds{", 100),
    ] {
        let found = metrics.keys().filter(|sample| sample.starts_with(name)).count();
        assert_eq!(found, expected, "{name}");
    }
    let end = |kid| {
        let name = "jwksd_key_publication_end_timestamp_seconds";
        metrics.contains_key(&format!("{name}{{audience=\"client\",kid=\"{kid}\"}}"))
    };
    assert!(end("k102") && end("k003") && !end("k002"), "the newest are listed");
    let unlisted = metrics["jwksd_unlisted_keys{audience=\"client\"}"];
    assert!((unlisted - 3.0).abs() < 1e-9, "{unlisted}");
}

#[test]
fn a_status_of_many_keys_is_sent_as_it_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let expected: Vec<String> = (0..2010).map(|number| format!("k{number:04}")).collect();
    for kid in &expected {
        fs::write(directory.path().join(format!("{kid}.pem")), new_pem()).unwrap();
    }
    let daemon = Daemon::start_with(directory.path(), |command| {
        command.env("JWKSD_KEYS_KEY_ID", "file-name").env("JWKSD_KEYS_MAX_KEYS", "3000")
    });
    assert_eq!(daemon.kids().len(), 2010);
    let status = eventually("all are told of", || {
        let answer = ask(&daemon, "/status");
        (answer.header("transfer-encoding") == "chunked").then_some(answer)
    });
    let status = status.json();
    let keys = status["keys"].as_array().unwrap().iter();
    let kids: Vec<&str> = keys.map(|key| key["keyId"].as_str().unwrap()).collect();
    assert_eq!(kids, expected);
    assert_eq!(status["current"][0]["standby"], 2009);
    // What follows the keys is whole as well.
    assert!(status["documents"].is_array() && status["rotation"].is_array());
    let page = ask(&daemon, "/").text();
    assert!(page.contains("Keys of further audiences, 10: "), "the page has a bound");
}

#[test]
fn over_loopback_a_name_that_was_made_to_lead_here_gets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    drop_key(directory.path(), "client");
    let daemon = Daemon::start_with(directory.path(), |command| {
        command.env("JWKSD_OPS_HOSTS", "status.example")
    });
    let status = |host: &str| {
        let mut stream = TcpStream::connect(daemon.address_of("ops").to_string()).unwrap();
        let head = format!("GET /status HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let refused = status("evil.example:9090");
    assert!(refused.starts_with("HTTP/1.1 421 "), "{refused}");
    assert!(refused.contains("application/problem+json") && refused.contains("ops.hosts"));
    assert!(!refused.contains("keyId"), "{refused}");
    for host in ["localhost:9090", "127.0.0.1", "[::1]:9090", "STATUS.example:80"] {
        assert!(status(host).starts_with("HTTP/1.1 200 "), "{host}");
    }
}
