//! How many connections the limit of open files (`RLIMIT_NOFILE`) allows. Some files are reserved, so
//! that the reload loop goes on however many clients there are.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Files reserved for everything but connections: key files, the ledger, certificates, listeners.
const RESERVED: u64 = 40;

/// Connections of a listener, however low the limit is.
const MIN_CONNECTIONS: u64 = 4;

/// Raises the limit of open files as far as `listeners` with `configured` connections each need it,
/// and warns where it can't be raised that far.
pub(super) fn raise_limit(configured: usize, listeners: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = RESERVED + (configured * listeners) as u64;
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
        // Where that is refused, fewer connections are allowed.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit });
    }
    let allowed = allowed_connections(configured, listeners);
    if allowed < configured {
        warn!(
            event = "connections.limited",
            configured,
            room = allowed,
            remedy = "raise the limit of open files (LimitNOFILE), or lower limits.max_connections",
            "there is room for fewer connections than configured"
        );
    }
}

/// How many connections each of `listeners` may have, at most `configured`.
pub(super) fn allowed_connections(configured: usize, listeners: usize) -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return configured };
    share(limit, configured, listeners)
}

fn share(limit: u64, configured: usize, listeners: usize) -> usize {
    let share = limit.saturating_sub(RESERVED) / listeners.max(1) as u64;
    usize::try_from(share.max(MIN_CONNECTIONS)).map_or(configured, |share| share.min(configured))
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
