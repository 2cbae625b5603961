//! Key directories: which key lies in which slot, and what its attributes file says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use jwksd::keys::entry::{Declared, Entry, PrivateHalf, SeenKey};
use jwksd::keys::refusal::{RefusalReason, Refused};
use jwksd::keys::{Audience, Kid, PublicKey};
use jwksd::ledger::{Observation, UnreadableSubtree};
use jwksd::operations::Plan;
use jwksd::source::Slot;
use jwksd::source::scan::FileProblem;

use crate::keys::{kid, public_key, seen};
use crate::{Ms, START, at};

/// How many keys there are to use.
pub const POOL: u8 = 60;

static PUBLIC: LazyLock<Vec<PublicKey>> = LazyLock::new(|| (0..POOL).map(public_key).collect());

/// The directory that exists in name only.
static PLACE: LazyLock<Arc<Path>> = LazyLock::new(|| Arc::from(Path::new("/simulated/keys")));

pub fn place() -> Arc<Path> {
    Arc::clone(&PLACE)
}

/// The key number `material`, compared by its public members.
pub fn public(material: u8) -> &'static PublicKey {
    &PUBLIC[usize::from(material)]
}

/// What an attributes file says about a key, in milliseconds on a right clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    pub valid_from: Option<Ms>,
    pub valid_to: Option<Ms>,
    pub invalidated_at: Option<Ms>,
    /// In seconds.
    pub grace: Option<u64>,
}

/// The files of an entry.
#[derive(Debug, Clone)]
pub struct Lying {
    pub material: u8,
    pub kid: Kid,
    pub audience: Audience,
    pub attributes: Attributes,
    /// Whether a file of it is cut short.
    pub is_bad: bool,
    /// Whether the private half is among them.
    pub has_private: bool,
    entry: Arc<Entry>,
}

impl Lying {
    pub fn new(
        slot: &str,
        material: u8,
        name: &str,
        audience: &Audience,
        attributes: Attributes,
    ) -> Self {
        let Attributes { valid_from, valid_to, invalidated_at, grace } = attributes;
        let declared = Declared {
            valid_from: valid_from.map(at),
            valid_to: valid_to.map(at),
            invalidated_at: invalidated_at.map(at),
            grace_period_sec: grace.map(Duration::from_secs),
        };
        let key = SeenKey {
            audience: audience.clone(),
            public: public(material).clone(),
            thumbprint: public(material).thumbprint(),
            private: PrivateHalf {
                file: Some(format!("/simulated/keys/{slot}.pem").into()),
                signer: None,
            },
            declared,
            ..seen(name, 0)
        };
        let entry = Arc::new(Entry {
            slot: Slot::new(place(), slot),
            keys: vec![key],
            refused: vec![],
            refused_keys: BTreeSet::new(),
            has_unread: false,
            notes: vec![],
        });
        Self {
            material,
            kid: kid(name),
            audience: audience.clone(),
            attributes,
            is_bad: false,
            has_private: true,
            entry,
        }
    }

    /// The files of a key pair that is issued.
    pub fn planned(plan: &Plan, material: u8, audience: &Audience) -> Self {
        let shown = |instant: Timestamp| Some(instant.as_millisecond() - START);
        let attributes = Attributes {
            valid_from: shown(plan.valid_from),
            valid_to: shown(plan.valid_to),
            ..Attributes::default()
        };
        Self::new(plan.slot.path(), material, plan.kid.as_str(), audience, attributes)
    }

    /// The same files with other attributes, or another name, or in another slot.
    pub fn again(&self, slot: &str, name: &str, attributes: Attributes) -> Self {
        let again = Self::new(slot, self.material, name, &self.audience, attributes);
        let again = if self.has_private { again } else { again.without_private() };
        Self { is_bad: self.is_bad, ..again }
    }

    /// The public half alone.
    pub fn without_private(self) -> Self {
        let mut entry = Entry::clone(&self.entry);
        entry.keys[0].private = PrivateHalf::default();
        Self { has_private: false, entry: Arc::new(entry), ..self }
    }

    /// The same key for another audience.
    pub fn of(&self, slot: &str, name: &str, audience: &Audience) -> Self {
        Self::new(slot, self.material, name, audience, self.attributes)
    }

    pub fn seen(&self) -> &SeenKey {
        &self.entry.keys[0]
    }
}

/// A key directory, or one replica's copy of it.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    pub entries: BTreeMap<String, Lying>,
    /// Whether it can't be read.
    pub is_dark: bool,
}

impl Directory {
    /// What a look at it shows.
    pub fn observation(&self) -> Observation {
        if self.is_dark {
            let slot = Slot::new(place(), "");
            let reason =
                RefusalReason::DirectoryUnreadable { error: "permission denied".to_owned() };
            let refused = Refused { file: slot.full_path(), slot, reason };
            let unreadable =
                vec![UnreadableSubtree { directory: place(), below: String::new(), refused }];
            return Observation { entries: BTreeMap::new(), unreadable };
        }
        let entry = |(name, lying): (&String, &Lying)| {
            let slot = Slot::new(place(), name);
            let shown = if lying.is_bad {
                let reason = RefusalReason::File(FileProblem::Dangling);
                Err(Arc::new(Refused { file: slot.full_path(), slot: slot.clone(), reason }))
            } else {
                Ok(Arc::clone(&lying.entry))
            };
            (slot, shown)
        };
        Observation { entries: self.entries.iter().map(entry).collect(), unreadable: Vec::new() }
    }
}
