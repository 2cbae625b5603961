//! Keys that are made up without files.

use std::sync::OnceLock;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jwksd::keys::entry::{Declared, PrivateHalf, SeenKey};
use jwksd::keys::lifecycle::Policy;
use jwksd::keys::{Audience, Kid, PublicKey};
use jwksd::ledger::{NamedKey, Records};

/// All of it a second, for tests in which that does not matter.
#[allow(dead_code, reason = "not every user of this file has records")]
pub const POLICY: Policy = {
    let second = Duration::from_secs(1);
    Policy {
        announce: second,
        propagation: second,
        token_lifetime: second,
        clock_skew: second,
        default_grace: second,
    }
};

/// A kid.
pub fn kid(name: &str) -> Kid {
    Kid::new(name).unwrap()
}

/// The key that has this kid, under that name.
#[allow(dead_code, reason = "not every user of this file has records")]
pub fn named<'a>(records: &'a Records, kid: &Kid) -> NamedKey<'a> {
    let mut all = NamedKey::all(records);
    all.find(|named| named.kid() == kid).unwrap_or_else(|| panic!("nothing has the kid {kid}"))
}

/// The public key number `number`, always the same.
pub fn public_key(number: u8) -> PublicKey {
    // Checking a point takes as long as verifying a signature.
    static KEYS: [OnceLock<PublicKey>; 256] = [const { OnceLock::new() }; 256];
    let make = || {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
        PublicKey::ed25519(pair.public_key().as_ref()).unwrap()
    };
    KEYS[usize::from(number)].get_or_init(make).clone()
}

/// The key number `number` as its files would show it, under the id `name`.
pub fn seen(name: &str, number: u8) -> SeenKey {
    let public = public_key(number);
    SeenKey {
        kid: kid(name),
        aliases: Vec::new(),
        audience: Audience::new("client"),
        algorithm: None,
        thumbprint: public.thumbprint(),
        public,
        certificates: Vec::new(),
        private: PrivateHalf { file: Some(format!("/keys/{name}.pem").into()), signer: None },
        declared: Declared::default(),
    }
}
