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

/// The dates of one key: all that its phase depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dates {
    /// From when it may sign; open where absent.
    pub valid_from: Option<Timestamp>,
    /// From when it is expired; open where absent.
    pub valid_to: Option<Timestamp>,
    /// The invalidation that was declared or ordered, which may lie ahead.
    pub invalidation: Option<Invalidation>,
    pub loss: Option<Loss>,
    /// When this ledger's owner first published it.
    pub first_published: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
}

/// An end that was declared or ordered: from `at` on the key signs no more, and it stays
/// published for `grace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Invalidation {
    /// From when the key must not sign.
    pub at: Timestamp,
    /// How long it stays published from then on.
    #[serde(with = "seconds", rename = "graceSec")]
    pub grace: Duration,
}

/// The end of a key whose files are gone. It is in force at once, whatever the clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Loss {
    /// When the loss was noticed, on the clock of that moment.
    pub at: Timestamp,
    /// The earliest instant that the clock showed later on, where it was set back behind `at`.
    /// While the clock stands before `at`, the grace is counted from here, so that a clock that
    /// once ran ahead can't keep a key alive for as long as it ran ahead; and once it is past
    /// `at` again, from `at`, so that a short step back costs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_set_back_to: Option<Timestamp>,
    /// How long the key stays published.
    #[serde(with = "seconds", rename = "graceSec")]
    pub grace: Duration,
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
    /// The earliest later instant at which anything of this changes.
    pub next_change: Option<Timestamp>,
}

impl KeyState {
    /// Whether every consumer has had the time to fetch this key, which may sign.
    pub fn is_safe_to_sign(&self, at: Timestamp) -> bool {
        self.phase == Phase::Active && self.safe_to_sign_from.is_some_and(|from| from <= at)
    }
}

impl Dates {
    pub fn at(&self, instant: Timestamp, policy: &Policy) -> KeyState {
        let phase = self.phase(instant, policy);
        KeyState {
            phase,
            published_until: self.published_until(instant),
            safe_to_sign_from: self.safe_to_sign_from(instant, policy),
            next_change: self.next_change(instant, policy),
        }
    }

    fn phase(&self, instant: Timestamp, policy: &Policy) -> Phase {
        if self.deleted_at.is_some() {
            return Phase::Deleted;
        }
        let invalidated_until = self.invalidated_until(instant);
        if invalidated_until.is_some_and(|until| until <= instant)
            && invalidated_until <= self.valid_to.or(invalidated_until)
        {
            return Phase::Retired;
        }
        if self.valid_to.is_some_and(|to| to <= instant) {
            return Phase::Expired;
        }
        // Lost before it was ever to be published: nothing can have been signed with it.
        if self.first_published.is_none()
            && let (Some(loss), Some(from)) = (self.loss, self.announced_from(policy))
            && loss.at < from
        {
            return Phase::Retired;
        }
        // Once published, a key is never taken back because a date or the clock moved: tokens
        // that it signed may be out.
        if self.first_published.is_none()
            && self.announced_from(policy).is_some_and(|from| instant < from)
        {
            return Phase::Scheduled;
        }
        if self.loss.is_some() || self.invalidation.is_some_and(|end| end.at <= instant) {
            return Phase::Grace;
        }
        if self.valid_from.is_some_and(|from| instant < from) {
            return Phase::Announced;
        }
        Phase::Active
    }

    /// The earlier of `validTo` and the end of the grace; for a deleted key, when it was deleted.
    pub fn published_until(&self, instant: Timestamp) -> Option<Timestamp> {
        earliest([self.deleted_at, self.valid_to, self.invalidated_until(instant)])
    }

    /// From when it must not sign any more because it was invalidated or lost.
    pub fn invalidated_at(&self) -> Option<Timestamp> {
        earliest([self.invalidation.map(|end| end.at), self.loss.map(|loss| loss.at)])
    }

    /// The invalidation that an order to end at `at`, with `grace`, makes of the one that there
    /// is. It never ends later than before.
    pub fn invalidation_by(&self, at: Timestamp, grace: Duration) -> Invalidation {
        let Some(before) = self.invalidation else { return Invalidation { at, grace } };
        let begin = before.at.min(at);
        let end = after(before.at, before.grace).min(after(at, grace));
        Invalidation {
            at: begin,
            grace: Duration::try_from(begin.duration_until(end)).unwrap_or_default(),
        }
    }

    /// From when until when the key is active, of the time from `instant` on; half-open, until the
    /// end of time where it is open. None where it is never active.
    pub(crate) fn signs_during(
        &self,
        instant: Timestamp,
        policy: &Policy,
    ) -> Option<(Timestamp, Timestamp)> {
        let from = self.valid_from.unwrap_or(Timestamp::MIN).max(instant);
        let to = earliest([self.invalidation.map(|end| end.at), self.valid_to]);
        let to = to.unwrap_or(Timestamp::MAX);
        (from < to && self.at(from, policy).phase == Phase::Active).then_some((from, to))
    }

    /// The earlier of the ends of the ordered and of the implicit grace.
    fn invalidated_until(&self, instant: Timestamp) -> Option<Timestamp> {
        earliest([
            self.invalidation.map(|end| after(end.at, end.grace)),
            self.loss
                .filter(|_| self.deleted_at.is_none())
                .map(|loss| after(loss.counted_from(instant), loss.grace)),
        ])
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
        let safe = safe.filter(|safe| instant < *safe && may_sign_yet);
        earliest([self.next_phase(instant, policy), safe])
    }

    /// The next instant at which the phase may change.
    pub(crate) fn next_phase(&self, instant: Timestamp, policy: &Policy) -> Option<Timestamp> {
        if self.deleted_at.is_some() {
            return None;
        }
        earliest(
            [
                self.announced_from(policy).filter(|_| self.first_published.is_none()),
                self.valid_from,
                self.invalidation.map(|end| end.at),
                self.loss.map(|loss| loss.at),
                self.invalidated_until(instant),
                self.valid_to,
            ]
            .map(|change| change.filter(|change| instant < *change)),
        )
    }
}

impl Invalidation {
    /// From when on signed tokens outlive the grace, where it is shorter than the last of them live:
    /// that may be signed a while after the invalidation.
    pub(crate) fn strands_tokens_from(&self, policy: &Policy) -> Option<Timestamp> {
        let needed = policy.token_lifetime + policy.clock_skew;
        let is_short = self.grace < needed + LAST_SIGNER_STOPS;
        is_short.then(|| after(before(self.at, needed), self.grace))
    }
}

impl Loss {
    /// The instant from which the grace is counted, as the clock stands at `instant`.
    fn counted_from(&self, instant: Timestamp) -> Timestamp {
        match self.clock_set_back_to {
            Some(back) if instant < self.at => back,
            _ => self.at,
        }
    }

    /// The same loss after the clock was seen at `instant`, see [`Self::clock_set_back_to`].
    pub fn observed_at(mut self, instant: Timestamp) -> Self {
        if instant < self.at {
            let back = self.clock_set_back_to.map_or(instant, |back| back.min(instant));
            if after(back, self.grace) <= instant {
                // The whole grace has passed on the corrected clock: that is when it was.
                return Self { at: back, clock_set_back_to: None, ..self };
            }
            self.clock_set_back_to = Some(back);
        }
        self
    }
}

/// What [`current`] chooses from.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub kid: &'a Kid,
    pub dates: &'a Dates,
    /// Whether there is a private half to sign with.
    pub has_private: bool,
}

/// The key to sign with, of the keys of one audience: of the active ones with a private half that
/// are safe to sign, the one with the latest `validFrom` (then first published, then kid). Where
/// none is safe yet, the active one published longest, so that there is always a signer.
///
/// A key without `validFrom` counts as valid from its first publication.
pub fn current<'a>(
    candidates: impl Iterator<Item = Candidate<'a>>,
    instant: Timestamp,
    policy: &Policy,
) -> Option<&'a Kid> {
    let active: Vec<(KeyState, Candidate<'a>)> = candidates
        .filter(|candidate| candidate.has_private)
        .map(|candidate| (candidate.dates.at(instant, policy), candidate))
        .filter(|(state, _)| state.phase == Phase::Active)
        .collect();
    let newest = |candidate: &Candidate<'a>| {
        let Dates { valid_from, first_published, .. } = *candidate.dates;
        (valid_from.or(first_published), first_published, Reverse(candidate.kid))
    };
    let safe = active.iter().filter(|(state, _)| state.is_safe_to_sign(instant));
    let chosen = safe.max_by_key(|(_, candidate)| newest(candidate)).or_else(|| {
        active.iter().min_by_key(|(_, candidate)| {
            let published = candidate.dates.first_published;
            // Never published sorts last; among equals the newest as above.
            (published.is_none(), published, Reverse(newest(candidate)))
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
