//! The ledger's records, and what follows from one at the instants where something may change.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jwksd::encoding::hex;
use jwksd::encoding::sha256;
use jwksd::keys::PublicKey;
use jwksd::keys::lifecycle::Phase;
use jwksd::ledger::codec::{self, Damage};
use jwksd::ledger::{NamedKey, Record, Records};
use jwksd::publish::document::published_keys;
use serde_json::Value;

use crate::{POLICY, keys};

/// The content of a record, as it is and under a checksum that fits.
pub fn record(bytes: &[u8]) {
    let name = name_in(bytes);
    decode(bytes, &name);
    let sealed = [
        br#"{"format":2,"checksum":""#,
        hex(&sha256(bytes)).as_bytes(),
        br#"","key":"#,
        bytes,
        b"}",
    ]
    .concat();
    decode(&sealed, &name);
}

/// The file name that the record would have to have.
fn name_in(bytes: &[u8]) -> String {
    let key = serde_json::from_slice::<Value>(bytes).ok().and_then(|record| {
        serde_json::from_value::<PublicKey>(record.get("publicKey")?.clone()).ok()
    });
    key.map_or_else(|| "nobody.json".to_owned(), |key| codec::file_name(&key.thumbprint()))
}

fn decode(bytes: &[u8], name: &str) {
    match codec::decode(bytes, name) {
        Ok((_, record)) => holds(&record),
        Err(damage) => {
            let words = damage.to_string();
            assert!(words.len() > 10 && words.len() < 1024, "{words}");
            assert!(!words.contains(char::is_control), "{words:?}");
            if let Damage::WrongName(key) = damage {
                assert_ne!(codec::file_name(&key), name);
            }
        }
    }
}

/// A record comes back as it was kept, and what it makes of its key keeps both promises.
pub(crate) fn holds(record: &Record) {
    let key = record.public_key.thumbprint();
    let name = codec::file_name(&key);
    assert!(!name.contains(['/', '\0']) && !name.starts_with('.') && name.len() < 200, "{name}");
    let kept = codec::encode(record);
    let (again_key, again) = codec::decode(&kept, &name).expect("what was kept is readable");
    assert_eq!((again_key, &again), (key, record));
    assert_eq!(codec::encode(&again), kept);

    let records: Records = BTreeMap::from([(key, Arc::new(record.clone()))]);
    for named in record.named() {
        keeps_both_promises(named, &records);
    }
}

fn keeps_both_promises(named: NamedKey<'_>, records: &Records) {
    let dates = named.dates();
    let of_the_record = [
        Some(Timestamp::constant(1_800_000_000, 0)),
        Some(Timestamp::MIN),
        Some(Timestamp::MAX),
        dates.valid_from,
        dates.valid_to,
        dates.order.map(|end| end.at),
        dates.succession.map(|end| end.at),
        dates.declaration.map(|end| end.at),
        dates.loss.map(|loss| loss.at),
        dates.first_published,
    ];
    let mut instants: Vec<Timestamp> = of_the_record.into_iter().flatten().collect();
    // And where what was said leads to.
    instants.extend(instants.clone().iter().flat_map(|instant| {
        let state = dates.at(*instant, &POLICY);
        [state.published_until, state.next_change, state.safe_to_sign_from, state.sign_until]
            .into_iter()
            .flatten()
    }));
    for instant in instants {
        let state = dates.at(instant, &POLICY);
        let is_published = state.phase.is_published();
        assert!(
            !is_published || state.published_until.is_none_or(|until| instant < until),
            "published past its end at {instant}: {state:?} {dates:?}"
        );
        assert!(state.next_change.is_none_or(|next| instant < next), "{instant}: {state:?}");
        assert!(dates.deleted_at.is_none() || state.phase == Phase::Deleted);
        let published = published_keys(records, instant, &POLICY, false, &[]);
        let found = published.iter().find(|key| key.name == *named.name());
        assert_eq!(found.is_some(), is_published);
        if let Some(key) = found {
            assert_eq!(key.until, state.published_until);
            keys::is_a_public_jwk(key.jwk());
        }
    }
}
