//! What happens to names, for those who tell of it.

use crate::keys::{Name, Thumbprint};

/// What happened to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: Thumbprint,
    pub name: Name,
    pub kind: ChangeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The name was seen for the first time.
    Added,
    Updated,
    /// No entry declares it any more; `replaced` where another key took the slot.
    Lost {
        replaced: bool,
    },
    Returned,
    /// For the first time, or again after an end.
    Published,
    /// It is no longer remembered, long after its end.
    Forgotten,
    /// The key has ended because its successor took over.
    Succeeded,
}
