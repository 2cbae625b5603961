//! How many connections there is room for among the files that the process may have open. The reload
//! loop needs some, whatever clients do: a crowd must not keep it from noticing a key.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// What is kept for everything but connections: key files, the ledger, certificates, listeners.
const OWN: u64 = 40;

/// Fewer would not be worth running for.
const FEWEST: u64 = 4;

/// Raises the limit of open files as far as `listeners` with `configured` connections each need it,
/// and says where that is not to be had.
pub(super) fn make_room(configured: usize, listeners: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = OWN + (configured * listeners) as u64;
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
        // Where that is refused, there is less room.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit });
    }
    let room = room(configured, listeners);
    if room < configured {
        warn!(
            event = "connections.limited",
            configured,
            room,
            remedy = "raise the limit of open files (LimitNOFILE), or lower limits.max_connections",
            "there is room for fewer connections than configured"
        );
    }
}

/// How many connections each of `listeners` may have, at most `configured`.
pub(super) fn room(configured: usize, listeners: usize) -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return configured };
    share(limit, configured, listeners)
}

fn share(limit: u64, configured: usize, listeners: usize) -> usize {
    let share = limit.saturating_sub(OWN) / listeners.max(1) as u64;
    usize::try_from(share.max(FEWEST)).map_or(configured, |share| share.min(configured))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_the_program_itself() {
        assert_eq!(share(1 << 20, 1024, 3), 1024);
        assert_eq!(share(1024, 1024, 2), 492);
        assert_eq!(share(64, 1024, 2), 12);
        assert_eq!(share(10, 1024, 2), 4);
        assert_eq!(share(1024, 2, 3), 2);
    }
}
