//! The ledger's records, and what follows from one at the instants where something may change.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jwksd::encoding::hex;
use jwksd::encoding::sha256;
use jwksd::keys::PublicKey;
use jwksd::keys::lifecycle::{Dates, Phase};
use jwksd::ledger::codec::{self, Damage, FORMAT};
use jwksd::ledger::{NamedKey, Record, Records};
use jwksd::publish::document::published_keys;
use serde_json::Value;

use crate::{POLICY, keys};

/// The content of a record, as it is and under a checksum that fits.
pub fn record(bytes: &[u8]) {
    let name = name_in(bytes);
    decode(bytes, &name);
    let sealed = [
        format!(r#"{{"format":{FORMAT},"checksum":"{}","key":"#, hex(&sha256(bytes))).as_bytes(),
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
        Ok((key, record)) => {
            assert_eq!(key, record.public_key.thumbprint());
            holds(&record);
        }
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
    let (_, again) = codec::decode(&kept, &name).expect("what was kept is readable");
    assert_eq!(&again, record);
    assert_eq!(codec::encode(&again), kept);

    let records: Records = BTreeMap::from([(key, Arc::new(record.clone()))]);
    let dated: Vec<(NamedKey<'_>, Dates)> =
        record.named().map(|named| (named, named.dates())).collect();
    let mut instants = vec![Timestamp::constant(1_800_000_000, 0), Timestamp::MIN, Timestamp::MAX];
    for (_, dates) in &dated {
        let ends = [dates.order, dates.succession, dates.declaration, dates.loss];
        instants.extend(ends.into_iter().flatten().map(|end| end.at));
        instants.extend([dates.valid_from, dates.valid_to, dates.first_published].iter().flatten());
    }
    // And where what was said leads to.
    for instant in instants.clone() {
        instants.extend(dated.iter().flat_map(|(_, dates)| {
            let state = dates.at(instant, &POLICY);
            [state.published_until, state.next_change, state.safe_to_sign_from, state.sign_until]
                .into_iter()
                .flatten()
        }));
    }
    for instant in instants {
        let mut expected = BTreeMap::new();
        for (named, dates) in &dated {
            let state = dates.at(instant, &POLICY);
            let is_published = state.phase.is_published();
            assert!(
                !is_published || state.published_until.is_none_or(|until| instant < until),
                "published past its end at {instant}: {state:?} {dates:?}"
            );
            assert!(state.next_change.is_none_or(|next| instant < next), "{instant}: {state:?}");
            assert!(dates.deleted_at.is_none() || state.phase == Phase::Deleted);
            if is_published {
                expected.insert(named.name().clone(), state.published_until);
            }
        }
        let published = published_keys(&records, instant, &POLICY, false);
        published.iter().for_each(|key| keys::is_a_public_jwk(key.jwk()));
        let until = published.into_iter().map(|key| (key.name, key.until));
        assert_eq!(until.collect::<BTreeMap<_, _>>(), expected);
    }
}
