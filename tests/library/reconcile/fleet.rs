//! What one replica of a fleet makes of what it sees and of what the others told.

use jwksd::ledger::dispute::Question;
use jwksd::ledger::dispute::{ClockStanding, FleetContext};
use jwksd::ledger::fleet::{Exchange, ReplicaId};

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
    world.records = lost;
    assert!(world.remove("k").decide(Some("a"), Some(&Records::new())).loss.is_some());
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
