//! When two scans are needed: files count as gone, and a record that is due may be forgotten, only
//! where two scans in a row missed the key. A single scan may fall between the two halves of a
//! replacement.

use std::collections::BTreeSet;

use crate::keys::Kid;

/// Whether the scan before missed the key as well. Where it did not, the key is added to those
/// that this scan `missed`.
pub(super) fn is_confirmed(
    kid: &Kid,
    missed_before: &BTreeSet<Kid>,
    missed: &mut BTreeSet<Kid>,
) -> bool {
    let is_confirmed = missed_before.contains(kid);
    if !is_confirmed {
        missed.insert(kid.clone());
    }
    is_confirmed
}
