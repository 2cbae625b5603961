//! Who is let in on TCP by a bearer token: one that a file holds, or a JWT that a published key
//! signed. Everybody else is turned away, and nothing comes of the call.

use std::fs;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::SignedDuration;
use jwksd::keys::Algorithm;
use serde_json::{Value, json};

use super::{KEY_PAIRS, Served, of_key, pems, refused, tcp_address, text};
use crate::common::daemon::{Connection, Response, drop_by_rename, eventually, now};
use crate::common::faults::new_pem;
use crate::common::tokens::{compact, sign_claims, sign_eddsa, sign_hs256};

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "jwksd-admin";

/// A daemon that takes JWTs on TCP, and everything on the socket beside it.
fn taking_jwts() -> (Served, SocketAddr) {
    let served = Served::start_with(tempfile::tempdir().unwrap(), |command| {
        command.args(["--admin-listen", "127.0.0.1:0"]);
        command.env("JWKSD_ADMIN_JWT_ISSUER", ISSUER);
        command.env("JWKSD_ADMIN_JWT_AUDIENCE", AUDIENCE);
        command.env("JWKSD_LIMITS_MAX_HEADER_BYTES", "65536")
    });
    let address = tcp_address(&served.daemon);
    (served, address)
}

fn claims() -> Value {
    let now = now().as_second();
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600,
        "roles": ["ROLE_USER", "ROLE_ADMIN"],
    })
}

/// The claims with some of them replaced; those of null are left out.
fn claims_with(other: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in other.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn ask(address: SocketAddr, method: &str, path: &str, fields: &[&str]) -> Response {
    let fields: Vec<(&str, &str)> = fields.iter().map(|field| ("authorization", *field)).collect();
    Connection::open(address).unwrap().request(method, path, &fields).unwrap()
}

fn list(address: SocketAddr, token: &str) -> Response {
    ask(address, "GET", KEY_PAIRS, &[&format!("Bearer {token}")])
}

fn issue(served: &Served, algorithm: Algorithm) -> (String, String) {
    let body = json!({ "audience": "client", "algorithm": algorithm.as_str() });
    let pair = served.done("POST", KEY_PAIRS, &body);
    let kid = text(&pair, "keyId").to_owned();
    let pem = pems(&served.keys())[&kid].clone();
    (kid, pem)
}

fn unauthorized(answer: &Response, what: &str) {
    assert_eq!(answer.status, 401, "{what}: {}", answer.text());
    refused(answer, 401, "UNAUTHORIZED");
    assert!(answer.header("www-authenticate").starts_with("Bearer"), "{what}");
}

#[test]
fn a_jwt_by_a_published_key_of_any_algorithm_lets_in() {
    let (served, address) = taking_jwts();
    for algorithm in Algorithm::ALL {
        let (kid, pem) = issue(&served, algorithm);
        let token = sign_claims(algorithm, &kid, &claims(), &pem);
        let answer = list(address, &token);
        assert_eq!(answer.status, 200, "{algorithm:?}: {}", answer.text());
    }
}

#[test]
fn claims_are_checked_one_by_one() {
    let (served, address) = taking_jwts();
    let (kid, pem) = issue(&served, Algorithm::EdDSA);
    let victim = of_key(&kid, "");
    let by = |other: Value| {
        let token = sign_claims(Algorithm::EdDSA, &kid, &claims_with(&other), &pem);
        format!("Bearer {token}")
    };
    let second = now().as_second();
    for other in [
        json!({ "exp": second - 1 }),
        json!({ "exp": null }),
        json!({ "exp": (second + 600).to_string() }),
        json!({ "nbf": second + 600 }),
        json!({ "nbf": "now" }),
        json!({ "iss": "https://issuer.example/" }),
        json!({ "iss": null }),
        json!({ "iss": [ISSUER] }),
        json!({ "aud": "another" }),
        json!({ "aud": ["another", "third"] }),
        json!({ "aud": [] }),
        json!({ "aud": null }),
    ] {
        let what = other.to_string();
        unauthorized(&ask(address, "DELETE", &victim, &[&by(other)]), &what);
    }
    for other in [
        json!({ "roles": null }),
        json!({ "roles": [] }),
        json!({ "roles": "ROLE_USER" }),
        json!({ "roles": "XROLE_ADMIN" }),
        json!({ "roles": "role_admin" }),
        json!({ "roles": ["ROLE_ADMINS", ["ROLE_ADMIN"]] }),
        json!({ "roles": { "ROLE_ADMIN": true } }),
        json!({ "roles": true }),
        json!({ "roles": null, "role": "ROLE_ADMIN" }),
    ] {
        let answer = ask(address, "DELETE", &victim, &[&by(other.clone())]);
        assert_eq!(answer.status, 403, "{other}: {}", answer.text());
        refused(&answer, 403, "FORBIDDEN");
    }
    for other in [
        json!({}),
        json!({ "roles": "ROLE_ADMIN" }),
        json!({ "roles": ["ROLE_ADMIN"] }),
        json!({ "aud": ["another", AUDIENCE] }),
        json!({ "nbf": second - 1 }),
        json!({ "sub": null, "more": { "of": "it" } }),
    ] {
        let answer = ask(address, "GET", &victim, &[&by(other.clone())]);
        assert_eq!(answer.status, 200, "{other}: {}", answer.text());
    }
}

/// Else whoever has a key that was ended takes that back with it.
#[test]
fn a_jwt_counts_while_its_key_is_active() {
    let (served, address) = taking_jwts();
    let (_stays, _) = issue(&served, Algorithm::EdDSA);
    let token = |(kid, pem): &(String, String)| sign_claims(Algorithm::EdDSA, kid, &claims(), pem);
    let ended = issue(&served, Algorithm::EdDSA);
    assert_eq!(list(address, &token(&ended)).status, 200);
    let hour = json!({ "gracePeriodSec": 3600 });
    served.done("POST", &of_key(&ended.0, "/invalidate"), &hour);
    let shown = served.done("GET", &of_key(&ended.0, ""), &Value::Null);
    assert_eq!(shown["phase"], "grace");
    unauthorized(&list(address, &token(&ended)), "in its grace");
    let reactivate = of_key(&ended.0, "/reactivate");
    let bearer = format!("Bearer {}", token(&ended));
    unauthorized(&ask(address, "POST", &reactivate, &[&bearer]), "its own return");
    served.done("POST", &of_key(&ended.0, "/invalidate"), &json!({}));
    unauthorized(&list(address, &token(&ended)), "retired");

    let deleted = issue(&served, Algorithm::EdDSA);
    assert_eq!(list(address, &token(&deleted)).status, 200);
    served.done("DELETE", &of_key(&deleted.0, ""), &Value::Null);
    unauthorized(&list(address, &token(&deleted)), "deleted");

    for (hours, phase) in [(48, "scheduled"), (1, "announced")] {
        let from = (now() + SignedDuration::from_hours(hours)).to_string();
        let body = json!({ "audience": "client", "algorithm": "EdDSA", "validFrom": from });
        let pair = served.done("POST", KEY_PAIRS, &body);
        assert_eq!(pair["phase"], phase);
        let kid = text(&pair, "keyId").to_owned();
        let pem = pems(&served.keys())[&kid].clone();
        unauthorized(&list(address, &token(&(kid, pem))), phase);
    }
}

#[test]
fn only_keys_of_the_audience_for_administration_count() {
    let served = Served::start_with(tempfile::tempdir().unwrap(), |command| {
        command.args(["--admin-listen", "127.0.0.1:0"]);
        command.env("JWKSD_ADMIN_JWT_ISSUER", ISSUER).env("JWKSD_ADMIN_JWT_AUDIENCE", AUDIENCE);
        command.env("JWKSD_ADMIN_JWT_KEY_AUDIENCE", "human")
    });
    let address = tcp_address(&served.daemon);
    let (kid, pem) = issue(&served, Algorithm::EdDSA);
    let by_client = sign_claims(Algorithm::EdDSA, &kid, &claims(), &pem);
    unauthorized(&list(address, &by_client), "a key of another audience");
    // The same key under a name in the right one.
    drop_by_rename(&served.keys(), "copy.meta.json", json!({ "audience": "human" }).to_string());
    drop_by_rename(&served.keys(), "copy.pem", &pem);
    let human = eventually("it has a name there", || {
        let path = "/human/.well-known/jwks.json";
        served.daemon.get(path).kids().first().cloned()
    });
    let by_human = sign_claims(Algorithm::EdDSA, &human, &claims(), &pem);
    assert_eq!(list(address, &by_human).status, 200);
    unauthorized(&list(address, &by_client), "the name of another audience");
}

#[test]
fn a_token_of_another_type_or_without_a_date_that_exists_lets_nobody_in() {
    let (served, address) = taking_jwts();
    let (kid, pem) = issue(&served, Algorithm::EdDSA);
    let of_type = |typ: &Value| {
        let header = json!({ "alg": "EdDSA", "kid": kid, "typ": typ });
        list(address, &sign_eddsa(&header, &claims(), &pem))
    };
    for typ in [json!("JWT"), json!("jwt"), json!("at+jwt"), json!("application/at+JWT")] {
        assert_eq!(of_type(&typ).status, 200, "{typ}");
    }
    for typ in [json!("logout+jwt"), json!("secevent+jwt"), json!("dpop+jwt"), json!(""), json!(1)]
    {
        unauthorized(&of_type(&typ), &typ.to_string());
    }
    for exp in [json!(1e300), json!(1e18), json!(u64::MAX), json!(253_402_300_800_u64)] {
        let token = sign_claims(Algorithm::EdDSA, &kid, &claims_with(&json!({ "exp": exp })), &pem);
        unauthorized(&list(address, &token), &exp.to_string());
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of what is wrong, and nothing else")]
fn a_token_that_is_not_what_it_says_lets_nobody_in() {
    let (served, address) = taking_jwts();
    let (kid, pem) = issue(&served, Algorithm::EdDSA);
    let (pss, pss_pem) = issue(&served, Algorithm::PS256);
    let (rsa, rsa_pem) = issue(&served, Algorithm::RS256);
    let (ec, ec_pem) = issue(&served, Algorithm::ES256);
    let good = sign_claims(Algorithm::EdDSA, &kid, &claims(), &pem);
    assert_eq!(list(address, &good).status, 200);
    let mut tokens: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, token: String| tokens.push((what.to_owned(), token));

    for other in [
        "unknown",
        "../../../../dev/null",
        "/proc/self/environ",
        "a\r\nset-cookie: x",
        "a\0",
        "",
        "é",
        "' or 1=1 --",
        &"k".repeat(300),
    ] {
        add(&format!("the kid {other:?}"), sign_claims(Algorithm::EdDSA, other, &claims(), &pem));
    }
    add("another's kid", sign_claims(Algorithm::EdDSA, &ec, &claims(), &pem));
    let stranger = new_pem();
    add("a stranger's key", sign_claims(Algorithm::ES256, &ec, &claims(), &stranger));
    for kid in [json!(null), json!(1), json!([kid])] {
        let header = json!({ "alg": "EdDSA", "kid": kid });
        add(&format!("the kid {kid}"), compact(&header, &claims(), &[0; 64]));
    }
    add("no kid", compact(&json!({ "alg": "EdDSA" }), &claims(), &[0; 64]));

    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({ "alg": alg, "kid": kid, "typ": "JWT" });
        add(&format!("alg {alg:?}"), compact(&header, &claims(), b""));
        add(&format!("alg {alg:?}, with a signature"), compact(&header, &claims(), &[1; 64]));
    }
    let set = served.daemon.get("/.well-known/jwks.json");
    let keys = set.json()["keys"].as_array().unwrap().clone();
    for kid in [&kid, &pss, &rsa, &ec] {
        let pair = served.done("GET", &of_key(kid, ""), &Value::Null);
        let spki = STANDARD.decode(text(&pair, "publicKey")).unwrap();
        let public = pem::encode(&pem::Pem::new("PUBLIC KEY", spki.clone()));
        let jwk = keys.iter().find(|jwk| jwk["kid"] == **kid).unwrap();
        let mut secrets = vec![
            spki,
            public.clone().into_bytes(),
            public.trim_end().as_bytes().to_vec(),
            public.replace("\r\n", "\n").into_bytes(),
            jwk.to_string().into_bytes(),
            Vec::new(),
        ];
        for member in ["n", "x", "y"] {
            if let Some(part) = jwk[member].as_str() {
                secrets.push(URL_SAFE_NO_PAD.decode(part).unwrap());
                secrets.push(part.as_bytes().to_vec());
            }
        }
        let header = json!({ "alg": "HS256", "kid": kid });
        for secret in secrets {
            add("HS256 with what is public", sign_hs256(&header, &claims(), &secret));
        }
        // The key's own algorithm, with that as its signature.
        let header = json!({ "alg": jwk["alg"], "kid": kid });
        add("an HMAC for a signature", sign_hs256(&header, &claims(), public.as_bytes()));
    }
    add("RS256 by a PS256 key", sign_claims(Algorithm::RS256, &pss, &claims(), &pss_pem));
    add("PS256 by an RS256 key", sign_claims(Algorithm::PS256, &rsa, &claims(), &rsa_pem));
    add("RS512 by an RS256 key", sign_claims(Algorithm::RS512, &rsa, &claims(), &rsa_pem));

    let parts: Vec<&str> = good.split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(claims_with(&json!({ "sub": "mallory" })).to_string());
    add("other claims", format!("{}.{other}.{}", parts[0], parts[2]));
    let header = json!({ "alg": "EdDSA", "kid": kid, "typ": "at+jwt" }).to_string();
    add("another header", format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), parts[1], parts[2]));
    add("no signature", format!("{}.{}.", parts[0], parts[1]));
    add("no signature at all", format!("{}.{}", parts[0], parts[1]));
    add("half a signature", good[..good.len() - 20].to_owned());
    add("four parts", format!("{good}.{}", parts[2]));
    add("padding", format!("{good}=="));
    add("not base64url", format!("{}.{}.!!!", parts[0], parts[1]));
    add("dots", "..".to_owned());
    let critical = json!({ "alg": "EdDSA", "kid": kid, "crit": ["exp"], "exp": 1 });
    add("an unknown extension", compact(&critical, &claims(), &[0; 64]));
    let es256 = sign_claims(Algorithm::ES256, &ec, &claims(), &ec_pem);
    let (input, _) = es256.rsplit_once('.').unwrap();
    add("a signature of zeros", format!("{input}.{}", URL_SAFE_NO_PAD.encode([0; 64])));
    let padding = claims_with(&json!({ "padding": "x".repeat(17_000) }));
    add("more than 16 KiB", sign_claims(Algorithm::EdDSA, &kid, &padding, &pem));

    let victim = of_key(&kid, "");
    for (what, token) in tokens {
        unauthorized(&ask(address, "DELETE", &victim, &[&format!("Bearer {token}")]), &what);
    }
    let bearer = format!("Bearer {good}");
    for (what, fields) in [
        ("no field", vec![]),
        ("two fields", vec![bearer.as_str(), &bearer]),
        ("one good field of two", vec![&bearer, "Basic YTpi"]),
        ("no scheme", vec![&good]),
        ("another scheme", vec!["Basic YTpi"]),
        ("two tokens", vec![&format!("{bearer}, {bearer}")]),
        ("no token", vec!["Bearer"]),
        ("an empty token", vec!["Bearer  "]),
    ] {
        unauthorized(&ask(address, "DELETE", &victim, &fields), what);
    }
    let in_query = format!("{victim}?access_token={good}");
    unauthorized(&ask(address, "DELETE", &in_query, &[]), "a token in the query");
    assert_eq!(list(address, &good).json().as_array().unwrap().len(), 4);
    let log = served.daemon.log().join("\n");
    assert!(!log.contains(parts[2]), "a token's signature is in the log");
}

#[test]
fn the_token_of_a_file_lets_in_as_long_as_it_stands_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "first\n").unwrap();
    let served = Served::start_with(directory, |command| {
        command.args(["--admin-listen", "127.0.0.1:0"]);
        command.env("JWKSD_ADMIN_TOKEN_FILE", &file)
    });
    let kid = served.issue();
    let address = tcp_address(&served.daemon);
    let directory = served.directory.path();
    unauthorized(&ask(address, "DELETE", &of_key(&kid, ""), &[]), "none");
    for token in ["second", "firs", "firstt", "First", "", "first first", "\"first\""] {
        let field = format!("Bearer {token}");
        unauthorized(&ask(address, "DELETE", &of_key(&kid, ""), &[&field]), token);
    }
    for field in ["Bearer first", "bearer first", "BEARER  first"] {
        assert_eq!(ask(address, "GET", KEY_PAIRS, &[field]).status, 200, "{field}");
    }

    drop_by_rename(directory, "token", "second");
    unauthorized(&list(address, "first"), "the one before");
    assert_eq!(list(address, "second").status, 200);

    for content in ["", "\n", " \n\t"] {
        drop_by_rename(directory, "token", content);
        for token in ["", "first", "second", "\t"] {
            unauthorized(&list(address, token), &format!("{token:?} of an empty file"));
        }
    }
    fs::remove_file(&file).unwrap();
    unauthorized(&list(address, "second"), "of no file");
    fs::create_dir(&file).unwrap();
    unauthorized(&list(address, "second"), "of a directory");
    fs::remove_dir(&file).unwrap();
    drop_by_rename(directory, "token", "third\r\n");
    assert_eq!(list(address, "third").status, 200);
    assert_eq!(served.daemon.kids(), [kid]);
    assert!(!served.daemon.log().join("\n").contains("third"), "a token is in the log");
}
