//! What calls are answered when they succeed: Cyoda's members and ours, and their effect on the
//! served set.

use std::collections::BTreeSet;
use std::path::Path;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use jwksd::keys::Algorithm;
use serde_json::{Value, json};

use super::{KEY_PAIRS, Served, of_key, pems, text};
use crate::common::daemon::{Connection, eventually, now};

/// What every key pair has.
const MEMBERS: [&str; 9] = [
    "keyId",
    "audience",
    "algorithm",
    "publicKey",
    "validFrom",
    "active",
    "current",
    "phase",
    "names",
];

/// What only some have. What is open is left out, for Cyoda's clients take no null.
const SOMETIMES: [&str; 11] = [
    "validTo",
    "invalidatedAt",
    "publishedUntil",
    "trustedUntil",
    "safeToSignFrom",
    "signUntil",
    "firstPublished",
    "nextChange",
    "signer",
    "served",
    "warnings",
];

fn check_shape(pair: &Value) {
    let members = pair.as_object().unwrap();
    for (member, value) in members {
        let name = member.as_str();
        assert!(MEMBERS.contains(&name) || SOMETIMES.contains(&name), "{member} of {pair}");
        assert!(!value.is_null(), "{member} of {pair}");
    }
    for member in MEMBERS {
        assert!(members.contains_key(member), "{member} of {pair}");
    }
    for member in ["keyId", "audience", "algorithm", "publicKey", "phase"] {
        assert!(!text(pair, member).is_empty(), "{member} of {pair}");
    }
    assert!(STANDARD.decode(text(pair, "publicKey")).is_ok(), "{pair}");
    for member in ["active", "current"] {
        assert!(pair[member].is_boolean(), "{member} of {pair}");
    }
    for member in [
        "validFrom",
        "validTo",
        "invalidatedAt",
        "publishedUntil",
        "trustedUntil",
        "safeToSignFrom",
        "signUntil",
        "firstPublished",
        "nextChange",
    ] {
        assert!(pair[member].is_null() || instant(pair, member).is_some(), "{member} of {pair}");
        // Some parsers take no more than milliseconds.
        let text = pair[member].as_str().unwrap_or_default();
        let digits = text.split_once('.').map_or(0, |(_, fraction)| fraction.len() - 1);
        assert!(digits <= 3, "{member} of {pair}");
    }
    assert!(pair["warnings"].as_array().unwrap().iter().all(Value::is_string), "{pair}");
    let is_this =
        |name: &&Value| name["keyId"] == pair["keyId"] && name["audience"] == pair["audience"];
    let name = pair["names"].as_array().unwrap().iter().find(is_this);
    let name = name.unwrap_or_else(|| panic!("it is not among its names: {pair}"));
    for member in ["phase", "publishedUntil"] {
        assert_eq!(name[member], pair[member], "{member} of {pair}");
    }
}

fn instant(pair: &Value, member: &str) -> Option<Timestamp> {
    pair[member].as_str()?.parse().ok()
}

fn at(pair: &Value, member: &str) -> Timestamp {
    instant(pair, member).unwrap_or_else(|| panic!("no {member} in {pair}"))
}

/// The SPKI of a PKCS#8 PEM, by a library that jwksd does not use for that.
fn spki(algorithm: Algorithm, pem: &str) -> Vec<u8> {
    let der = pem::parse(pem).unwrap();
    let der = der.contents();
    let curve = match algorithm {
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        Algorithm::ES512 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).unwrap();
            return pair.public_key().as_der().unwrap().as_ref().to_vec();
        }
        _ => {
            let pair = rsa::KeyPair::from_pkcs8(der).unwrap();
            return pair.public_key().as_der().unwrap().as_ref().to_vec();
        }
    };
    let pair = EcdsaKeyPair::from_pkcs8(curve, der).unwrap();
    pair.public_key().as_der().unwrap().as_ref().to_vec()
}

/// Asserts that nothing of a private key file stands in an answer.
fn tells_nothing_of(pem: &str, answer: &str) {
    assert!(!answer.contains("PRIVATE"), "{answer}");
    for line in pem.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!answer.contains(line), "{answer}");
    }
}

fn current_kid(served: &Served, audience: &str) -> String {
    let path = format!("{KEY_PAIRS}/current?audience={audience}");
    text(&served.done("GET", &path, &Value::Null), "keyId").to_owned()
}

#[test]
fn every_algorithm_is_issued_and_served_when_it_is_answered() {
    let served = Served::start();
    for algorithm in Algorithm::ALL {
        let body = json!({ "audience": "client", "algorithm": algorithm.as_str() });
        let earliest = now();
        let pair = served.done("POST", KEY_PAIRS, &body);
        let kid = text(&pair, "keyId");
        assert!(served.daemon.get("/.well-known/jwks.json").kids().contains(&kid.to_owned()));
        assert!(
            served.daemon.get("/client/.well-known/jwks.json").kids().contains(&kid.to_owned())
        );

        check_shape(&pair);
        assert_eq!(uuid::Uuid::parse_str(kid).unwrap().to_string(), kid);
        assert_eq!(text(&pair, "algorithm"), algorithm.as_str());
        assert_eq!(text(&pair, "audience"), "client");
        assert_eq!((&pair["active"], &pair["phase"]), (&json!(true), &json!("active")));
        let (from, to) = (at(&pair, "validFrom"), at(&pair, "validTo"));
        assert!(earliest <= from + SignedDuration::from_millis(1) && from <= now(), "{pair}");
        assert_eq!(from.duration_until(to), SignedDuration::from_hours(365 * 24));
        assert_eq!(at(&pair, "publishedUntil"), to);
        let held = to.duration_until(at(&pair, "trustedUntil"));
        assert_eq!(held, SignedDuration::from_mins(5), "what max-age is by default");

        let pem = pems(&served.keys())[kid].clone();
        let public = STANDARD.decode(text(&pair, "publicKey")).unwrap();
        assert_eq!(public, spki(algorithm, &pem), "{algorithm:?}");
        let shown = served.call("GET", &of_key(kid, ""), &Value::Null);
        check_shape(&shown.json());
        tells_nothing_of(&pem, &shown.text());
        tells_nothing_of(&pem, &pair.to_string());
    }
    let list = served.done("GET", KEY_PAIRS, &Value::Null);
    assert_eq!(list.as_array().unwrap().len(), 10);
    for pair in list.as_array().unwrap() {
        check_shape(pair);
    }
    let currents = list.as_array().unwrap().iter().filter(|pair| pair["current"] == true);
    assert_eq!(currents.count(), 1);
}

#[test]
fn the_documented_examples_are_answered() {
    let served = Served::start();
    let first =
        served.done("POST", KEY_PAIRS, &json!({ "audience": "client", "algorithm": "RS256" }));
    let first_kid = text(&first, "keyId");
    assert_eq!(current_kid(&served, "client"), first_kid);
    let (from, to) = ("2027-10-15T10:10:00.000Z", "2028-10-15T10:10:00.000Z");
    let window = json!({
        "audience": "human", "algorithm": "RS256", "validFrom": from, "validTo": to,
    });
    let planned = served.done("POST", KEY_PAIRS, &window);
    check_shape(&planned);
    assert_eq!(at(&planned, "validFrom"), from.parse().unwrap());
    assert_eq!(at(&planned, "validTo"), to.parse().unwrap());
    assert_eq!((&planned["active"], &planned["phase"]), (&json!(false), &json!("scheduled")));

    let rotation = json!({
        "audience": "client", "algorithm": "RS256", "invalidateCurrent": true,
        "invalidateGracePeriodSec": 604_800,
    });
    let second = served.done("POST", KEY_PAIRS, &rotation);
    let second_kid = text(&second, "keyId");
    assert_eq!(current_kid(&served, "client"), second_kid);
    let first = served.done("GET", &of_key(first_kid, ""), &Value::Null);
    assert_eq!((&first["active"], &first["phase"]), (&json!(false), &json!("grace")));
    assert_eq!(at(&first, "invalidatedAt"), at(&second, "validFrom"));
    let grace = at(&first, "invalidatedAt").duration_until(at(&first, "publishedUntil"));
    assert_eq!(grace, SignedDuration::from_hours(7 * 24));
    served.daemon.await_kids(&[first_kid, second_kid]);

    let back = served.done("POST", &of_key(first_kid, "/reactivate"), &json!({}));
    assert_eq!((&back["active"], &back["invalidatedAt"]), (&json!(true), &Value::Null));
    let gone = served.done("POST", &of_key(first_kid, "/invalidate"), &Value::Null);
    assert_eq!((&gone["active"], &gone["phase"]), (&json!(false), &json!("retired")));
    assert_eq!(served.daemon.get("/.well-known/jwks.json").kids(), [second_kid]);
}

#[test]
fn a_successor_that_begins_later_ends_the_others_then() {
    let served = Served::start();
    let old = served.issue();
    let from = now() + SignedDuration::from_hours(5);
    let body = json!({
        "audience": "client", "algorithm": "ES256", "validFrom": from.to_string(),
        "invalidateCurrent": true, "invalidateGracePeriodSec": 60,
    });
    let new = served.done("POST", KEY_PAIRS, &body);
    assert_eq!(new["phase"], "announced");
    let kids = served.daemon.get("/.well-known/jwks.json").kids();
    assert_eq!(
        BTreeSet::from([text(&new, "keyId"), &old]),
        kids.iter().map(String::as_str).collect()
    );
    assert_eq!(current_kid(&served, "client"), old);
    let old = served.done("GET", &of_key(&old, ""), &Value::Null);
    assert_eq!((&old["active"], &old["phase"]), (&json!(true), &json!("active")));
    assert_eq!(at(&old, "invalidatedAt"), at(&new, "validFrom"));
    let end = at(&new, "validFrom") + SignedDuration::from_secs(60);
    assert_eq!(at(&old, "publishedUntil"), end);
}

#[test]
fn a_key_is_published_until_the_instant_that_was_answered() {
    let served = Served::start();
    let stays = served.issue();
    for seconds in [1, 2] {
        let kid = served.issue();
        let grace = json!({ "gracePeriodSec": seconds });
        let pair = served.done("POST", &of_key(&kid, "/invalidate"), &grace);
        check_shape(&pair);
        let end = at(&pair, "publishedUntil");
        let whole = at(&pair, "invalidatedAt").duration_until(end);
        assert_eq!(whole, SignedDuration::from_secs(seconds));
        // Asked for again, it ends no later.
        let again =
            served.done("POST", &of_key(&kid, "/invalidate"), &json!({ "gracePeriodSec": 9 }));
        assert_eq!(at(&again, "publishedUntil"), end);
        let mut connection = Connection::open(served.daemon.address).unwrap();
        eventually("the key's publication ends", || {
            let before = now();
            let kids = connection.request("GET", "/.well-known/jwks.json", &[]).unwrap().kids();
            let is_served = kids.contains(&kid);
            assert!(!is_served || before < end, "served at {before}, until {end}");
            assert!(is_served || end <= now(), "taken back before {end}");
            (!is_served).then_some(())
        });
    }
    assert_eq!(served.daemon.kids(), [stays]);
}

#[test]
fn reactivation_can_be_repeated_and_keeps_the_end_that_lies_ahead() {
    let served = Served::start();
    let kid = served.issue();
    let issued = served.done("GET", &of_key(&kid, ""), &Value::Null);
    for _ in 0..2 {
        let pair = served.done("POST", &of_key(&kid, "/reactivate"), &Value::Null);
        check_shape(&pair);
        assert_eq!((&pair["active"], &pair["validTo"]), (&json!(true), &issued["validTo"]));
    }
    served.done("POST", &of_key(&kid, "/invalidate"), &json!({}));
    assert_eq!(served.daemon.get("/.well-known/jwks.json").kids(), [""; 0]);
    let to = now() + SignedDuration::from_hours(1);
    let window = json!({ "validTo": to.to_string() });
    for _ in 0..2 {
        let pair = served.done("POST", &of_key(&kid, "/reactivate"), &window);
        assert_eq!((&pair["active"], at(&pair, "validTo")), (&json!(true), to));
        assert_eq!(served.daemon.get("/.well-known/jwks.json").kids(), [kid.as_str()]);
    }
}

#[test]
fn a_deleted_key_is_answered_as_it_was_and_gone_with_its_files() {
    let served = Served::start();
    let (kid, other) = (served.issue(), served.issue());
    let before = served.done("GET", &of_key(&kid, ""), &Value::Null);
    let deleted = served.done("DELETE", &of_key(&kid, ""), &Value::Null);
    check_shape(&deleted);
    for member in ["keyId", "publicKey", "validFrom", "validTo", "active", "phase", "current"] {
        assert_eq!(deleted[member], before[member], "{member}");
    }
    assert_eq!(served.daemon.get("/.well-known/jwks.json").kids(), [other.as_str()]);
    let list = served.done("GET", KEY_PAIRS, &Value::Null);
    assert_eq!(list.as_array().unwrap().len(), 1);
    let lying: Vec<String> = pems(&served.keys()).into_keys().collect();
    assert_eq!(lying, [other]);
    assert_eq!(served.files().len(), 2, "{:?}", served.files());
}

#[test]
fn private_keys_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let served = Served::start();
    served.issue();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let names = served.files();
    let pem = names.iter().find(|name| name.ends_with(".pem")).unwrap();
    assert_eq!(mode(&served.keys().join(pem)), 0o600);
}

#[test]
fn what_cyoda_s_clients_send_is_taken_below_a_prefix_too() {
    let served = Served::start_with(tempfile::tempdir().unwrap(), |command| {
        command.env("JWKSD_ADMIN_PREFIX", "/api/")
    });
    let path = format!("/api{KEY_PAIRS}");
    // No algorithm, and a date as in the examples of its document.
    let body = json!({ "audience": "client", "validTo": "2099-10-15 10:00:00+00:00" });
    let answer = served.call("POST", &path, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let pair = answer.json();
    check_shape(&pair);
    assert_eq!(pair["algorithm"], "RS256");
    assert_eq!(pair["validTo"], "2099-10-15T10:00:00Z");
    // One that lies there without any date has a beginning all the same, and nothing open.
    let pem = jwksd::operations::generate(Algorithm::ES256, 2048).unwrap();
    crate::common::daemon::drop_by_rename(&served.keys(), "dropped.pem", pem.as_bytes());
    let dropped = eventually("it is listed", || {
        let list = served.call("GET", &path, &Value::Null).json();
        list.as_array().unwrap().iter().find(|pair| pair["algorithm"] == "ES256").cloned()
    });
    check_shape(&dropped);
    assert!(instant(&dropped, "validFrom").is_some() && dropped.get("validTo").is_none());
    for outside in [KEY_PAIRS, "/openapi.json", "/apix/openapi.json"] {
        assert_eq!(served.call("GET", outside, &Value::Null).status, 404, "{outside}");
    }
    let document = served.call("GET", "/api/openapi.json", &Value::Null).json();
    assert_eq!(document["servers"][0]["url"], "/api");
    let mut openapi = crate::common::daemon::jwksd();
    let openapi = openapi.arg("openapi").env("JWKSD_ADMIN_PREFIX", "api").output().unwrap();
    assert_eq!(openapi.status.code(), Some(2));
}
