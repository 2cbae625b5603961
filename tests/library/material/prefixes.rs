//! A file that is cut short is never taken for a whole one, wherever it is cut.

use super::{Fixture, fixtures, read, rules};

/// Whether the first `length` bytes of a file are a whole file by themselves: all of it but white
/// space, or in PEM all up to the end of a block, where that or one before it is more than the name
/// of a curve.
fn is_whole(name: &str, bytes: &[u8], length: usize) -> bool {
    let (prefix, rest) = bytes.split_at(length);
    if std::path::Path::new(name).extension().is_some_and(|ending| ending == "json") {
        return rest.iter().all(u8::is_ascii_whitespace);
    }
    let Ok(prefix) = std::str::from_utf8(prefix) else { return false };
    let last = prefix.trim_end().lines().last().unwrap_or_default();
    last.starts_with("-----END ")
        && last.ends_with("-----")
        && last != "-----END EC PARAMETERS-----"
}

/// Reads a fixture with its file number `index` cut to every length in turn.
fn cut_everywhere(fixture: &Fixture, index: usize) -> usize {
    let (name, bytes) = &fixture.files[index];
    let mut whole = 0;
    for length in 0..=bytes.len() {
        let mut files: Vec<(&str, &[u8])> =
            fixture.files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
        files[index].1 = &bytes[..length];
        let read = read(&fixture.stem, &files, &rules());
        let expected = is_whole(name, bytes, length);
        whole += usize::from(expected);
        assert_eq!(read.is_ok(), expected, "{name}, {length} of {} bytes: {read:?}", bytes.len());
    }
    whole
}

#[test]
fn every_prefix_of_every_file_is_refused_unless_it_is_whole() {
    for fixture in fixtures("accepted") {
        for index in 0..fixture.files.len() {
            let (name, bytes) = &fixture.files[index];
            // A whole text may lack the white space at its end. Most of a file is no whole one.
            let whole = cut_everywhere(&fixture, index);
            assert!((1..=9).contains(&whole), "{name}: {whole} of {}", bytes.len());
        }
    }
}
