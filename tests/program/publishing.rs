//! What the public listener answers, from outside: headers, conditional requests, negotiation,
//! discovery, order, and the instants at which answers change.

use crate::common;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use common::daemon::{
    Connection, Daemon, Response, drop_by_rename, etag_of, eventually, jwksd, now,
};
use common::faults::new_pem;
use jwksd::keys::Algorithm;

use serde_json::{Value, json};

const PATH: &str = "/.well-known/jwks.json";

fn write_key(directory: &Path, name: &str, attributes: &Value) -> String {
    let pem = new_pem();
    if !attributes.is_null() {
        drop_by_rename(directory, &format!("{name}.meta.json"), attributes.to_string());
    }
    drop_by_rename(directory, &format!("{name}.pem"), &pem);
    pem
}

fn one_key() -> (tempfile::TempDir, Daemon) {
    let directory = tempfile::tempdir().unwrap();
    write_key(directory.path(), "a", &json!({ "keyId": "a" }));
    let daemon = Daemon::start(directory.path());
    daemon.await_kids(&["a"]);
    (directory, daemon)
}

fn request(daemon: &Daemon, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    Connection::open(daemon.address).unwrap().request(method, path, headers).unwrap()
}

#[test]
fn an_answer_has_every_header_a_cache_needs() {
    let (_directory, daemon) = one_key();
    let response = daemon.get(PATH);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), "application/json");
    assert_eq!(
        response.header("cache-control"),
        "public, max-age=300, must-revalidate, stale-while-revalidate=0, stale-if-error=0"
    );
    assert_eq!(response.header("etag"), etag_of(&response.body));
    assert_eq!(response.header("vary"), "Accept, Accept-Encoding");
    assert_eq!(response.header("access-control-allow-origin"), "*");
    assert!(response.header("last-modified").ends_with(" GMT"));
    assert!(!response.header("date").is_empty());
    assert_eq!(response.header("content-encoding"), "");
    let key = &response.json()["keys"][0];
    let members: Vec<&String> = key.as_object().unwrap().keys().collect();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
}

#[test]
fn an_unchanged_set_is_a_304_with_the_same_headers() {
    let (_directory, daemon) = one_key();
    let full = daemon.get(PATH);
    let etag = full.header("etag").to_owned();
    let lists = [etag.clone(), format!("W/{etag}"), "*".to_owned(), format!("\"x\", {etag}")];
    for list in lists {
        let response = request(&daemon, "GET", PATH, &[("if-none-match", &list)]);
        assert_eq!(response.status, 304, "{list}");
        assert!(response.body.is_empty());
        for header in ["etag", "cache-control", "vary", "last-modified"] {
            assert_eq!(response.header(header), full.header(header), "{header}");
        }
    }
    let other = request(&daemon, "GET", PATH, &[("if-none-match", "\"other\"")]);
    assert_eq!((other.status, &other.body), (200, &full.body));
    let since = full.header("last-modified").to_owned();
    assert_eq!(request(&daemon, "GET", PATH, &[("if-modified-since", &since)]).status, 304);
}

#[test]
fn gzip_is_sent_where_it_is_asked_for_with_a_tag_of_its_own() {
    let (_directory, daemon) = one_key();
    let identity = daemon.get(PATH);
    let gzip = request(&daemon, "GET", PATH, &[("accept-encoding", "br, gzip;q=0.5")]);
    assert_eq!(gzip.header("content-encoding"), "gzip");
    assert_eq!(gzip.header("etag"), etag_of(&gzip.body));
    assert_ne!(gzip.header("etag"), identity.header("etag"));
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(&*gzip.body).read_to_end(&mut body).unwrap();
    assert_eq!(body, identity.body);
    let refused = request(&daemon, "GET", PATH, &[("accept-encoding", "gzip;q=0")]);
    assert_eq!(refused.body, identity.body);
}

#[test]
fn the_jwk_set_media_type_is_sent_to_those_who_name_it() {
    let (_directory, daemon) = one_key();
    for (accept, expected) in [
        ("application/jwk-set+json", "application/jwk-set+json"),
        ("application/json;q=0.4, application/jwk-set+json;q=0.5", "application/jwk-set+json"),
        ("*/*", "application/json"),
        ("text/html", "application/json"),
    ] {
        let response = request(&daemon, "GET", PATH, &[("accept", accept)]);
        assert_eq!(response.header("content-type"), expected, "{accept}");
    }
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let (_directory, daemon) = one_key();
    let get = daemon.get(PATH);
    let head = request(&daemon, "HEAD", PATH, &[]);
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    for header in ["etag", "content-length", "content-type", "cache-control", "vary"] {
        assert_eq!(head.header(header), get.header(header), "{header}");
    }
}

#[test]
fn query_strings_are_ignored() {
    let (_directory, daemon) = one_key();
    assert_eq!(daemon.get("/.well-known/jwks.json?kid=a&_=1").body, daemon.get(PATH).body);
}

#[test]
fn refusals_are_problems_that_say_what_to_do() {
    let (_directory, daemon) = one_key();
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/nobody/.well-known/jwks.json", 404),
        ("GET", "/.well-known/openid-configuration", 404),
        ("POST", PATH, 405),
        ("DELETE", PATH, 405),
    ] {
        let response = request(&daemon, method, path, &[]);
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.header("content-type"), "application/problem+json");
        let problem = response.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        if status == 405 {
            assert_eq!(response.header("allow"), "GET, HEAD, OPTIONS");
        }
    }
    let preflight = request(
        &daemon,
        "OPTIONS",
        PATH,
        &[("origin", "https://app.example"), ("access-control-request-method", "GET")],
    );
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
}

#[test]
fn each_audience_has_a_set_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("human/one")).unwrap();
    write_key(directory.path(), "c", &json!({ "keyId": "c" }));
    write_key(directory.path(), "d", &json!({ "keyId": "d", "audience": "human" }));
    write_key(&directory.path().join("human/one"), "tls", &json!({ "keyId": "e" }));
    let daemon = Daemon::start(directory.path());
    daemon.await_kids(&["c", "d", "e"]);
    let mut human = daemon.get("/human/.well-known/jwks.json").kids();
    human.sort_unstable();
    assert_eq!(human, ["d", "e"]);
    assert_eq!(daemon.get("/client/.well-known/jwks.json").kids(), ["c"]);
}

#[test]
fn keys_stand_in_the_order_of_their_start_and_then_of_their_ids() {
    let directory = tempfile::tempdir().unwrap();
    let keys = [
        ("b-open", None),
        ("a-open", None),
        ("early", Some("2020-01-01T00:00:00Z")),
        ("late", Some("2021-01-01T00:00:00Z")),
        ("as-late", Some("2021-01-01T00:00:00Z")),
    ];
    for (kid, valid_from) in keys {
        let attributes = json!({ "keyId": kid, "validFrom": valid_from });
        write_key(directory.path(), kid, &attributes);
    }
    let daemon = Daemon::start(directory.path());
    assert_eq!(daemon.kids(), ["as-late", "late", "early", "a-open", "b-open"]);
    let rendered = jwksd().args(["render", "--keys"]).arg(directory.path()).output().unwrap();
    assert_eq!(rendered.stdout, daemon.get(PATH).body, "render prints the served bytes");
}

#[test]
fn a_key_is_published_under_its_aliases_too() {
    let directory = tempfile::tempdir().unwrap();
    write_key(directory.path(), "a", &json!({ "keyId": "new", "keyIdAliases": ["old"] }));
    let daemon = Daemon::start(directory.path());
    let set = daemon.get(PATH).json();
    assert_eq!(daemon.kids(), ["new", "old"]);
    assert_eq!(set["keys"][0]["x"], set["keys"][1]["x"]);
}

#[test]
fn discovery_documents_stand_where_an_issuer_is_configured() {
    let directory = tempfile::tempdir().unwrap();
    write_key(directory.path(), "a", &json!({ "keyId": "a" }));
    let daemon = Daemon::start_with(directory.path(), |command| {
        command.env("JWKSD_PUBLISH_ISSUER", "https://id.example")
    });
    daemon.await_kids(&["a"]);
    let paths = [
        ("/.well-known/openid-configuration", "https://id.example"),
        ("/.well-known/oauth-authorization-server", "https://id.example"),
        ("/client/.well-known/openid-configuration", "https://id.example/client"),
        ("/.well-known/oauth-authorization-server/client", "https://id.example/client"),
    ];
    for (path, issuer) in paths {
        let response = daemon.get(path);
        assert_eq!(response.header("content-type"), "application/json");
        let document = response.json();
        assert_eq!(document["issuer"], issuer, "{path}");
        assert_eq!(document["jwks_uri"], format!("{issuer}/.well-known/jwks.json"));
        // The consumers that read it once must not refuse a later key's algorithm.
        assert_eq!(document["id_token_signing_alg_values_supported"], json!(Algorithm::ALL));
        assert!(document["response_types_supported"].is_array());
        assert!(document["subject_types_supported"].is_array());
    }
}

#[test]
fn discovery_documents_say_what_the_configuration_adds_to_them() {
    let directory = tempfile::tempdir().unwrap();
    write_key(directory.path(), "a", &json!({ "keyId": "a" }));
    let file = directory.path().join(".jwksd.toml");
    let text = "[publish]\nissuer = \"https://id.example\"\n[publish.discovery]\n\
                jwks_uri = \"https://cdn.example/keys\"\nscopes_supported = [\"openid\", \"mail\"]\n\
                token_endpoint = \"https://id.example/token\"\n\
                authorization_endpoint = \"https://id.example/login\"\n";
    fs::write(&file, text).unwrap();
    let daemon = Daemon::start_with(directory.path(), |command| command.arg("--config").arg(&file));
    daemon.await_kids(&["a"]);
    for path in [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/client/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/client",
    ] {
        let document = daemon.get(path).json();
        assert_eq!(document["jwks_uri"], "https://cdn.example/keys", "{path}");
        assert_eq!(document["scopes_supported"], json!(["openid", "mail"]), "{path}");
        assert_eq!(document["token_endpoint"], "https://id.example/token", "{path}");
        assert_eq!(document["authorization_endpoint"], "https://id.example/login", "{path}");
        assert!(document["issuer"].as_str().unwrap().starts_with("https://id.example"), "{path}");
        assert_eq!(document["response_types_supported"], json!(["id_token"]), "{path}");
    }
}

#[test]
fn the_sets_of_audiences_stand_where_they_are_wanted() {
    let directory = tempfile::tempdir().unwrap();
    write_key(directory.path(), "a", &json!({ "keyId": "a" }));
    write_key(directory.path(), "b", &json!({ "keyId": "b", "audience": "human" }));
    let daemon = Daemon::start_with(directory.path(), |command| {
        let command = command.env("JWKSD_PUBLISH_ISSUER", "https://id.example/base");
        command.env("JWKSD_PUBLISH_AUDIENCE_PATH", "/jwks/{audience}.json")
    });
    daemon.await_kids(&["a", "b"]);
    assert_eq!(daemon.get("/jwks/human.json").kids(), ["b"]);
    assert_eq!(daemon.get("/base/jwks/client.json").kids(), ["a"]);
    assert_eq!(daemon.get("/human/.well-known/jwks.json").status, 404);
    let discovery = daemon.get("/human/.well-known/openid-configuration").json();
    assert_eq!(discovery["issuer"], "https://id.example/base/human");
    assert_eq!(discovery["jwks_uri"], "https://id.example/base/jwks/human.json");
}

#[test]
fn an_empty_directory_is_an_honest_empty_set() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    let response = eventually("an answer", || {
        let response = daemon.get(PATH);
        (response.status == 200).then_some(response)
    });
    assert_eq!(response.body, br#"{"keys":[]}"#);
    let complains = |line: &String| line.contains("no key is published");
    eventually("an error in the log", || daemon.log().iter().any(complains).then_some(()));
}

#[test]
fn without_a_readable_directory_or_memory_the_answer_is_503_and_never_an_empty_set() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let daemon = Daemon::start(&keys);
    let response = daemon.get(PATH);
    assert_eq!(response.status, 503);
    assert!(!response.header("retry-after").is_empty());
    assert_eq!(response.header("content-type"), "application/problem+json");
    fs::create_dir(&keys).unwrap();
    write_key(&keys, "a", &json!({ "keyId": "a" }));
    daemon.signal(rustix::process::Signal::HUP);
    eventually("the directory is read", || (daemon.get(PATH).status == 200).then_some(()));
}

#[test]
fn a_partly_unreadable_start_without_keys_is_no_empty_set() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let daemon = Daemon::start_with(&empty, |command| command.arg("--keys").arg(&missing));
    let complains = |line: &String| line.contains("directory-unreadable");
    eventually("the first look", || daemon.log().iter().any(complains).then_some(()));
    assert_eq!(daemon.get(PATH).status, 503);
    fs::create_dir(&missing).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    eventually("everything is seen", || (daemon.get(PATH).status == 200).then_some(()));
}

#[test]
fn a_set_that_becomes_the_same_as_another_has_its_own_date() {
    let directory = tempfile::tempdir().unwrap();
    write_key(directory.path(), "a", &json!({ "keyId": "a" }));
    write_key(directory.path(), "b", &json!({ "keyId": "b", "audience": "human" }));
    let daemon = Daemon::start(directory.path());
    daemon.await_kids(&["a", "b"]);
    let path = "/client/.well-known/jwks.json";
    let since = daemon.get(path).header("last-modified").to_owned();
    drop_by_rename(directory.path(), "b.meta.json", r#"{"keyId": "b"}"#);
    eventually("the client's set has both", || (daemon.get(path).kids().len() == 2).then_some(()));
    assert_eq!(request(&daemon, "GET", path, &[("if-modified-since", &since)]).status, 200);
}

#[test]
fn max_age_shrinks_towards_the_end_of_a_key_and_never_reaches_beyond_it() {
    let directory = tempfile::tempdir().unwrap();
    let ends = now() + Duration::from_secs(4);
    write_key(directory.path(), "a", &json!({ "keyId": "a", "validTo": ends }));
    write_key(directory.path(), "b", &json!({ "keyId": "b" }));
    let daemon = Daemon::start(directory.path());
    daemon.await_kids(&["a", "b"]);
    let etag = daemon.get(PATH).header("etag").to_owned();
    let mut connection = Connection::open(daemon.address).unwrap();
    let mut shortest = u64::MAX;
    eventually("the key ends", || {
        let sent = now();
        let headers = [("if-none-match", etag.as_str())];
        let response = connection.request("GET", PATH, &headers).unwrap();
        let received = now();
        if response.status == 200 {
            assert!(received >= ends, "taken back too early");
            assert_eq!(response.kids(), ["b"]);
            assert_eq!(response.max_age(), 300);
            return Some(());
        }
        assert_eq!(response.status, 304);
        assert!(sent < ends, "published too long");
        let fresh_until = sent + Duration::from_secs(response.max_age());
        assert!(fresh_until <= ends, "a cache would hold the key until {fresh_until}");
        shortest = shortest.min(response.max_age());
        None
    });
    assert_eq!(shortest, 0, "there is no lower floor");
}

#[test]
fn a_scheduled_key_appears_when_its_announcement_is_due() {
    let directory = tempfile::tempdir().unwrap();
    let announced = now() + Duration::from_secs(3);
    let valid_from = announced + Duration::from_secs(3600);
    write_key(directory.path(), "now", &json!({ "keyId": "now" }));
    write_key(directory.path(), "later", &json!({ "keyId": "later", "validFrom": valid_from }));
    let daemon = Daemon::start_with(directory.path(), |command| {
        command.env("JWKSD_LIFECYCLE_ANNOUNCE", "1h").env("JWKSD_KEYS_POLL_INTERVAL", "1h")
    });
    daemon.await_kids(&["now"]);
    assert!(now() < announced, "the machine is too slow for this test");
    daemon.await_kids(&["later", "now"]);
    assert!(now() >= announced);
}

#[test]
fn render_shows_the_set_of_another_time_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let valid_from = "2031-01-02T00:00:00Z";
    write_key(directory.path(), "a", &json!({ "keyId": "a", "validTo": "2030-01-01T00:00:00Z" }));
    write_key(directory.path(), "b", &json!({ "keyId": "b", "validFrom": valid_from }));
    let render = |at: &str| {
        let mut command = jwksd();
        command.args(["render", "--at", at, "--keys"]).arg(directory.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let set: Value = serde_json::from_slice(&output.stdout).unwrap();
        let keys = set["keys"].as_array().unwrap();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(render("2029-12-31T23:59:59Z"), ["a"]);
    assert_eq!(render("2030-01-01T00:00:00Z"), Vec::<String>::new());
    assert_eq!(render("2030-12-31T23:59:59Z"), Vec::<String>::new());
    assert_eq!(render("2031-01-01T00:00:00Z"), ["b"]);
    assert!(!directory.path().join(".jwksd").exists());
}

#[test]
fn the_first_key_is_issued_where_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let daemon = Daemon::start_with(&keys, |command| command.arg("--init"));
    let kids = daemon.kids();
    assert_eq!(kids.len(), 2, "one for each audience");
    assert_eq!(daemon.get("/human/.well-known/jwks.json").kids().len(), 1);
    drop(daemon);
    let again = Daemon::start_with(&keys, |command| command.arg("--init"));
    assert_eq!(again.kids(), kids, "and no second one");
    for entry in fs::read_dir(&keys).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().ends_with(".pem") {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    // Keys that are remembered and can sign no more are none to begin with.
    assert!(again.stop().success());
    for entry in fs::read_dir(&keys).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|ending| ending == "pem") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let anew = Daemon::start_with(&keys, |command| command.arg("--init"));
    eventually("the old ones are in their grace, and two are new", || {
        (anew.kids().len() == 4).then_some(())
    });
}

/// As clients put an issuer with a slash at its end before the path, and as proxies ask for health.
#[test]
fn two_slashes_are_one_and_the_root_can_be_asked_whether_anybody_is_there() {
    let keys = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(keys.path());
    daemon.kids();
    for path in ["//.well-known/jwks.json", "///client/.well-known/jwks.json"] {
        assert_eq!(daemon.get(path).status, 200, "{path}");
    }
    for path in ["/client//.well-known/jwks.json", "//", "/", "//x"] {
        assert_eq!(daemon.get(path).status, 404, "{path}");
    }
    let mut connection = Connection::open(daemon.address).unwrap();
    let answer = connection.send(b"OPTIONS / HTTP/1.0\r\n\r\n", false).unwrap();
    assert_eq!(answer.status, 204);
}
