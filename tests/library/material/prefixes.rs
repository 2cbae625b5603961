//! A file that is cut short is never taken for a whole one, wherever it is cut.

use super::{Fixture, fixtures, read, rules};

/// Whether the first `length` bytes of a file are a whole file by themselves: all of DER; all of JSON
/// but white space; in PEM all up to the end of a block, where that or one before it is more than the
/// name of a curve, and no further marker has begun.
fn is_whole(bytes: &[u8], length: usize) -> bool {
    let (prefix, rest) = bytes.split_at(length);
    let Ok(text) = std::str::from_utf8(bytes) else { return rest.is_empty() };
    if text.starts_with(['{', '[']) {
        return rest.iter().all(u8::is_ascii_whitespace);
    }
    if text.starts_with('0') {
        return rest.is_empty();
    }
    let Ok(prefix) = std::str::from_utf8(prefix) else { return false };
    let ends_a_line = prefix.ends_with('\n');
    // A line break may stand inside of a marker.
    let prefix = prefix.split_whitespace().collect::<Vec<_>>().join(" ");
    let ends: Vec<&str> = prefix.split("-----END ").skip(1).collect();
    let closed = ends.iter().filter(|end| end.contains("-----")).count();
    let last = ends.last().and_then(|end| end.split_once("-----")).map_or("", |(_, tail)| tail);
    let is_cut = ["-----BEGIN", "-----END"]
        .iter()
        .any(|marker| (1..=marker.len()).any(|length| last.ends_with(&marker[..length])));
    let is_key = |end: &&str| !end.starts_with("EC PARAMETERS");
    closed == ends.len()
        && prefix.matches("-----BEGIN ").count() == closed
        && ends.iter().any(is_key)
        && (ends_a_line || !is_cut)
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
        let expected = is_whole(bytes, length);
        whole += usize::from(expected);
        // A chain without its leaf is whole, and an authority's or not the key's.
        let lacks_leaf = |code| matches!(code, "certificate-authority" | "pair-mismatch");
        let is_read = read
            .as_ref()
            .map_or_else(|refused| lacks_leaf(refused.reason.code()) && expected, |_| true);
        assert_eq!(is_read, expected, "{name}, {length} of {} bytes: {read:?}", bytes.len());
    }
    whole
}

#[test]
fn every_prefix_of_every_file_is_refused_unless_it_is_whole() {
    for fixture in fixtures("accepted") {
        for index in 0..fixture.files.len() {
            let (name, bytes) = &fixture.files[index];
            // What is not read can be cut, and of a JWE only the form is known.
            if [".jwe", ".p12"].iter().any(|ending| name.ends_with(ending))
                || bytes.starts_with(b"ssh-")
            {
                continue;
            }
            // A whole text may lack what stands behind its last block. Most of a file is no whole one.
            let whole = cut_everywhere(&fixture, index);
            assert!(whole >= 1 && 2 * whole < bytes.len(), "{name}: {whole} of {}", bytes.len());
        }
    }
}
