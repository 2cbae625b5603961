//! The examples that the standards print.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jwksd::keys::entry::{CertificateDates, Declared, Entry, KeyRules};
use serde_json::{Value, json};

use super::{read, rules};

fn entry(value: &Value) -> Entry {
    let files = [("key.json", value.to_string())];
    read("key", &files, &rules()).unwrap_or_else(|refused| panic!("{refused:?}"))
}

const N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
const RSA_THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";

#[test]
fn the_thumbprint_of_rfc_7638_section_3_1() {
    let entry = entry(&json!({"kty": "RSA", "n": N, "e": "AQAB", "alg": "RS256"}));
    assert_eq!(entry.keys[0].kid.as_str(), RSA_THUMBPRINT);
}

#[test]
fn the_ed25519_keys_of_rfc_8037_appendix_a() {
    let public = json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    let mut private = public.clone();
    private["d"] = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A".into();
    for (jwk, is_private) in [(public, false), (private, true)] {
        let key = entry(&jwk).keys.remove(0);
        assert_eq!(key.kid.as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(key.algorithm, None);
        assert_eq!(key.private.is_there(), is_private);
    }
}

#[test]
fn the_sets_of_rfc_7517_appendices_a_1_and_a_2() {
    let public = json!({"keys": [
        {"kty": "EC",
         "crv": "P-256",
         "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
         "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
         "use": "enc",
         "kid": "1"},
        {"kty": "RSA", "n": N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-25"},
    ]});
    let mut private = public.clone();
    private["keys"][0]["d"] = "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE".into();
    for (name, value) in [
        (
            "d",
            "X4cTteJY_gn4FYPsXB8rdXix5vwsg1FLN5E3EaG6RJoVH-HLLKD9M7dx5oo7GURknchnrRweUkC7hT5fJLM0WbFAKNLWY2vv7B6NqXSzUvxT0_YSfqijwp3RTzlBaCxWp4doFk5N2o8Gy_nHNKroADIkJ46pRUohsXywbReAdYaMwFs9tv8d_cPVY3i07a3t8MN6TNwm0dSawm9v47UiCl3Sk5ZiG7xojPLu4sbg1U2jx4IBTNBznbJSzFHK66jT8bgkuqsk0GjskDJk19Z4qwjwbsnn4j2WBii3RL-Us2lGVkY8fkFzme1z0HbIkfz0Y6mqnOYtqc0X4jfcKoAC8Q",
        ),
        (
            "p",
            "83i-7IvMGXoMXCskv73TKr8637FiO7Z27zv8oj6pbWUQyLPQBQxtPVnwD20R-60eTDmD2ujnMt5PoqMrm8RfmNhVWDtjjMmCMjOpSXicFHj7XOuVIYQyqVWlWEh6dN36GVZYk93N8Bc9vY41xy8B9RzzOGVQzXvNEvn7O0nVbfs",
        ),
        (
            "q",
            "3dfOR9cuYq-0S-mkFLzgItgMEfFzB2q3hWehMuG0oCuqnb3vobLyumqjVZQO1dIrdwgTnCdpYzBcOfW5r370AFXjiWft_NGEiovonizhKpo9VVS78TzFgxkIdrecRezsZ-1kYd_s1qDbxtkDEgfAITAG9LUnADun4vIcb6yelxk",
        ),
        (
            "dp",
            "G4sPXkc6Ya9y8oJW9_ILj4xuppu0lzi_H7VTkS8xj5SdX3coE0oimYwxIi2emTAue0UOa5dpgFGyBJ4c8tQ2VF402XRugKDTP8akYhFo5tAA77Qe_NmtuYZc3C3m3I24G2GvR5sSDxUyAN2zq8Lfn9EUms6rY3Ob8YeiKkTiBj0",
        ),
        (
            "dq",
            "s9lAH9fggBsoFR8Oac2R_E2gw282rT2kGOAhvIllETE1efrA6huUUvMfBcMpn8lqeW6vzznYY5SSQF7pMdC_agI3nG8Ibp1BUb0JUiraRNqUfLhcQb_d9GF4Dh7e74WbRsobRonujTYN1xCaP6TO61jvWrX-L18txXw494Q_cgk",
        ),
        (
            "qi",
            "GyM_p6JrXySiz1toFgKbWV-JdI3jQ4ypu9rbMWx3rQJBfmt0FoYzgUIZEVFEcOqwemRN81zoDAaa-Bk0KWNGDjJHZDdDmFhW3AN7lI-puxk_mHZGJ11rxyR8O55XLSe3SPmRfKwZI6yU24ZxvQKFYItdldUKGzO6Ia6zTKhAVRU",
        ),
    ] {
        private["keys"][1][name] = value.into();
    }
    for (set, is_private) in [(public, false), (private, true)] {
        let Entry { keys, notes, .. } = entry(&set);
        let [key] = &keys[..] else { panic!("{keys:?}") };
        assert_eq!(key.kid.as_str(), "2011-04-25");
        assert_eq!(key.algorithm, Some(jwksd::keys::Algorithm::RS256));
        assert_eq!(key.thumbprint.to_string(), RSA_THUMBPRINT);
        assert_eq!(key.private.is_there(), is_private);
        assert_eq!(notes.len(), 1, "the key for encryption is passed over with a note");
    }
}

#[test]
fn the_key_with_a_certificate_of_rfc_7517_appendix_b() {
    let n = "vrjOfz9Ccdgx5nQudyhdoR17V-IubWMeOZCwX_jj0hgAsz2J_pqYW08PLbK_PdiVGKPrqzmDIsLI7sA25VEnHU1uCLNwBuUiCO11_-7dYbsr4iJmG0Qu2j8DsVyT1azpJC_NG84Ty5KKthuCaPod7iI7w0LK9orSMhBEwwZDCxTWq4aYWAchc8t-emd9qOvWtVMDC2BXksRngh6X5bUYLy6AyHKvj-nUy1wgzjYQDwHMTplCoLtU-o-8SNnZ1tmRoGE9uJkBLdh5gFENabWnU5m1ZqZPdwS-qo-meMvVfJb6jJVWRpl2SUtCnYG2C32qvbWbjZ_jBPD5eunqsIo1vQ";
    let certificate = "MIIDQjCCAiqgAwIBAgIGATz/FuLiMA0GCSqGSIb3DQEBBQUAMGIxCzAJBgNVBAYTAlVTMQswCQYDVQQIEwJDTzEPMA0GA1UEBxMGRGVudmVyMRwwGgYDVQQKExNQaW5nIElkZW50aXR5IENvcnAuMRcwFQYDVQQDEw5CcmlhbiBDYW1wYmVsbDAeFw0xMzAyMjEyMzI5MTVaFw0xODA4MTQyMjI5MTVaMGIxCzAJBgNVBAYTAlVTMQswCQYDVQQIEwJDTzEPMA0GA1UEBxMGRGVudmVyMRwwGgYDVQQKExNQaW5nIElkZW50aXR5IENvcnAuMRcwFQYDVQQDEw5CcmlhbiBDYW1wYmVsbDCCASIwDQYJKoZIhvcNAQEBBQADggEPADCCAQoCggEBAL64zn8/QnHYMeZ0LncoXaEde1fiLm1jHjmQsF/449IYALM9if6amFtPDy2yvz3YlRij66s5gyLCyO7ANuVRJx1NbgizcAblIgjtdf/u3WG7K+IiZhtELto/A7Fck9Ws6SQvzRvOE8uSirYbgmj6He4iO8NCyvaK0jIQRMMGQwsU1quGmFgHIXPLfnpnfajr1rVTAwtgV5LEZ4Iel+W1GC8ugMhyr4/p1MtcIM42EA8BzE6ZQqC7VPqPvEjZ2dbZkaBhPbiZAS3YeYBRDWm1p1OZtWamT3cEvqqPpnjL1XyW+oyVVkaZdklLQp2Btgt9qr21m42f4wTw+Xrp6rCKNb0CAwEAATANBgkqhkiG9w0BAQUFAAOCAQEAh8zGlfSlcI0o3rYDPBB07aXNswb4ECNIKG0CETTUxmXl9KUL+9gGlqCz5iWLOgWsnrcKcY0vXPG9J1r9AqBNTqNgHq2G03X09266X5CpOe1zFo+Owb1zxtp3PehFdfQJ610CDLEaS9V9Rqp17hCyybEpOGVwe8fnk+fbEL2Bo3UPGrpsHzUoaGpDftmWssZkhpBJKVMJyf/RuP2SmmaIzmnw9JiSlYhzo4tpzd5rFXhjRbg4zW9C+2qok+2+qDM1iJ684gPHMIY8aLWrdgQTxkumGmTqgawR+N5MDtdPTEQ0XfIBc2cJEUyMTY5MPvACWpkA6SdS4xSvdXK3IVfOWA==";
    let jwk = json!({
        "kty": "RSA", "use": "sig", "kid": "1b94c", "n": n, "e": "AQAB", "x5c": [certificate],
    });
    let key = entry(&jwk).keys.remove(0);
    assert_eq!((key.kid.as_str(), key.algorithm), ("1b94c", None));
    // A chain is published, and dates are taken, from files with certificates alone. This one says
    // that the key ended in 2018.
    assert!(key.certificates.is_empty());
    assert_eq!(key.declared, Declared::default());
    let files = [(
        "key.crt",
        format!("-----BEGIN CERTIFICATE-----\n{certificate}\n-----END CERTIFICATE-----\n"),
    )];
    let enforce = KeyRules { certificate_dates: CertificateDates::Enforce, ..rules() };
    let of_certificate = read("key", &files, &enforce).unwrap().keys.remove(0);
    assert_eq!(of_certificate.public, key.public);
    assert_eq!(STANDARD.encode(&of_certificate.certificates[0]), certificate);
    let (from, to) = (of_certificate.declared.valid_from, of_certificate.declared.valid_to);
    assert_eq!(from, Some("2013-02-21T23:29:15Z".parse().unwrap()));
    assert_eq!(to, Some("2018-08-14T22:29:15Z".parse().unwrap()));
}

#[test]
fn members_without_a_value_are_as_good_as_absent() {
    // As serializers write them that know no absence (RFC 7517 §4 leaves all but kty open).
    let entry = entry(&json!({
        "kty": "RSA", "n": N, "e": "AQAB", "kid": null, "use": null, "alg": null, "key_ops": [],
        "k": null, "d": null, "p": null, "oth": [], "x5c": [], "x5t": null,
    }));
    let key = &entry.keys[0];
    assert_eq!((key.kid.as_str(), key.algorithm), (RSA_THUMBPRINT, None));
    assert!(!key.private.is_there());
    let refused = read("key", &[("key.json", json!({ "keys": [] }).to_string())], &rules());
    assert_eq!(refused.unwrap_err().reason.code(), "no-key");
}

#[test]
fn a_set_says_whether_a_member_may_be_a_key_that_cannot_be_read() {
    let rsa = json!({"kty": "RSA", "n": N, "e": "AQAB", "alg": "RS256"});
    for (member, is_unread) in [
        (json!({"kty": "RSA", "n": N, "e": "AQAB", "use": "enc"}), false),
        (json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}), false),
        (json!({"kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA"}), false),
        (json!({"kty": "RSA", "e": "AQAB"}), true),
        (json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}), true),
    ] {
        let found = entry(&json!({ "keys": [rsa, member] }));
        assert_eq!((found.keys.len(), found.has_unread), (1, is_unread), "{member}");
    }
}
