//! The ledger's records, and what follows from one at the instants where something may change.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jwksd::encoding::hex;
use jwksd::encoding::sha256;
use jwksd::keys::Kid;
use jwksd::keys::lifecycle::Phase;
use jwksd::ledger::codec::{self, Damage};
use jwksd::ledger::{Record, Records};
use jwksd::publish::document::published_keys;
use serde_json::Value;

use crate::{POLICY, keys};

/// The content of a record, as it is and under a checksum that fits.
pub fn record(bytes: &[u8]) {
    let name = name_in(bytes);
    decode(bytes, &name);
    let sealed = [
        br#"{"format":1,"checksum":""#,
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
    let kid = serde_json::from_slice::<Value>(bytes)
        .ok()
        .and_then(|record| Kid::new(record.get("keyId")?.as_str()?).ok());
    kid.map_or_else(|| "nobody.json".to_owned(), |kid| codec::file_name(&kid))
}

fn decode(bytes: &[u8], name: &str) {
    match codec::decode(bytes, name) {
        Ok(record) => holds(&record),
        Err(damage) => {
            let words = damage.to_string();
            assert!(words.len() > 10 && words.len() < 1024, "{words}");
            assert!(!words.contains(char::is_control), "{words:?}");
            if let Damage::WrongName(kid) = damage {
                assert_ne!(codec::file_name(&kid), name);
            }
        }
    }
}

/// A record comes back as it was kept, and what it makes of its key keeps both promises.
pub(crate) fn holds(record: &Record) {
    let name = codec::file_name(&record.key_id);
    assert!(!name.contains(['/', '\0']) && !name.starts_with('.') && name.len() < 200, "{name}");
    let kept = codec::encode(record);
    let again = codec::decode(&kept, &name).expect("what was kept is readable");
    assert_eq!(&again, record);
    assert_eq!(codec::encode(&again), kept);

    let dates = record.dates(&POLICY);
    let of_the_record = [
        Some(Timestamp::constant(1_800_000_000, 0)),
        Some(Timestamp::MIN),
        Some(Timestamp::MAX),
        dates.valid_from,
        dates.valid_to,
        dates.invalidation.map(|invalidation| invalidation.at),
        dates.loss.map(|loss| loss.at),
        dates.first_published,
    ];
    let records: Records = BTreeMap::from([(record.key_id.clone(), Arc::new(record.clone()))]);
    let mut instants: Vec<Timestamp> = of_the_record.into_iter().flatten().collect();
    // And where what was said leads to.
    instants.extend(instants.clone().iter().flat_map(|instant| {
        let state = dates.at(*instant, &POLICY);
        [state.published_until, state.next_change, state.safe_to_sign_from].into_iter().flatten()
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
        let published = published_keys(&records, instant, &POLICY, false);
        assert_eq!(published.len(), if is_published { record.names().count() } else { 0 });
        for key in published {
            assert_eq!(key.until, state.published_until);
            keys::is_a_public_jwk(key.jwk());
        }
    }
}
