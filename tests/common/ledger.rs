//! What a ledger's directory holds, by the kids that operators know.

use std::collections::BTreeMap;
use std::path::Path;

use jwksd::keys::lifecycle::End;
use jwksd::ledger::{KeyName, Record, store};

/// Every name that is remembered in the directory, by its kid, with the record of its key. None of
/// the records may be damaged.
pub fn names(state: &Path) -> BTreeMap<String, (Record, KeyName)> {
    let loaded = store::read(state, &[]).unwrap();
    assert_eq!(loaded.damaged_files, []);
    let records = loaded.records.values();
    let names = records.flat_map(|record| record.names.iter().map(move |name| (record, name)));
    names
        .map(|(record, name)| {
            (name.name.kid.to_string(), (Record::clone(record), KeyName::clone(name)))
        })
        .collect()
}

/// Whether a kid is remembered.
pub fn remembers(state: &Path, kid: &str) -> bool {
    names(state).contains_key(kid)
}

/// The loss of a kid that no entry declares any more.
pub fn loss(state: &Path, kid: &str) -> Option<End> {
    names(state).get(kid)?.1.loss
}

/// How many names are lost.
pub fn losses(state: &Path) -> usize {
    names(state).values().filter(|(_, name)| name.loss.is_some()).count()
}
