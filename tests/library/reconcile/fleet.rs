//! What one replica of a fleet makes of what it sees and of what the others told.

use std::slice;

use jwksd::ledger::dispute::Question;
use jwksd::ledger::dispute::{ClockStanding, FleetContext};
use jwksd::ledger::fleet::{Exchange, Offer, ReplicaId};
use jwksd::ledger::verdict::{Verdict, Verdicts};
use serde_json::{Value, json};

use super::*;

impl World {
    /// Looks as a replica of a fleet, or decides as a command beside one. The records were `known` before
    /// the scan; without that, others have changed them since.
    fn decide(&mut self, fleet: Option<&str>, known: Option<&Records>) -> &KeyName {
        let fleet = fleet.map(ReplicaId::from);
        let context = ReconcileContext {
            now: at(0),
            policy: &self.policy,
            grace_on_removal: secs(GRACE),
            missed_before: &BTreeSet::new(),
            retention: secs(RETENTION),
            max_keys: 1000,
            forgets: false,
            known,
            is_served: fleet.is_some(),
            fleet: fleet.as_ref().map(|replica| FleetContext {
                replica,
                is_heard: true,
                clock: ClockStanding::Right,
            }),
        };
        self.records = reconcile(&self.records, &self.observation, context).records;
        &self.records[&thumbprint(1)].names[0]
    }

    fn look_in_fleet(&mut self) -> &KeyName {
        let known = self.records.clone();
        self.decide(Some("a"), Some(&known))
    }
}

fn until(seconds: i64) -> SeenKey {
    let valid_to = Some(at(seconds));
    SeenKey { declared: Declared { valid_to, ..Declared::default() }, ..seen("k", 1) }
}

#[test]
fn a_command_beside_files_that_are_behind_takes_nothing_back() {
    let mut world = World::default();
    world.put("k", vec![until(DAY)]).look_in_fleet();
    world.put("k", vec![until(2 * DAY)]).look_in_fleet();
    let newest = world.put("k", vec![until(DAY)]).decide(None, None);
    assert_eq!((newest.declared.valid_to, newest.generation), (Some(at(2 * DAY)), 1));
    let newer = world.put("k", vec![until(3 * DAY)]).decide(None, None);
    assert_eq!((newer.declared.valid_to, newer.generation), (Some(at(3 * DAY)), 2));
}

#[test]
fn who_has_just_begun_does_not_decide_alone() {
    let exchange = Exchange::new("a Secret".to_owned(), &ReplicaId::from("a"));
    assert!(exchange.view().is_connected && !exchange.status().is_connected);
}

#[test]
fn a_loss_that_others_told_counts_nowhere_where_the_entry_lies() {
    let mut world = World::default();
    world.put("k", vec![until(DAY)]).look_in_fleet();
    let record = world.records.get_mut(&thumbprint(1)).unwrap();
    let name = &mut Arc::make_mut(record).names[0];
    (name.loss, name.generation) = (Some(End::noticed(at(0), secs(0))), 1);
    let lost = world.records.clone();
    let kept = world.decide(Some("a"), Some(&Records::new()));
    assert_eq!((kept.loss, kept.generation), (None, 2));
    world.records = lost.clone();
    assert!(world.remove("k").decide(Some("a"), Some(&Records::new())).loss.is_some());
    // Nor does it where it is read again, and that is newer than the loss.
    world.records = lost;
    let back = world.put("k", vec![until(DAY)]).look_in_fleet();
    assert_eq!((back.loss, back.generation), (None, 2));
    let noted = back.dispute.as_ref().unwrap().history.values().max();
    assert_eq!(noted, Some(&2), "what it is told apart by later");
}

/// The loss of the only name that is remembered, `generations` later.
fn loss(records: &Records, generations: u64) -> Verdict {
    let mut name = records[&thumbprint(1)].names[0].clone();
    name.loss = Some(End::noticed(at(0), secs(0)));
    name.generation += generations;
    Verdict { key: thumbprint(1), name }
}

#[test]
fn a_verdict_waits_from_when_the_others_could_hear_the_question() {
    let mut world = World::default();
    world.put("k", vec![until(DAY)]).look_in_fleet();
    let told = world.records.clone();
    let verdict = loss(&told, 1);
    let mut verdicts = Verdicts::default();
    let replica = ReplicaId::from("a");
    let judge = |verdicts: &mut Verdicts, shared: &Records, elapsed| {
        let times = (&replica, secs(30), secs(elapsed));
        verdicts.judge(&mut told.clone(), slice::from_ref(&verdict), shared, times).len()
    };
    assert_eq!([0, 1000].map(|elapsed| judge(&mut verdicts, &told, elapsed)), [0, 0]);
    let mut asked = told.clone();
    let name = &mut Arc::make_mut(asked.get_mut(&thumbprint(1)).unwrap()).names[0];
    let question = Question { count: 1, is_open: true, sees_earlier: false };
    name.dispute.as_mut().unwrap().questions.insert("a".into(), question);
    assert_eq!([2000, 2029].map(|elapsed| judge(&mut verdicts, &asked, elapsed)), [0, 0]);
    // What was not heard may have been an objection.
    verdicts.interrupt();
    assert_eq!([2031, 2060].map(|elapsed| judge(&mut verdicts, &asked, elapsed)), [0, 0]);
    assert_eq!(judge(&mut verdicts, &asked, 2061), 1);
    // Another one objects, until it does not see the key either.
    let name = &mut Arc::make_mut(asked.get_mut(&thumbprint(1)).unwrap()).names[0];
    name.dispute.as_mut().unwrap().objections.insert("b".into(), 1);
    assert_eq!([3000, 3031].map(|elapsed| judge(&mut verdicts, &asked, elapsed)), [0, 0]);
    let name = &mut Arc::make_mut(asked.get_mut(&thumbprint(1)).unwrap()).names[0];
    name.dispute.as_mut().unwrap().questions.insert("b".into(), question);
    assert_eq!([4000, 4030].map(|elapsed| judge(&mut verdicts, &asked, elapsed)), [0, 1]);
}

#[test]
fn a_verdict_is_written_on_the_copy_and_the_declaration_that_it_was_made_of() {
    let replica = ReplicaId::from("a");
    let mut world = World::default();
    world.put("k", vec![until(DAY)]).look_in_fleet();
    let records = world.records.clone();
    let exchange = Exchange::new("a Secret".to_owned(), &replica);
    let written = |verdicts: Vec<Verdict>, version: u64| {
        let (records, retention) = (records.clone(), secs(RETENTION));
        let changes = Some(1);
        exchange.offer(Offer { records, changes, verdicts, version, now: at(0), retention });
        exchange.replacement(&replica)
    };
    let hear = |exchange: &Exchange, mut object: Value, version: &str| {
        object["metadata"] = json!({ "resourceVersion": version });
        exchange.heard(object, at(0));
        exchange.view()
    };
    let version = hear(&exchange, json!({}), "1").version;
    let version = hear(&exchange, written(Vec::new(), version).unwrap(), "2").version;
    let loses = |generations: u64, version: u64| {
        let object = written(vec![loss(&records, generations)], version);
        object.is_some_and(|object| {
            let another = Exchange::new("a Secret".to_owned(), &ReplicaId::from("b"));
            let read = hear(&another, object, "3").records;
            read[&thumbprint(1)].names[0].loss.is_some()
        })
    };
    assert!(!loses(2, version), "something else was declared since");
    assert!(!loses(1, version - 1), "something else was told since");
    assert!(loses(1, version));
}

#[test]
fn what_is_declared_anew_is_not_disputed_yet() {
    let mut world = World::default();
    world.put("k", vec![until(DAY)]).look_in_fleet();
    let record = world.records.get_mut(&thumbprint(1)).unwrap();
    let dispute = Arc::make_mut(record).names[0].dispute.as_mut().unwrap();
    dispute.questions.insert("b".into(), Question { count: 1, is_open: true, sees_earlier: false });
    dispute.objections.insert("a".into(), 1);
    let dispute = world.put("k", vec![until(2 * DAY)]).look_in_fleet().dispute.clone().unwrap();
    assert!(dispute.questions.is_empty() && dispute.objections.is_empty());
}
