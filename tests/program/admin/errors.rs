//! What calls are refused, with which status, code and words, and that nothing comes of them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{KEY_PAIRS, Served, of_key, refused, text};
use crate::common::daemon::{Connection, drop_by_rename, eventually, now};
use crate::common::faults::{AtomicWriter, drop_key, jwk_of, new_pem, remove_key};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[test]
fn an_id_of_no_key_is_not_found() {
    let served = Served::start();
    served.issue();
    let long = "k".repeat(300);
    let ids = [
        "unknown",
        "a%2Fb",
        "a%0D%0Ab",
        "%2e%2e%2f..",
        "..",
        "%2e%2e%2F%2e%2e%2Fetc%2Fpasswd",
        "%00",
        "%ff%fe",
        "k%C3%A9",
        "pending",
        &long,
    ];
    for id in ids {
        for (method, action) in
            [("GET", ""), ("DELETE", ""), ("POST", "/invalidate"), ("POST", "/reactivate")]
        {
            let path = of_key(id, action);
            let detail =
                refused(&served.call(method, &path, &Value::Null), 404, "KEYPAIR_NOT_FOUND");
            assert!(!detail.contains(['\r', '\n', '\0']), "{detail:?}");
        }
    }
    // As it stands in the path, it is not an id but another path.
    refused(&served.call("GET", &of_key("../..", ""), &Value::Null), 404, "NOT_FOUND");
    assert_eq!(served.daemon.kids().len(), 1);
}

#[test]
fn beside_a_key_that_is_used_elsewhere_one_on_this_disk_has_to_be_meant() {
    let served = Served::start();
    let attributes = json!({ "keyId": "hsm", "signer": "pkcs11:token=iam" });
    drop_by_rename(&served.keys(), "hsm.meta.json", attributes.to_string());
    drop_by_rename(&served.keys(), "hsm.json", jwk_of(&new_pem(), "hsm").to_string());
    served.daemon.await_kids(&["hsm"]);
    let pair = served.done("GET", &of_key("hsm", ""), &Value::Null);
    assert_eq!((&pair["signer"], &pair["current"]), (&json!("pkcs11:token=iam"), &json!(true)));
    let mut issue = json!({ "audience": "client", "algorithm": "EdDSA" });
    let detail = refused(&served.call("POST", KEY_PAIRS, &issue), 409, "SIGNED_ELSEWHERE");
    assert!(detail.contains("pkcs11:token=iam") && detail.contains("\"software\""), "{detail}");
    issue["software"] = true.into();
    served.done("POST", KEY_PAIRS, &issue);
    assert_eq!(served.daemon.kids().len(), 2);
}

#[test]
fn a_body_with_anything_wrong_in_it_is_refused_with_the_member_s_name() {
    let served = Served::start();
    let kid = served.issue();
    let before = served.done("GET", KEY_PAIRS, &Value::Null);
    let hour = |hours| (now() + SignedDuration::from_hours(hours)).to_string();
    let (past, soon, later) = (hour(-1), hour(1), hour(2));
    let good = r#""audience": "client", "algorithm": "ES256""#;
    let mut cases: Vec<(String, String, &str, &str)> = Vec::new();
    let mut case = |action: &str, body: String, code, names| {
        let path = if action.is_empty() { KEY_PAIRS.to_owned() } else { of_key(&kid, action) };
        cases.push((path, body, code, names));
    };
    for (body, names) in [
        (String::new(), "object"),
        ("[]".to_owned(), "object"),
        ("null".to_owned(), "object"),
        ("{".to_owned(), ""),
        (format!("{{{good}}} {{}}"), ""),
        (format!("{{{good},}}"), ""),
        (r#"{"algorithm": "ES256"}"#.to_owned(), "audience"),
        (r#"{"audience": null, "algorithm": "ES256"}"#.to_owned(), "audience"),
        (r#"{"audience": "nobody", "algorithm": "ES256"}"#.to_owned(), "audience"),
        (r#"{"audience": "", "algorithm": "ES256"}"#.to_owned(), "audience"),
        (r#"{"audience": ["client"], "algorithm": "ES256"}"#.to_owned(), "audience"),
        (r#"{"audience": "client", "algorithm": 256}"#.to_owned(), "algorithm"),
        (format!(r#"{{{good}, "audience": "client"}}"#), "audience"),
        (format!(r#"{{{good}, "keyId": "mine"}}"#), "keyId"),
        (format!(r#"{{{good}, "invalidatecurrent": true}}"#), "invalidatecurrent"),
        (format!(r#"{{{good}, "invalidateCurrent": "true"}}"#), "invalidateCurrent"),
        (format!(r#"{{{good}, "invalidateCurrent": 1}}"#), "invalidateCurrent"),
        (format!(r#"{{{good}, "validFrom": 1700000000}}"#), "validFrom"),
        (format!(r#"{{{good}, "validFrom": "tomorrow"}}"#), "validFrom"),
        (format!(r#"{{{good}, "validTo": "2027-10-15"}}"#), "validTo"),
        (format!(r#"{{{good}, "validTo": "2027-02-30T00:00:00Z"}}"#), "validTo"),
        (format!(r#"{{{good}, "validTo": "{past}"}}"#), "validTo"),
        (format!(r#"{{{good}, "validFrom": "{later}", "validTo": "{soon}"}}"#), "validTo"),
        (format!(r#"{{{good}, "validFrom": "{soon}", "validTo": "{soon}"}}"#), "validTo"),
        (r#"{"audience": "client", "algorithm": "ES256"}"#.replace("client", "\\ud800"), ""),
    ] {
        case("", body, "BAD_REQUEST", names);
    }
    for number in ["-1", "31622401", "1e99", "1e400", "1.5", "\"60\"", "true", "[1]", "-1e99"] {
        let issue = format!(r#"{{{good}, "invalidateGracePeriodSec": {number}}}"#);
        let names = if number == "1e400" { "" } else { "invalidateGracePeriodSec" };
        case("", issue, "BAD_REQUEST", names);
        let names = if number == "1e400" { "" } else { "gracePeriodSec" };
        let invalidate = format!(r#"{{"gracePeriodSec": {number}}}"#);
        case("/invalidate", invalidate, "BAD_REQUEST", names);
    }
    for algorithm in ["HS256", "none", "RS1", "es256", "", "RS256 ", "ES256K", "\\r\\nx: y"] {
        let body = format!(r#"{{"audience": "client", "algorithm": "{algorithm}"}}"#);
        case("", body, "UNSUPPORTED_ALGORITHM", "");
    }
    for (action, body, names) in [
        (
            "/invalidate",
            r#"{"gracePeriodSec": 1, "gracePeriodSec": 2}"#.to_owned(),
            "gracePeriodSec",
        ),
        (
            "/invalidate",
            r#"{"invalidateGracePeriodSec": 1}"#.to_owned(),
            "invalidateGracePeriodSec",
        ),
        ("/invalidate", "[]".to_owned(), "object"),
        ("/invalidate", "\u{feff}{}".to_owned(), ""),
        ("/reactivate", r#"{"gracePeriodSec": 1}"#.to_owned(), "gracePeriodSec"),
        ("/reactivate", r#"{"validTo": 5}"#.to_owned(), "validTo"),
        ("/reactivate", format!(r#"{{"validTo": "{past}"}}"#), "validTo"),
        ("/reactivate", format!(r#"{{"validFrom": "{later}", "validTo": "{soon}"}}"#), "validTo"),
    ] {
        case(action, body, "BAD_REQUEST", names);
    }
    let mut connection = Connection::open_unix(&served.socket()).unwrap();
    for (path, body, code, names) in cases {
        let answer = connection.request_with("POST", &path, &JSON, body.as_bytes()).unwrap();
        let context = format!("{path} {body}: {}", answer.text());
        assert_eq!(answer.status, 400, "{context}");
        let detail = refused(&answer, 400, code);
        assert!(detail.contains(names), "{context}");
        assert!(!detail.contains(['\r', '\n']), "{context}");
    }
    assert_eq!(served.done("GET", KEY_PAIRS, &Value::Null), before, "nothing was changed");
    assert_eq!(served.files().len(), 2);
}

#[test]
fn the_ends_of_what_a_grace_may_be_are_taken() {
    let served = Served::start();
    for (number, seconds) in [("0", 0), ("31622400", 31_622_400), ("1e3", 1000), ("60.0", 60)] {
        let kid = served.issue();
        let body = format!(r#"{{"gracePeriodSec": {number}}}"#);
        let mut connection = Connection::open_unix(&served.socket()).unwrap();
        let path = of_key(&kid, "/invalidate");
        let pair = connection.request_with("POST", &path, &JSON, body.as_bytes()).unwrap().json();
        let [at, until] = ["invalidatedAt", "publishedUntil"]
            .map(|member| text(&pair, member).parse::<jiff::Timestamp>().unwrap());
        // A key ends with its validity at the latest.
        let validity = text(&pair, "validTo").parse().unwrap();
        assert_eq!(until, (at + SignedDuration::from_secs(seconds)).min(validity), "{number}");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_however_it_is_sent() {
    let served = Served::start();
    let fits =
        format!("{}{}", r#"{"audience":"client","algorithm":"EdDSA"}"#, " ".repeat(65_536 - 41));
    let connect = || Connection::open_unix(&served.socket()).unwrap();
    let answer = connect().request_with("POST", KEY_PAIRS, &JSON, fits.as_bytes()).unwrap();
    assert_eq!((fits.len(), answer.status), (65_536, 200), "{}", answer.text());

    let large = format!("{fits} ");
    let answer = connect().request_with("POST", KEY_PAIRS, &JSON, large.as_bytes()).unwrap();
    refused(&answer, 413, "PAYLOAD_TOO_LARGE");
    // By its word alone, before anything of it is sent.
    let head =
        format!("POST {KEY_PAIRS} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n");
    refused(&connect().send(head.as_bytes(), false).unwrap(), 413, "PAYLOAD_TOO_LARGE");

    let mut chunked =
        format!("POST {KEY_PAIRS} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..65 {
        let _ = write!(chunked, "400\r\n{}\r\n", " ".repeat(1024));
    }
    refused(&connect().send(chunked.as_bytes(), false).unwrap(), 413, "PAYLOAD_TOO_LARGE");
    assert_eq!(served.daemon.kids().len(), 1);
}

#[test]
fn a_client_that_sends_all_of_a_large_body_still_gets_its_answer() {
    let served = Served::start();
    let json = ("content-type", "application/json");
    let none = "x".repeat(300);
    for size in [65_537, 300_000, 2_000_000] {
        let body = " ".repeat(size);
        for (path, headers, status, code) in [
            (KEY_PAIRS.to_owned(), &[json][..], 413, "PAYLOAD_TOO_LARGE"),
            (of_key(&none, "/invalidate"), &[json][..], 413, "PAYLOAD_TOO_LARGE"),
            ("/oauth/keys".to_owned(), &[][..], 404, "NOT_FOUND"),
        ] {
            let mut connection = Connection::open_unix(&served.socket()).unwrap();
            let answer = connection.request_with("POST", &path, headers, body.as_bytes());
            let answer = answer.unwrap_or_else(|error| panic!("{size} bytes, {path}: {error}"));
            refused(&answer, status, code);
        }
    }
}

#[test]
fn a_chunked_body_is_one_like_any_other() {
    let served = Served::start();
    let request = format!(
        "POST {KEY_PAIRS} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
         15\r\n{{\"audience\":\"client\",\r\n15\r\n\"algorithm\": \"EdDSA\"}}\r\n0\r\n\r\n"
    );
    let mut connection = Connection::open_unix(&served.socket()).unwrap();
    let answer = connection.send(request.as_bytes(), false).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_body_of_another_type_is_refused() {
    let served = Served::start();
    let body = br#"{"audience": "client", "algorithm": "EdDSA"}"#;
    let post = |media: &str| {
        let mut connection = Connection::open_unix(&served.socket()).unwrap();
        connection.request_with("POST", KEY_PAIRS, &[("content-type", media)], body).unwrap()
    };
    for media in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "text/json"]
    {
        refused(&post(media), 415, "UNSUPPORTED_MEDIA_TYPE");
    }
    assert_eq!(served.daemon.kids().len(), 0);
    for media in ["application/json", "APPLICATION/JSON; charset=utf-8"] {
        assert_eq!(post(media).status, 200);
    }
}

#[test]
fn a_body_where_none_belongs_is_refused() {
    let served = Served::start();
    let kid = served.issue();
    for (method, path) in
        [("GET", KEY_PAIRS.to_owned()), ("GET", of_key(&kid, "")), ("DELETE", of_key(&kid, ""))]
    {
        refused(&served.call(method, &path, &json!({})), 400, "BAD_REQUEST");
    }
    assert_eq!(served.daemon.kids(), [kid]);
}

#[test]
fn a_body_that_never_ends_is_not_waited_for() {
    let served = Served::start();
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    let head = format!("POST {KEY_PAIRS} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).unwrap();
    let began = Instant::now();
    // A byte now and then does not buy more time.
    let mut trickle = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        while trickle.write_all(b" ").is_ok() {
            std::thread::park_timeout(Duration::from_millis(500));
        }
    });
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    if let Ok(answer) = Connection::over(stream).send(b"", false) {
        refused(&answer, 408, "REQUEST_TIMEOUT");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    served.issue();
}

#[test]
fn other_methods_and_paths_are_told_apart() {
    let served = Served::start();
    let kid = served.issue();
    for (method, path, allow) in [
        ("PUT", KEY_PAIRS.to_owned(), "GET, POST"),
        ("DELETE", KEY_PAIRS.to_owned(), "GET, POST"),
        ("POST", format!("{KEY_PAIRS}/current"), "GET"),
        ("POST", of_key(&kid, ""), "GET, DELETE"),
        ("PATCH", of_key(&kid, ""), "GET, DELETE"),
        ("GET", of_key(&kid, "/invalidate"), "POST"),
        ("DELETE", of_key(&kid, "/reactivate"), "POST"),
        ("BREW", of_key(&kid, ""), "GET, DELETE"),
    ] {
        let answer = served.call(method, &path, &Value::Null);
        refused(&answer, 405, "METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
    for path in [
        "/".to_owned(),
        "/oauth/keys".to_owned(),
        format!("{KEY_PAIRS}/"),
        format!("{KEY_PAIRS}s"),
        of_key(&kid, "/"),
        of_key(&kid, "/revoke"),
        of_key(&kid, "/invalidate/"),
        format!("/x{KEY_PAIRS}"),
        "/.well-known/jwks.json".to_owned(),
    ] {
        refused(&served.call("GET", &path, &Value::Null), 404, "NOT_FOUND");
    }
    assert_eq!(served.daemon.kids(), [kid]);
}

#[test]
fn what_is_asked_of_an_audience_names_one_that_there_is() {
    let served = Served::start();
    let current =
        |query: &str| served.call("GET", &format!("{KEY_PAIRS}/current{query}"), &Value::Null);
    refused(&current("?audience=client"), 404, "KEYPAIR_NOT_FOUND");
    let kid = served.issue();
    for query in ["", "?", "?x=client", "?audience", "?audience=", "?audience=nobody"] {
        assert!(refused(&current(query), 400, "BAD_REQUEST").contains("audience"), "{query}");
    }
    for query in ["?audience=client&audience=client", "?audience=human&x=1&audience=client"] {
        assert!(refused(&current(query), 400, "BAD_REQUEST").contains("audience"), "{query}");
    }
    refused(&current("?audience=client%0D%0A"), 400, "BAD_REQUEST");
    refused(&current("?audience=human"), 404, "KEYPAIR_NOT_FOUND");
    for query in ["?audience=client", "?audience=cl%69ent&x=1"] {
        assert_eq!(text(&current(query).json(), "keyId"), kid);
    }
}

#[test]
fn a_key_whose_validity_is_over_comes_back_only_with_a_new_end() {
    let served = Served::start();
    let to = now() + SignedDuration::from_millis(1500);
    let body = json!({ "audience": "client", "algorithm": "EdDSA", "validTo": to.to_string() });
    let pair = served.done("POST", KEY_PAIRS, &body);
    let kid = text(&pair, "keyId");
    served.daemon.await_kids(&[]);
    assert!(to <= now());
    let reactivate = |body: &Value| served.call("POST", &of_key(kid, "/reactivate"), body);
    for body in [Value::Null, json!({}), json!({ "validTo": null })] {
        assert!(refused(&reactivate(&body), 400, "BAD_REQUEST").contains("validTo"));
    }
    let later = now() + SignedDuration::from_hours(1);
    let answer = reactivate(&json!({ "validTo": later.to_string() }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(served.daemon.get("/.well-known/jwks.json").kids(), [kid]);
}

#[test]
fn a_read_only_key_directory_takes_no_new_key_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    let attributes = || ("a.meta.json", json!({ "keyId": "a" }).to_string());
    AtomicWriter::new(&keys).write(&[("a.pem", new_pem()), attributes()]);
    let served = Served::start_with(directory, |command| command);
    served.daemon.await_kids(&["a"]);
    let answer =
        served.call("POST", KEY_PAIRS, &json!({ "audience": "client", "algorithm": "EdDSA" }));
    let detail = refused(&answer, 409, "KEY_DIRECTORY_READ_ONLY");
    assert!(detail.contains("Secret") && detail.contains("writable"), "{detail}");
    // It can be ended and deleted all the same.
    let pair = served.done("POST", &of_key("a", "/invalidate"), &json!({ "gracePeriodSec": 60 }));
    assert_eq!(pair["phase"], "grace");
    let deleted = served.done("DELETE", &of_key("a", ""), &Value::Null);
    let warnings = deleted["warnings"].to_string();
    assert!(warnings.contains("still lies there"), "{warnings}");
    assert!(keys.join("a.pem").exists());
    assert_eq!(served.daemon.get("/.well-known/jwks.json").kids(), [""; 0]);
    refused(&served.call("GET", &of_key("a", ""), &Value::Null), 404, "KEYPAIR_NOT_FOUND");
}

#[test]
fn a_key_without_files_is_not_reactivated() {
    let served = Served::start();
    drop_key(&served.keys(), "a");
    drop_key(&served.keys(), "b");
    served.daemon.await_kids(&["a", "b"]);
    remove_key(&served.keys(), "a");
    eventually("the loss is noticed", || {
        let pair = served.done("GET", &of_key("a", ""), &Value::Null);
        (pair["phase"] == "grace").then_some(())
    });
    let answer = served.call("POST", &of_key("a", "/reactivate"), &Value::Null);
    refused(&answer, 409, "KEYPAIR_FILES_MISSING");
}

#[test]
fn what_is_no_good_request_is_refused_before_any_call() {
    let served = Served::start();
    let long = |length| "a".repeat(length);
    // What HTTP itself rules out, the library answers by a bare status.
    for (request, status, code) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, Some("BAD_REQUEST")),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), 400, Some("BAD_REQUEST")),
        (format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", long(9000)), 414, Some("URI_TOO_LONG")),
        ("nonsense\r\n\r\n".to_owned(), 400, None),
        (format!("GET / HTTP/1.1\r\nhost: a\r\na: {}\r\n\r\n", long(20_000)), 431, None),
    ] {
        let mut connection = Connection::open_unix(&served.socket()).unwrap();
        let answer = connection.send(request.as_bytes(), false).unwrap();
        let start = &request[..20.min(request.len())];
        assert_eq!(answer.status, status, "{start} {}", answer.text());
        match code {
            Some(code) => drop(refused(&answer, status, code)),
            None => assert_eq!(answer.text(), "", "{start}"),
        }
    }
}
