//! What is counted: requests by path and status, refusals by limit. Counting is an atomic add.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hyper::StatusCode;

use super::problem::Problem;

/// The statuses that are counted each; others count as the last.
const STATUSES: [u16; 16] =
    [200, 204, 304, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 431, 503, 500];

/// Requests by path and status.
#[derive(Debug)]
pub struct Requests {
    /// The paths that are told apart; others count as the last, which has no name.
    paths: Vec<String>,
    counts: Vec<[AtomicU64; STATUSES.len()]>,
}

impl Requests {
    /// None yet. `paths` are told apart by their place.
    pub fn new(paths: Vec<String>) -> Self {
        let counts = (0..=paths.len()).map(|_| Default::default()).collect();
        Self { paths, counts }
    }

    /// Counts one, at the path of this place or at none of them.
    pub fn count(&self, path: Option<usize>, status: StatusCode) {
        let status = STATUSES.iter().position(|known| *known == status.as_u16());
        let counts = &self.counts[path.unwrap_or(self.paths.len()).min(self.paths.len())];
        counts[status.unwrap_or(STATUSES.len() - 1)].fetch_add(1, Relaxed);
    }

    /// Path, status and count of all that there were.
    pub fn all(&self) -> impl Iterator<Item = (&str, u16, u64)> {
        let paths = self.paths.iter().map(String::as_str).chain(["other"]);
        paths.zip(&self.counts).flat_map(|(path, counts)| {
            let counts = STATUSES.iter().zip(counts);
            counts
                .map(move |(status, count)| (path, *status, count.load(Relaxed)))
                .filter(|(_, _, count)| *count > 0)
        })
    }
}

/// Refusals by the limit that was reached.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; LIMITS.len()]);

const LIMITS: [&str; 13] = [
    "connections",
    "gave-way",
    "head-time",
    "head-size",
    "target-size",
    "write-time",
    "malformed",
    "handshake-time",
    "handshake",
    "frames",
    "tls",
    "proxy-header",
    "http2",
];

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A connection was refused because of too many.
    Connections,
    /// A connection that waited for its client gave way to a new one.
    GaveWay,
    /// A head did not arrive in time.
    HeadTime,
    /// A head was too large.
    HeadSize,
    /// A target was too long.
    TargetSize,
    /// A client took nothing of its answer for too long.
    WriteTime,
    /// A request was not HTTP.
    Malformed,
    /// A handshake of TLS did not come to its end in time.
    HandshakeTime,
    /// A handshake of TLS failed.
    Handshake,
    /// More bytes of HTTP/2 came than its requests need.
    Frames,
    /// TLS came where there is none.
    Tls,
    /// The header of the PROXY protocol came before a request.
    ProxyHeader,
    /// HTTP/2 came without TLS.
    Http2,
}

impl Limit {
    /// The limit behind a problem, where there is one.
    const fn of(problem: Problem) -> Option<Self> {
        match problem {
            Problem::TooManyConnections => Some(Self::Connections),
            Problem::HeadTimeout => Some(Self::HeadTime),
            Problem::HeadTooLarge => Some(Self::HeadSize),
            Problem::TargetTooLong => Some(Self::TargetSize),
            Problem::Malformed => Some(Self::Malformed),
            _ => None,
        }
    }
}

impl Refusals {
    /// Counts a problem that was answered, where a limit is behind it.
    pub(super) fn count_problem(&self, problem: Problem) {
        if let Some(limit) = Limit::of(problem) {
            self.count(limit);
        }
    }

    pub fn count(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Relaxed);
    }

    /// The limits and how often they were reached.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        LIMITS.into_iter().zip(&self.0).map(|(limit, count)| (limit, count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_path_and_status() {
        let requests = Requests::new(vec!["/a".to_owned(), "/b".to_owned()]);
        requests.count(Some(0), StatusCode::OK);
        requests.count(Some(0), StatusCode::OK);
        requests.count(Some(1), StatusCode::NOT_MODIFIED);
        requests.count(None, StatusCode::NOT_FOUND);
        requests.count(Some(9), StatusCode::IM_A_TEAPOT);
        let counted: Vec<_> = requests.all().collect();
        let expected = [("/a", 200, 2), ("/b", 304, 1), ("other", 404, 1), ("other", 500, 1)];
        assert_eq!(counted, expected);
    }

    #[test]
    fn every_limit_has_a_name() {
        let refusals = Refusals::default();
        refusals.count(Limit::Malformed);
        refusals.count(Limit::GaveWay);
        let reached: Vec<_> = refusals.all().filter(|(_, count)| *count > 0).collect();
        assert_eq!(reached, [("gave-way", 1), ("malformed", 1)]);
    }
}
