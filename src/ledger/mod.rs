//! What is remembered of every key that was ever seen, so that one whose file is gone can stay
//! published for its grace, and one that was ended can't come back.
//!
//! The unit is the key, that is its public material. The files answer one question each: which name
//! an audience signs with (`current`), what an operator should know (`overview`), which entry may
//! declare which name (`claims`), what signers read ([`handoff`]), what is remembered of a key
//! ([`record`]), how that is brought up to date and when it is forgotten ([`reconcile`]), when it ends
//! for its successor (`succession`), what two copies of a record come to ([`join`]), what an older copy of
//! the directory must not bring back ([`memory`]). What a bad file costs is
//! said by `holds_last_good_state` in `keys/refusal.rs`. On disk, [`codec`] is the format of a record,
//! [`store`] the directory of them, and [`journal`] makes several files change together. [`Ledger`] is
//! the records in memory and on disk together.

mod change;
mod claims;
pub mod codec;
mod current;
mod damaged;
pub mod dispute;
mod files;
pub mod fleet;
pub mod handoff;
pub mod join;
pub mod journal;
mod keeper;
mod lock_holders;
pub mod memory;
mod observation;
mod overview;
pub mod reconcile;
pub mod record;
mod served;
pub mod step;
pub mod store;
mod succession;
mod unseen;
pub mod verdict;

pub use change::{Change, ChangeKind};
pub use claims::Contradiction;
pub(crate) use claims::KidHolders;
pub(crate) use current::choose;
pub use current::current_key;
pub use journal::CommitError;
pub use keeper::{HandOffStatus, Ledger, Persistence};
pub use observation::{Observation, UnreadableSubtree};
pub use overview::{Overview, Warning, WarningKind};
pub use reconcile::{Missed, ReconcileContext, Reconciliation, reconcile};
pub use record::{KeyName, NamedKey, Orders, Record, Records};
pub(crate) use served::other_daemon;
pub use served::{Confirmation, OtherDaemon};
pub use step::Step;
pub(crate) use succession::with_successions;
