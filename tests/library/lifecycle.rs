//! The lifecycle as a table of examples, and as properties: never too short, never too long,
//! nothing happens between two changes, nothing extends a life unless it says so, and a clock
//! that steps strands nothing.

use std::time::Duration;

use jiff::Timestamp;
use jwksd::keys::Kid;
use jwksd::keys::lifecycle::{Candidate, Dates, End, Phase, Policy, after, before, current};
use proptest::prelude::*;

const HOUR: u64 = 3600;
const HOUR_I: i64 = 3600;

fn policy() -> Policy {
    Policy {
        announce: Duration::from_secs(24 * HOUR),
        propagation: Duration::from_secs(3 * HOUR),
        token_lifetime: Duration::from_secs(HOUR),
        clock_skew: Duration::from_secs(300),
        default_grace: Duration::from_secs(HOUR + 420),
    }
}

/// `seconds` after an arbitrary origin.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn phase(dates: &Dates, seconds: i64) -> Phase {
    dates.at(at(seconds), &policy()).phase
}

#[test]
fn an_order_to_end_later_does_not_postpone_an_earlier_end() {
    let first = End::planned(at(0), secs(HOUR));
    let and = |seconds, grace| first.and(End::planned(at(seconds), secs(grace)));
    assert_eq!(and(600, 2 * HOUR), first);
    assert_eq!(and(600, 60), End::planned(at(0), secs(660)));
    assert_eq!(and(-60, 60), End::planned(at(-60), secs(60)));
    assert_eq!(and(-60, 2 * HOUR), End::planned(at(-60), secs(HOUR + 60)));
}

#[test]
fn a_key_goes_through_its_phases_at_their_exact_instants() {
    let day = 86_400;
    let dates = Dates {
        valid_from: Some(at(0)),
        valid_to: Some(at(10 * day)),
        order: Some(End::planned(at(5 * day), secs(100))),
        ..Dates::default()
    };
    assert_eq!(phase(&dates, -day - 1), Phase::Scheduled);
    assert_eq!(phase(&dates, -day), Phase::Announced);
    assert_eq!(phase(&dates, -1), Phase::Announced);
    assert_eq!(phase(&dates, 0), Phase::Active);
    assert_eq!(phase(&dates, 5 * day - 1), Phase::Active);
    assert_eq!(phase(&dates, 5 * day), Phase::Grace);
    assert_eq!(phase(&dates, 5 * day + 99), Phase::Grace);
    assert_eq!(phase(&dates, 5 * day + 100), Phase::Retired);
    assert_eq!(phase(&dates, 10 * day), Phase::Retired, "the first end is the one that counts");
}

#[test]
fn the_earlier_of_valid_to_and_grace_ends_the_publication() {
    let order = Some(End::planned(at(0), secs(1000)));
    let dates = Dates { valid_to: Some(at(500)), order, ..Dates::default() };
    assert_eq!(dates.at(at(0), &policy()).published_until, Some(at(500)));
    assert_eq!(phase(&dates, 499), Phase::Grace);
    assert_eq!(phase(&dates, 500), Phase::Expired);
}

#[test]
fn losing_the_files_of_an_invalidated_key_changes_nothing() {
    let order = Some(End::planned(at(0), secs(100)));
    let before = Dates { order, ..Dates::default() };
    let loss = Some(End::noticed(at(90), secs(4000)));
    let after = Dates { loss, ..before };
    for instant in 0..200 {
        assert_eq!(phase(&before, instant), phase(&after, instant), "{instant}");
    }
}

#[test]
fn losing_a_key_before_its_planned_end_ends_it_from_now_on() {
    let dates = Dates {
        declaration: Some(End::planned(at(1000), secs(1000))),
        loss: Some(End::noticed(at(0), secs(100))),
        ..Dates::default()
    };
    assert_eq!(phase(&dates, 0), Phase::Grace);
    assert_eq!(phase(&dates, 100), Phase::Retired);
}

#[test]
fn a_deleted_key_is_gone_whatever_its_other_dates_say() {
    let dates = Dates { deleted_at: Some(at(50)), ..Dates::default() };
    for instant in [-1_000_000, 0, 50, 1_000_000] {
        assert_eq!(phase(&dates, instant), Phase::Deleted);
    }
}

#[test]
fn a_published_key_stays_published_when_its_start_is_moved_ahead() {
    let moved = Some(at(100 * 86_400));
    let dates = Dates { valid_from: moved, first_published: Some(at(0)), ..Dates::default() };
    assert_eq!(phase(&dates, 10), Phase::Announced);
    let unpublished = Dates { first_published: None, ..dates };
    assert_eq!(phase(&unpublished, 10), Phase::Scheduled);
}

#[test]
fn a_key_is_safe_to_sign_when_it_was_published_for_the_propagation_time() {
    let published = Some(at(0));
    let dates = Dates { first_published: published, ..Dates::default() };
    let state = dates.at(at(0), &policy());
    assert_eq!(state.safe_to_sign_from, Some(at(3 * 3600)));
    assert!(!dates.at(at(3 * 3600 - 1), &policy()).is_safe_to_sign(at(3 * 3600 - 1)));
    assert!(dates.at(at(3 * 3600), &policy()).is_safe_to_sign(at(3 * 3600)));
    let later = Dates { valid_from: Some(at(4 * 3600)), ..dates };
    assert_eq!(later.at(at(0), &policy()).safe_to_sign_from, Some(at(4 * 3600)));
    let late = Dates { valid_from: Some(at(0)), first_published: None, ..dates };
    assert_eq!(late.at(at(3600), &policy()).safe_to_sign_from, Some(at(4 * 3600)));
    // Nothing else happens to that key, and whoever waits for its next date is woken for this one.
    assert_eq!(state.next_change, Some(at(3 * 3600)));
}

#[test]
fn the_newest_key_signs_once_it_is_safe_and_the_longest_published_one_until_then() {
    let kids = ["old", "new"].map(|kid| Kid::new(kid).unwrap());
    let old = Dates { first_published: Some(at(0)), ..Dates::default() };
    let new = Dates { first_published: Some(at(HOUR_I * 10)), ..Dates::default() };
    let choose = |seconds: i64, new_has_private: bool| {
        let candidates = [(&kids[0], &old, true), (&kids[1], &new, new_has_private)];
        let candidates =
            candidates.map(|(kid, dates, can_sign)| Candidate { kid, dates, can_sign }).into_iter();
        current(candidates, at(seconds), &policy()).unwrap().as_str().to_owned()
    };
    assert_eq!(choose(HOUR_I, true), "old", "neither is safe, the old one longer published");
    assert_eq!(choose(HOUR_I * 13 - 1, true), "old", "the new one is not safe yet");
    assert_eq!(choose(HOUR_I * 13, true), "new");
    assert_eq!(choose(HOUR_I * 13, false), "old", "a public half can't sign");
    let seen = Dates::default();
    let candidates = [(&kids[0], &seen), (&kids[1], &new)];
    let candidates = candidates.map(|(kid, dates)| Candidate { kid, dates, can_sign: true });
    let signs = current(candidates.into_iter(), at(HOUR_I * 11), &policy()).unwrap();
    assert_eq!(signs.as_str(), "new", "one that was not published yet can't be longer than others");
}

#[test]
fn a_clock_that_ran_ahead_does_not_keep_a_lost_key_alive() {
    // The loss was noticed while the clock ran a year ahead.
    let year = 365 * 86_400;
    let loss = End::noticed(at(year), secs(100));
    let seen = loss.observed_at(at(0));
    let dates = |loss| Dates { loss: Some(loss), ..Dates::default() };
    assert_eq!(phase(&dates(seen), 0), Phase::Grace);
    assert_eq!(phase(&dates(seen), 99), Phase::Grace);
    assert_eq!(phase(&dates(seen), 100), Phase::Retired);
    // And it does not come back when that year is over.
    let settled = seen.observed_at(at(100));
    assert_eq!(phase(&dates(settled), year), Phase::Retired);
}

#[test]
fn an_end_that_was_reached_does_not_go_back_with_the_clock() {
    // Ordered while the clock was an hour ahead.
    let order = End::planned(at(HOUR_I), secs(0)).observed_at(at(HOUR_I));
    assert!(order.is_reached);
    let corrected = order.observed_at(at(0));
    let dates = Dates { order: Some(corrected), ..Dates::default() };
    for seconds in [0, 1, HOUR_I, 2 * HOUR_I] {
        assert_eq!(phase(&dates, seconds), Phase::Retired);
    }
    // One that was not reached is a plan, and moves with the clock.
    let plan = End::planned(at(HOUR_I), secs(0)).observed_at(at(0));
    let dates = Dates { order: Some(plan), ..Dates::default() };
    assert_eq!(phase(&dates, HOUR_I - 1), Phase::Active);
}

#[test]
fn the_earliest_end_of_the_publication_wins_and_the_first_end_stops_signing() {
    let dates = Dates {
        order: Some(End::planned(at(10), secs(8 * HOUR))),
        declaration: Some(End::planned(at(20), secs(HOUR))),
        ..Dates::default()
    };
    assert_eq!(phase(&dates, 9), Phase::Active);
    assert_eq!(phase(&dates, 10), Phase::Grace);
    assert_eq!(phase(&dates, 20 + HOUR_I - 1), Phase::Grace);
    assert_eq!(phase(&dates, 20 + HOUR_I), Phase::Retired);
    assert_eq!(dates.invalidated_at(), Some(at(10)));
}

#[test]
fn a_key_signs_until_its_last_token_expires_with_it() {
    let valid_to = at(10 * HOUR_I);
    let dates = Dates { valid_to: Some(valid_to), ..Dates::default() };
    assert_eq!(dates.sign_until(&policy()), Some(at(9 * HOUR_I - 300)));
    let order = Some(End::planned(at(5), secs(0)));
    assert_eq!(Dates { order, ..dates }.sign_until(&policy()), Some(at(5)));
    assert_eq!(Dates::default().sign_until(&policy()), None);
}

/// What signs at an instant, of keys by their kid, `validFrom`, `validTo` and first publication.
fn signer(keys: &[(&str, Option<i64>, Option<i64>, i64)], seconds: i64) -> Option<String> {
    let dated: Vec<(Kid, Dates)> = keys
        .iter()
        .map(|(kid, from, to, published)| {
            let [valid_from, valid_to] = [from, to].map(|date| date.map(at));
            let first_published = Some(at(*published));
            let dates = Dates { valid_from, valid_to, first_published, ..Dates::default() };
            (Kid::new(kid).unwrap(), dates)
        })
        .collect();
    let candidates = dated.iter().map(|(kid, dates)| Candidate { kid, dates, can_sign: true });
    current(candidates, at(seconds), &policy()).map(ToString::to_string)
}

#[test]
fn a_safe_standby_signs_from_sign_until_on_and_else_the_key_itself_to_its_end() {
    let ends = 20 * HOUR_I;
    let late = ends - HOUR_I - 300;
    let expiring = ("a", Some(0), Some(ends), 0);
    let standby = ("b", Some(-HOUR_I), None, 0);
    assert_eq!(signer(&[expiring, standby], late - 1).as_deref(), Some("a"));
    assert_eq!(signer(&[expiring, standby], late).as_deref(), Some("b"));
    let fresh = ("c", None, None, late);
    assert_eq!(signer(&[expiring, fresh], ends - 1).as_deref(), Some("a"), "consumers lack c");
    assert_eq!(signer(&[expiring, fresh], ends).as_deref(), Some("c"));
}

#[test]
fn on_a_fresh_ledger_the_key_that_everybody_has_signs() {
    let old = ("old", Some(-30 * 24 * HOUR_I), None, 0);
    let new = ("new", Some(-60), None, 0);
    assert_eq!(signer(&[new, old], 1).as_deref(), Some("old"));
    assert_eq!(signer(&[new, old], 3 * HOUR_I - 1).as_deref(), Some("old"));
    assert_eq!(signer(&[new, old], 3 * HOUR_I).as_deref(), Some("new"));
}

prop_compose! {
    fn instants()(seconds in -2_000_000_i64..2_000_000) -> Timestamp { at(seconds) }
}

prop_compose! {
    fn planned_ends()(at in instants(), grace in 0_u64..500_000) -> End {
        End::planned(at, secs(grace))
    }
}

prop_compose! {
    fn losses()(
        loss_at in instants(), grace in 0_u64..500_000,
    ) -> End {
        End::noticed(loss_at, secs(grace))
    }
}

prop_compose! {
    fn any_dates()(
        valid_from in prop::option::of(instants()),
        length in prop::option::of(1_u64..3_000_000),
        order in prop::option::of(planned_ends()),
        succession in prop::option::weighted(0.2, planned_ends()),
        declaration in prop::option::weighted(0.3, planned_ends()),
        loss in prop::option::weighted(0.3, losses()),
        first_published in prop::option::of(instants()),
        deleted_at in prop::option::weighted(0.1, instants()),
    ) -> Dates {
        let valid_to = length.map(|length| after(valid_from.unwrap_or(at(0)), secs(length)));
        Dates {
            valid_from, valid_to, order, succession, declaration, loss, first_published, deleted_at,
        }
    }
}

prop_compose! {
    fn policies()(
        announce in 0_u64..200_000, propagation in 0_u64..50_000, token_lifetime in 0_u64..50_000,
        clock_skew in 0_u64..1_000,
    ) -> Policy {
        Policy {
            announce: secs(announce),
            propagation: secs(propagation),
            token_lifetime: secs(token_lifetime),
            clock_skew: secs(clock_skew),
            default_grace: secs(token_lifetime + clock_skew + 120),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2048,
        max_global_rejects: 100_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Never too short: whoever signs while a key may sign gets tokens that verify until they
    /// expire, where the grace is at least as long as tokens live and nothing else ends the key.
    #[test]
    fn a_token_signed_by_the_rules_verifies_until_it_expires(
        dates in any_dates(), policy in policies(), signed in instants(), age in 0.0_f64..1.0,
    ) {
        let lives = policy.token_lifetime + policy.clock_skew;
        let enough = |grace: Duration| grace >= lives;
        let ends = [dates.order, dates.succession, dates.declaration];
        prop_assume!(ends.into_iter().flatten().all(|end| enough(end.grace)));
        // Of two ends the later one cuts the grace of the earlier one only where that is longer.
        prop_assume!(ends.into_iter().flatten().count() <= 1);
        prop_assume!(dates.loss.is_none() && dates.deleted_at.is_none());
        prop_assume!(dates.at(signed, &policy).phase == Phase::Active);
        let verified = after(signed, lives.mul_f64(age));
        // A signer does not issue tokens that outlive the key's own validTo.
        prop_assume!(dates.valid_to.is_none_or(|to| verified < to));
        prop_assert!(dates.at(verified, &policy).phase.is_published() || verified == after(signed, lives));
    }

    /// Never too short, for keys whose files vanish at a time when they may sign.
    #[test]
    fn a_lost_key_stays_published_for_its_whole_grace(
        dates in any_dates(), policy in policies(), lost in instants(), share in 0.0_f64..1.0,
    ) {
        prop_assume!(dates.deleted_at.is_none());
        let dates = Dates { order: None, succession: None, declaration: None, loss: None, ..dates };
        prop_assume!(dates.at(lost, &policy).phase == Phase::Active);
        let grace = policy.default_grace;
        let loss = Some(End::noticed(lost, grace));
        let instant = after(lost, grace.mul_f64(share * 0.999));
        prop_assume!(dates.valid_to.is_none_or(|to| instant < to));
        let state = Dates { loss, ..dates }.at(instant, &policy);
        prop_assert_eq!(state.phase, Phase::Grace);
    }

    /// Never too long: nothing is published from its end on.
    #[test]
    fn nothing_is_published_after_its_publication_end(
        dates in any_dates(), policy in policies(), instant in instants(),
    ) {
        let state = dates.at(instant, &policy);
        if state.published_until.is_some_and(|until| until <= instant) {
            prop_assert!(!state.phase.is_published());
        }
        if dates.deleted_at.is_some() {
            prop_assert!(!state.phase.is_published());
        }
    }

    /// Once it ended, it does not come back as time goes on.
    #[test]
    fn an_ended_key_stays_ended(
        dates in any_dates(), policy in policies(), instant in instants(), later in 0_u64..5_000_000,
    ) {
        let observed = |end: Option<End>| end.map(|end| end.observed_at(instant));
        let dates = Dates { order: observed(dates.order), loss: observed(dates.loss), ..dates };
        let ended = |phase| matches!(phase, Phase::Retired | Phase::Expired | Phase::Deleted);
        prop_assume!(ended(dates.at(instant, &policy).phase));
        prop_assert!(ended(dates.at(after(instant, secs(later)), &policy).phase));
    }

    /// Evaluating between two changes changes nothing, and `next_change` misses none.
    #[test]
    fn nothing_changes_before_the_next_change(
        dates in any_dates(), policy in policies(), instant in instants(), share in 0.0_f64..1.0,
    ) {
        let state = dates.at(instant, &policy);
        // As long as a key that is due is not published, it is safe later and later.
        prop_assume!(dates.first_published.is_some() || state.phase == Phase::Scheduled);
        let horizon = state.next_change.unwrap_or_else(|| after(instant, secs(10_000_000)));
        prop_assert!(instant < horizon);
        let span = Duration::try_from(instant.duration_until(horizon)).unwrap();
        let between = after(instant, span.mul_f64(share)).min(before(horizon, Duration::from_nanos(1)));
        let then = dates.at(between, &policy);
        prop_assert_eq!(then, state);
    }

    /// No invalidation, repeated or not, and no loss ever extends a publication.
    #[test]
    fn no_invalidation_extends_a_publication(
        dates in any_dates(), policy in policies(), end in planned_ends(), loss in losses(),
        instant in instants(),
    ) {
        let until = |dates: &Dates| {
            dates.at(instant, &policy).published_until.unwrap_or(Timestamp::MAX)
        };
        let ordered = dates.order.map_or(end, |order| order.and(end));
        let ordered = Dates { order: Some(ordered), ..dates };
        prop_assert!(until(&ordered) <= until(&dates));
        if dates.declaration.is_none() {
            let declared = Dates { declaration: Some(end), ..dates };
            prop_assert!(until(&declared) <= until(&dates));
        }
        if dates.loss.is_none() {
            let lost = Dates { loss: Some(loss), ..dates };
            prop_assert!(until(&lost) <= until(&dates));
        }
    }

    /// Whatever the clock does: from the last look on, a key is published for its grace at most on
    /// any clock that runs forward, and while the clock only runs forward nothing is taken away.
    #[test]
    fn a_loss_outlives_no_step_of_the_clock(
        loss in losses(), looks in prop::collection::vec(instants(), 1..8),
    ) {
        let mut seen = loss;
        for look in &looks {
            seen = seen.observed_at(*look);
        }
        let last = *looks.last().unwrap();
        prop_assert!(seen.until() <= after(last.max(loss.at), loss.grace));
        prop_assert!(seen.at <= after(last, secs(2)));
        if looks.iter().all(|look| *look >= loss.at) {
            prop_assert_eq!(seen, loss);
        }
    }

    /// There is a signer whenever there is an active key with a private half, and it may sign.
    #[test]
    fn there_is_a_signer_whenever_there_is_an_active_key(
        keys in prop::collection::vec((any_dates(), any::<bool>()), 0..6),
        policy in policies(), instant in instants(),
    ) {
        let kids: Vec<Kid> = (0..keys.len()).map(|n| Kid::new(&format!("k{n}")).unwrap()).collect();
        let candidates: Vec<Candidate<'_>> = kids.iter().zip(&keys)
            .map(|(kid, (dates, can_sign))| Candidate { kid, dates, can_sign: *can_sign })
            .collect();
        let chosen = current(candidates.iter().copied(), instant, &policy);
        let may_sign = |candidate: &&Candidate<'_>| {
            candidate.can_sign && candidate.dates.at(instant, &policy).phase == Phase::Active
        };
        prop_assert_eq!(chosen.is_some(), candidates.iter().any(|candidate| may_sign(&candidate)));
        if let Some(chosen) = chosen {
            let of = |kid: &Kid| candidates.iter().find(|candidate| candidate.kid == kid).unwrap();
            prop_assert!(may_sign(&of(chosen)));
            let good = |c: &Candidate<'_>| {
                let state = c.dates.at(instant, &policy);
                state.is_safe_to_sign(instant) && !state.is_past_sign_until(instant)
            };
            let any_good = candidates.iter().filter(|c| may_sign(c)).any(good);
            prop_assert_eq!(good(of(chosen)), any_good, "a worse key signs only where none is good");
        }
    }
}
