//! Whatever stands in a file: no panic, and no private member in what would be published.

use proptest::prelude::*;
use proptest::sample::Index;

use super::accepted::has_public_members_alone;
use super::refused::quotes;
use super::{fixtures, read, rules};

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index, usize),
    Repeat(Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    // Bytes that mean something where they stand are more telling than others.
    let byte = prop_oneof![
        any::<u8>(),
        proptest::sample::select(b"\0\x02\x03\x04\x30\xff-\n\"{}[],:A=".to_vec())
    ];
    prop_oneof![
        3 => (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (any::<Index>(), byte).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => (any::<Index>(), 1..100_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        1 => (any::<Index>(), 1..100_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
    ]
}

fn apply(change: &Change, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    match change {
        Change::Set(at, byte) => *at.get_mut(bytes) = *byte,
        Change::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
        Change::Remove(at, length) => {
            let at = at.index(bytes.len());
            bytes.drain(at..bytes.len().min(at + length));
        }
        Change::Repeat(at, length) => {
            let at = at.index(bytes.len());
            let piece = bytes[at..bytes.len().min(at + length)].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

/// The same PEM with the changes made below its base64, so that they reach the key's decoder.
fn change_inside(bytes: &[u8], which: Index, changes: &[Change]) -> Option<Vec<u8>> {
    let mut blocks = pem::parse_many(bytes).ok().filter(|blocks| !blocks.is_empty())?;
    let which = which.index(blocks.len());
    let block = &mut blocks[which];
    let mut contents = block.contents().to_vec();
    for change in changes {
        apply(change, &mut contents);
    }
    *block = pem::Pem::new(block.tag(), contents);
    Some(pem::encode_many(&blocks).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_a_file_shows_anything_private(
        fixture in any::<Index>(),
        file in any::<Index>(),
        block in any::<Index>(),
        is_inside in any::<bool>(),
        changes in proptest::collection::vec(change(), 1..6),
    ) {
        let fixture = fixture.get(&FIXTURES);
        let mut files = fixture.clone();
        let bytes = &mut file.get_mut(&mut files).1;
        match change_inside(bytes, block, &changes).filter(|_| is_inside) {
            Some(changed) => *bytes = changed,
            None => changes.iter().for_each(|change| apply(change, bytes)),
        }
        match read("mutated", &files, &rules()) {
            Ok(entry) => has_public_members_alone(&entry),
            Err(refused) => {
                let words = refused.reason.cause() + &refused.reason.remedy();
                prop_assert_eq!(quotes(&words, fixture), None, "{}", words);
            }
        }
    }
}

/// The files of an entry: names and contents.
type Files = Vec<(String, Vec<u8>)>;

static FIXTURES: std::sync::LazyLock<Vec<Files>> = std::sync::LazyLock::new(|| {
    let all = fixtures("accepted").into_iter().chain(fixtures("refused"));
    all.map(|fixture| fixture.files).collect()
});
