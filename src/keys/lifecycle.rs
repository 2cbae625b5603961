//! The heart: the dates of a key, a policy and an instant become a phase.
//!
//! Pure functions, so the same dates give the same answer on every replica, in every order of
//! evaluation and however the clock steps. All intervals are half-open, [from, to).

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::Kid;

/// How long it takes until the last signer has noticed that its key was replaced.
pub const LAST_SIGNER_STOPS: Duration = Duration::from_secs(120);

/// A clock that is behind by more than this was set back. By less, it was read a little earlier.
const CLOCK_STEP: Duration = Duration::from_secs(2);

/// The durations that the operator chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long before its `validFrom` a key is published.
    pub announce: Duration,
    /// How long until every consumer has fetched a newly published key.
    pub propagation: Duration,
    pub token_lifetime: Duration,
    pub clock_skew: Duration,
    /// The grace of an invalidation that names none.
    pub default_grace: Duration,
}

/// The dates of one name of a key: all that its phase depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dates {
    /// From when it may sign; open where absent.
    pub valid_from: Option<Timestamp>,
    /// From when it is expired; open where absent.
    pub valid_to: Option<Timestamp>,
    /// The ends that were ordered, planned for a successor, declared and noticed. Each may lie ahead;
    /// the earliest end of the publication wins.
    pub order: Option<End>,
    pub succession: Option<End>,
    pub declaration: Option<End>,
    pub loss: Option<End>,
    /// When it was first published under this kid in this audience, since it was last unpublished.
    pub first_published: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
}

/// An end: from `at` on the key signs no more, and it stays published for `grace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    /// From when the key must not sign.
    pub at: Timestamp,
    /// How long it stays published from then on.
    #[serde(with = "seconds", rename = "graceSec")]
    pub grace: Duration,
    /// Whether the clock has shown `at`. From then on the end is in force whatever the clock says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_reached: bool,
}

mod seconds {
    //! A duration as a number of seconds.
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if duration.subsec_nanos() == 0 {
            duration.as_secs().serialize(serializer)
        } else {
            duration.as_secs_f64().serialize(serializer)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let duration = Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)?;
        // A number this large is not exact to the nanosecond, and must not grow by that.
        Ok(if seconds < EXACT_BELOW { duration } else { to_the_microsecond(duration) })
    }

    /// Below this many seconds (48 days), nanoseconds come back as they were written.
    const EXACT_BELOW: f64 = 4_194_304.0;

    fn to_the_microsecond(duration: Duration) -> Duration {
        let nanoseconds = (duration.subsec_nanos() + 500) / 1000 * 1000;
        Duration::from_secs(duration.as_secs()) + Duration::from_nanos(nanoseconds.into())
    }
}

/// Where a key stands in its life.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Known, but too early to publish.
    Scheduled,
    /// Published so that consumers have it before it signs.
    Announced,
    /// May sign, once it is safe to.
    Active,
    /// Signs no more; published for the tokens that are still out.
    Grace,
    /// Its grace is over.
    Retired,
    /// Its `validTo` has passed.
    Expired,
    /// Deleted by an order.
    Deleted,
}

impl Phase {
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Announced,
        Self::Active,
        Self::Grace,
        Self::Retired,
        Self::Expired,
        Self::Deleted,
    ];

    pub const fn is_published(self) -> bool {
        matches!(self, Self::Announced | Self::Active | Self::Grace)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Announced => "announced",
            Self::Active => "active",
            Self::Grace => "grace",
            Self::Retired => "retired",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyState {
    pub phase: Phase,
    /// From when it is no longer published; open where absent.
    pub published_until: Option<Timestamp>,
    /// From when every consumer has it, as far as can be said: absent where it was never
    /// published and no `validFrom` says when it will be.
    pub safe_to_sign_from: Option<Timestamp>,
    /// Until when it may sign so that its last token expires before it does; open where absent.
    pub sign_until: Option<Timestamp>,
    /// The earliest later instant at which anything of this changes.
    pub next_change: Option<Timestamp>,
}

impl KeyState {
    /// Whether every consumer has had the time to fetch this key, which may sign.
    pub fn is_safe_to_sign(&self, at: Timestamp) -> bool {
        self.phase == Phase::Active && self.safe_to_sign_from.is_some_and(|from| from <= at)
    }

    /// Whether tokens that it signs now may outlive it.
    pub fn is_past_sign_until(&self, at: Timestamp) -> bool {
        self.sign_until.is_some_and(|until| until <= at)
    }
}

impl Dates {
    pub fn at(&self, instant: Timestamp, policy: &Policy) -> KeyState {
        let phase = self.phase(instant, policy);
        KeyState {
            phase,
            published_until: self.published_until(),
            safe_to_sign_from: self.safe_to_sign_from(instant, policy),
            sign_until: self.sign_until(policy),
            next_change: self.next_change(instant, policy),
        }
    }

    fn phase(&self, instant: Timestamp, policy: &Policy) -> Phase {
        if self.deleted_at.is_some() {
            return Phase::Deleted;
        }
        let ended = self.graces_end();
        if ended.is_some_and(|until| until <= instant) && ended <= self.valid_to.or(ended) {
            return Phase::Retired;
        }
        if self.valid_to.is_some_and(|to| to <= instant) {
            return Phase::Expired;
        }
        if self.first_published.is_none() {
            let announced = self.announced_from(policy);
            // Lost before it was ever to be published: nothing can have been signed with it.
            if self.loss.is_some_and(|loss| announced.is_some_and(|from| loss.at < from)) {
                return Phase::Retired;
            }
            // Once published, a key is never taken back because a date or the clock moved: tokens
            // that it signed may be out.
            if announced.is_some_and(|from| instant < from) {
                return Phase::Scheduled;
            }
        }
        if self.ends().any(|end| end.is_in_force(instant)) {
            return Phase::Grace;
        }
        if self.valid_from.is_some_and(|from| instant < from) {
            return Phase::Announced;
        }
        Phase::Active
    }

    fn ends(&self) -> impl Iterator<Item = End> {
        [self.order, self.succession, self.declaration, self.loss].into_iter().flatten()
    }

    /// The earliest of `validTo`, the end of the shortest grace and its deletion.
    pub fn published_until(&self) -> Option<Timestamp> {
        earliest([self.deleted_at, self.valid_to, self.graces_end()])
    }

    fn graces_end(&self) -> Option<Timestamp> {
        self.ends().map(|end| end.until()).min()
    }

    /// From when it must not sign any more because of an end.
    pub fn invalidated_at(&self) -> Option<Timestamp> {
        self.ends().map(|end| end.at).min()
    }

    /// The last token that is signed before it expires before the key does. Not the planned end for a
    /// successor: while nobody is there to carry that out, signers go on.
    pub fn sign_until(&self, policy: &Policy) -> Option<Timestamp> {
        let outlives = policy.token_lifetime + policy.clock_skew;
        let ends = Self { succession: None, ..*self }.invalidated_at();
        earliest([self.valid_to.map(|to| before(to, outlives)), ends])
    }

    /// From when until when the key is active, of the time from `instant` on; half-open, until the
    /// end of time where it is open. None where it is never active.
    pub(crate) fn signs_during(
        &self,
        instant: Timestamp,
        policy: &Policy,
    ) -> Option<(Timestamp, Timestamp)> {
        let from = self.valid_from.unwrap_or(Timestamp::MIN).max(instant);
        let to = earliest([self.invalidated_at(), self.valid_to]).unwrap_or(Timestamp::MAX);
        (from < to && self.at(from, policy).phase == Phase::Active).then_some((from, to))
    }

    fn announced_from(&self, policy: &Policy) -> Option<Timestamp> {
        self.valid_from.map(|from| before(from, policy.announce))
    }

    /// A key that was not published yet is not published before `instant`.
    fn safe_to_sign_from(&self, instant: Timestamp, policy: &Policy) -> Option<Timestamp> {
        let planned = || self.announced_from(policy).map(|from| from.max(instant));
        let published = self.first_published.or_else(planned)?;
        Some(after(published, policy.propagation).max(self.valid_from.unwrap_or(Timestamp::MIN)))
    }

    fn next_change(&self, instant: Timestamp, policy: &Policy) -> Option<Timestamp> {
        let safe = self.safe_to_sign_from(instant, policy);
        let may_sign_yet = matches!(
            self.phase(instant, policy),
            Phase::Scheduled | Phase::Announced | Phase::Active
        );
        let later = |change: &Timestamp| instant < *change && may_sign_yet;
        let signs = [safe, self.sign_until(policy)].map(|change| change.filter(later));
        earliest([self.next_phase(instant, policy), signs[0], signs[1]])
    }

    /// The next instant at which the phase may change.
    pub(crate) fn next_phase(&self, instant: Timestamp, policy: &Policy) -> Option<Timestamp> {
        if self.deleted_at.is_some() {
            return None;
        }
        let planned = [
            self.announced_from(policy).filter(|_| self.first_published.is_none()),
            self.valid_from,
            self.valid_to,
        ];
        let ends = self.ends().flat_map(|end| [end.at, end.until()]);
        planned.into_iter().flatten().chain(ends).filter(|change| instant < *change).min()
    }
}

impl End {
    /// An end that an order or a file names, and that may lie ahead.
    pub const fn planned(at: Timestamp, grace: Duration) -> Self {
        Self { at, grace, is_reached: false }
    }

    /// An end that is in force from `now` on.
    pub const fn noticed(now: Timestamp, grace: Duration) -> Self {
        Self { at: now, grace, is_reached: true }
    }

    fn is_in_force(&self, instant: Timestamp) -> bool {
        self.is_reached || self.at <= instant
    }

    /// When the grace is over.
    pub fn until(&self) -> Timestamp {
        after(self.at, self.grace)
    }

    /// The same end after the clock was seen at `instant`. A clock that is set back behind an end that
    /// was reached was wrong when it showed that: the grace is counted from the corrected clock.
    pub fn observed_at(self, instant: Timestamp) -> Self {
        let tolerated = if self.grace.is_zero() { Duration::ZERO } else { CLOCK_STEP };
        let is_set_back = self.is_reached && after(instant, tolerated) < self.at;
        let at = if is_set_back { instant } else { self.at };
        Self { at, is_reached: self.is_reached || at <= instant, ..self }
    }

    /// The same end after a clock showed `instant` that is not the one that it was noted by.
    pub fn reached_at(self, instant: Timestamp) -> Self {
        Self { is_reached: self.is_reached || self.at <= instant, ..self }
    }

    /// The end that this one and a further order to end make together. It is never later than
    /// either of them.
    pub fn and(self, other: Self) -> Self {
        let first = if other.at < self.at { other } else { self };
        let until = self.until().min(other.until());
        let cut = Duration::try_from(until.duration_until(first.until()));
        let grace = first.grace.saturating_sub(cut.unwrap_or_default());
        Self { grace, is_reached: self.is_reached || other.is_reached, ..first }
    }

    /// From when on signed tokens outlive the grace, where it is shorter than the last of them live:
    /// that may be signed a while after the invalidation.
    pub(crate) fn strands_tokens_from(&self, policy: &Policy) -> Option<Timestamp> {
        let needed = policy.token_lifetime + policy.clock_skew;
        let is_short = self.grace < needed + LAST_SIGNER_STOPS;
        is_short.then(|| after(before(self.at, needed), self.grace))
    }
}

/// What [`current`] chooses from: a name of a key.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub kid: &'a Kid,
    pub dates: &'a Dates,
    /// Whether there is a private half to sign with.
    pub can_sign: bool,
}

/// The name to sign with, of those of one audience: of the active ones that can sign, are safe to and
/// have not to stop yet, the one with the latest `validFrom` (then first published, then kid).
///
/// Otherwise there is a signer all the same where any is active: one that tokens outlive, or else the
/// one that was published longest. Among equals, as on a new ledger, that is the one with the
/// earliest `validFrom`: the one that consumers of the ledger before have.
///
/// A name without `validFrom` counts as valid from its first publication.
pub fn current<'a>(
    candidates: impl Iterator<Item = Candidate<'a>>,
    instant: Timestamp,
    policy: &Policy,
) -> Option<&'a Kid> {
    let active: Vec<(KeyState, Candidate<'a>)> = candidates
        .filter(|candidate| candidate.can_sign)
        .map(|candidate| (candidate.dates.at(instant, policy), candidate))
        .filter(|(state, _)| state.phase == Phase::Active)
        .collect();
    let newest = |candidate: &Candidate<'a>| {
        let Dates { valid_from, first_published, .. } = *candidate.dates;
        (valid_from.or(first_published), first_published, Reverse(candidate.kid))
    };
    let is_late = |state: &KeyState| state.is_past_sign_until(instant);
    let is_safe = |state: &KeyState| state.is_safe_to_sign(instant);
    let in_time = active.iter().filter(|(state, _)| is_safe(state) && !is_late(state));
    let late = || active.iter().filter(|(state, _)| is_late(state));
    let chosen = in_time
        .max_by_key(|(_, candidate)| newest(candidate))
        .or_else(|| late().max_by_key(|(state, candidate)| (is_safe(state), newest(candidate))))
        .or_else(|| {
            active.iter().min_by_key(|(_, candidate)| {
                let Dates { valid_from, first_published, .. } = *candidate.dates;
                // Never published sorts last.
                (first_published.is_none(), first_published, valid_from, candidate.kid)
            })
        });
    chosen.map(|(_, candidate)| candidate.kid)
}

/// The earliest of some instants, absent ones aside.
fn earliest<const N: usize>(instants: [Option<Timestamp>; N]) -> Option<Timestamp> {
    instants.into_iter().flatten().min()
}

/// `instant` + `duration`, or the end of time.
pub fn after(instant: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| instant.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

/// `instant` − `duration`, or the beginning of time.
pub fn before(instant: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| instant.checked_sub(duration).ok())
        .unwrap_or(Timestamp::MIN)
}
