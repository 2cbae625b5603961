//! What two copies of a record come to, as properties.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jwksd::keys::lifecycle::End;
use jwksd::keys::{Audience, Name};
use jwksd::ledger::dispute::{Dispute, Question};
use jwksd::ledger::{KeyName, NamedKey, Orders, Record};
use jwksd::source::Slot;
use proptest::prelude::*;

use crate::common::keys::{POLICY, kid, seen};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn ends() -> impl Strategy<Value = Option<End>> {
    let end = (0..50_i64, 0..50_u64, any::<bool>());
    let end = end.prop_map(|(from, grace, is_reached)| End {
        is_reached,
        ..End::planned(at(from), Duration::from_secs(grace))
    });
    prop::option::of(end)
}

fn disputes() -> impl Strategy<Value = Option<Box<Dispute>>> {
    let replicas = || prop::sample::select(vec!["x", "y"]).prop_map(Arc::<str>::from);
    let questions =
        prop::collection::btree_map(replicas(), (0..4_u64, any::<bool>(), any::<bool>()), 0..3);
    let objections = prop::collection::btree_map(replicas(), 0..4_u64, 0..3);
    let digests = (0..20_u8).prop_map(|digest| Arc::<str>::from(digest.to_string()));
    let history = prop::collection::btree_map(digests, 0..9_u64, 0..20);
    (questions, objections, history).prop_map(|(questions, objections, history)| {
        let question = |(count, is_open, sees_earlier)| Question { count, is_open, sees_earlier };
        let questions = questions.into_iter().map(|(who, what)| (who, question(what)));
        let dispute = Dispute { questions: questions.collect(), objections, history };
        // As it is kept: the newest sixteen of them.
        let kept = Dispute { history: newest(dispute.history), ..dispute };
        (kept != Dispute::default()).then(|| Box::new(kept))
    })
}

fn newest(history: BTreeMap<Arc<str>, u64>) -> BTreeMap<Arc<str>, u64> {
    let mut entries: Vec<_> = history.into_iter().collect();
    entries.sort_by_key(|(digest, generation)| (*generation, Arc::clone(digest)));
    entries.into_iter().rev().take(16).collect()
}

prop_compose! {
    fn names()(
        name in prop::sample::select(NAMES.to_vec()), generation in 0..3_u64, loss in ends(),
        valid_to in prop::option::of(0..3_i64), seen_at in 0..9_i64,
        published in prop::option::of(0..9_i64), publications in 0..3_u64,
        was_published in any::<bool>(), is_here in any::<bool>(), dispute in disputes(),
    ) -> KeyName {
        let policy = POLICY;
        let slot = Slot::new(Path::new(if is_here { "/keys" } else { "" }).into(), name);
        let record = Record::of_newcomer(&seen(name, 1), &slot, at(seen_at), &policy);
        let mut made = record.names[0].clone();
        made.name = Name { audience: Audience::new("client"), kid: kid(name) };
        made.declared.valid_to = valid_to.map(at);
        (made.generation, made.loss, made.publications) = (generation, loss, publications);
        (made.first_published, made.was_published) = (published.map(at), was_published);
        made.dispute = dispute;
        made
    }
}

prop_compose! {
    /// A copy of a record, somewhere in its life.
    fn copies()(
        names in prop::collection::vec(names(), 0..4), revision in 0..4_u64, has_place in any::<bool>(),
        number in prop::sample::select(vec![0_u64, 1, 2, 10]), back in 0..3_u64, end in ends(), masks in any::<bool>(),
        deleted in prop::option::weighted(0.2, 0..50_i64), first_seen in 0..9_i64,
    ) -> Arc<Record> {
        let slot = Slot::new(Path::new("/keys").into(), "a");
        let mut record = Record::of_newcomer(&seen("a", 1), &slot, at(first_seen), &POLICY);
        let names: BTreeMap<Name, KeyName> =
            names.into_iter().map(|name| (name.name.clone(), name)).collect();
        record.names = names.into_values().collect();
        record.revision = revision;
        if !has_place {
            record.places.clear();
        }
        record.deleted_at = deleted.map(at);
        record.orders = Arc::new(Orders {
            number,
            end_number: number.saturating_sub(back),
            end,
            masked_ends: masks.then(|| at(1)).into_iter().collect(),
            ..Orders::default()
        });
        Arc::new(record)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2048) })]

    #[test]
    fn copies_come_to_the_same_in_any_order_and_number(one in copies(), two in copies(), three in copies()) {
        let both = one.joined_with(&two);
        prop_assert_eq!(&both, &two.joined_with(&one));
        prop_assert_eq!(&both.joined_with(&three), &one.joined_with(&two.joined_with(&three)));
        prop_assert_eq!(&one.joined_with(&one), &one);
        for copy in [&one, &two] {
            prop_assert_eq!(&both.joined_with(copy), &both);
            prop_assert_eq!(&copy.joined_with(&both), &both);
        }
    }

    /// Of what either copy knows to be over, nothing comes back, unless it was taken back later.
    #[test]
    fn nothing_comes_back_that_an_order_or_a_deletion_ended(one in copies(), two in copies()) {
        let both = one.joined_with(&two);
        for copy in [&one, &two] {
            prop_assert!(both.deleted_at <= copy.deleted_at || copy.deleted_at.is_none());
            prop_assert!(both.deleted_at.is_some() || copy.deleted_at.is_none());
            prop_assert!(both.first_seen <= copy.first_seen);
            prop_assert!(both.orders.number >= copy.orders.number);
            prop_assert!(both.orders.end_number >= copy.orders.end_number);
            if let Some(end) = copy.orders.end.filter(|_| both.orders.end_number == copy.orders.end_number) {
                prop_assert!(both.orders.end.is_some_and(|both| both.until() <= end.until()));
            }
            let is_freed = both.deleted_at.is_some() && both.names.is_empty();
            for name in copy.names.iter().filter(|_| !is_freed) {
                let joined = both.name(&name.name).unwrap();
                prop_assert!(joined.generation >= name.generation);
                prop_assert!(joined.was_published || !name.was_published);
                prop_assert!(joined.publications >= name.publications);
                prop_assert!(joined.first_seen <= name.first_seen);
                let known = [&one, &two].into_iter().filter_map(|copy| copy.name(&name.name));
                let latest = known.filter(|known| known.publications == joined.publications);
                let published = latest.filter_map(|known| known.first_published).min();
                prop_assert_eq!(joined.first_published, published, "of the latest stint the earliest");
                let is_tie = joined.generation == name.generation;
                prop_assert!(!is_tie || name.loss.is_some() || joined.loss.is_none(), "present beats lost");
            }
        }
    }
}

#[test]
fn an_order_about_something_else_takes_no_end_back() {
    let slot = Slot::new(Path::new("/keys").into(), "a");
    let record = Record::of_newcomer(&seen("a", 1), &slot, at(0), &POLICY);
    let with = |orders: Orders| Arc::new(Record { orders: Arc::new(orders), ..record.clone() });
    let end = Some(End::planned(at(5), Duration::ZERO));
    let ended = with(Orders { number: 1, end_number: 1, end, ..Orders::default() });
    let other = with(Orders { number: 2, ..Orders::default() });
    assert_eq!(ended.joined_with(&other).orders.end, end);
    let back = with(Orders { number: 2, end_number: 2, ..Orders::default() });
    assert_eq!(ended.joined_with(&back).orders.end, None);
}

#[test]
fn the_ids_of_a_deleted_key_that_were_freed_stay_free() {
    let slot = Slot::new(Path::new("/keys").into(), "a");
    let record = Arc::new(Record::of_newcomer(&seen("a", 1), &slot, at(0), &POLICY));
    let freed = Record { deleted_at: Some(at(3)), names: Vec::new(), ..Record::clone(&record) };
    let freed = Arc::new(freed);
    for joined in [record.joined_with(&freed), freed.joined_with(&record)] {
        assert_eq!((joined.named().count(), joined.deleted_at), (0, Some(at(3))));
        assert!(joined.named().all(|named: NamedKey<'_>| named.key.loss.is_some()));
    }
}

mod shared {
    //! The shared copy as an object, without a server.

    use jwksd::ledger::Records;
    use jwksd::ledger::fleet::object::SharedObject;
    use jwksd::ledger::fleet::{Offer, ReplicaId};
    use serde_json::{Value, json};

    use super::*;

    fn replica(name: &str) -> ReplicaId {
        name.into()
    }

    fn offer(records: Records, now: i64) -> Offer {
        Offer {
            records,
            changes: None,
            verdicts: Vec::new(),
            version: 1,
            now: at(now),
            retention: Duration::from_secs(1000),
        }
    }

    fn records(record: Record) -> Records {
        Records::from([(record.public_key.thumbprint(), Arc::new(record))])
    }

    fn record() -> Record {
        let slot = Slot::new(Path::new("/keys").into(), "a");
        let mut record = Record::of_newcomer(&seen("a", 1), &slot, at(0), &POLICY);
        record.revision = 7;
        record
    }

    fn empty() -> SharedObject {
        let object =
            json!({ "metadata": { "resourceVersion": "1" }, "data": { "other": "a2VwdA==" } });
        SharedObject::read(object, &SharedObject::default())
    }

    fn written(shared: &SharedObject, offer: &Offer) -> Option<Value> {
        shared.with(offer, &replica("x")).map(|replacement| replacement.object)
    }

    #[test]
    fn what_is_told_is_read_again_without_what_one_host_knows_and_told_once() {
        let offer = offer(records(record()), 5);
        let object = written(&empty(), &offer).unwrap();
        assert_eq!(object["data"]["other"], "a2VwdA==");
        assert!(!object.to_string().contains("/keys"));
        let shared = SharedObject::read(object, &empty());
        let told = shared.records.values().next().unwrap();
        assert!(told.places.is_empty());
        assert_eq!(shared.replicas.keys().map(|id| &**id).collect::<Vec<_>>(), ["x"]);
        assert!(written(&shared, &offer).is_none(), "there is nothing new");
    }

    #[test]
    fn a_member_of_a_newer_version_stays_as_it_is_and_a_damaged_one_is_written_anew() {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let key = record().public_key.thumbprint();
        for (member, stays) in
            [(r#"{"format": 99, "checksum": "", "key": 1}"#, true), ("torn", false)]
        {
            let member = STANDARD.encode(member);
            let object = json!({ "data": { format!("key.{key}"): member } });
            let shared = SharedObject::read(object, &SharedObject::default());
            assert_eq!(shared.damaged.len(), 1);
            let object = written(&shared, &offer(records(record()), 5));
            let is_left =
                object.is_none_or(|object| object["data"][format!("key.{key}")] == member);
            assert_eq!(is_left, stays);
        }
    }

    #[test]
    fn what_is_forgotten_is_taken_out_once_and_who_keeps_it_puts_it_back() {
        let mut deleted = record();
        deleted.deleted_at = Some(at(100));
        let shared = SharedObject::read(
            written(&empty(), &offer(records(deleted.clone()), 200)).unwrap(),
            &empty(),
        );
        let late = offer(Records::new(), 1200);
        let gone = SharedObject::read(written(&shared, &late).unwrap(), &shared);
        assert!(gone.records.is_empty());
        // Another replica's file of it lies there still: without the record its key would come back.
        let kept = |now| offer(records(deleted.clone()), now);
        assert!(written(&gone, &kept(1200)).is_none(), "this one may forget it in a moment");
        let back = written(&gone, &kept(1800)).unwrap();
        let back = SharedObject::read(back, &gone);
        assert_eq!(back.records.len(), 1);
        assert!(written(&back, &late).is_none(), "nobody takes it out a second time");
        // What was wiped, and is back before it is over, is taken out in its time.
        let early = offer(records(deleted), 200);
        let wiped = SharedObject::read(json!({}), &shared);
        let mut back = SharedObject::read(written(&wiped, &early).unwrap(), &wiped);
        back.note_returned(&early);
        assert!(written(&back, &late).is_some());
    }

    #[test]
    fn what_there_is_no_space_for_are_those_that_ended_first() {
        let many: Records = (0..=255)
            .flat_map(|number| {
                let mut made = record();
                made.public_key = crate::common::keys::public_key(number);
                made.deleted_at = Some(at(i64::from(number)));
                made.names[0].certificates = vec![vec![0; 4096]];
                records(made)
            })
            .collect();
        let replacement = empty().with(&offer(many, 300), &replica("x")).unwrap();
        assert!(replacement.left_out > 0);
        let shared = SharedObject::read(replacement.object, &empty());
        let earliest = shared.records.values().filter_map(|record| record.deleted_at).min();
        assert_eq!(shared.records.len() + replacement.left_out, 256);
        assert_eq!(earliest, Some(at(i64::try_from(replacement.left_out).unwrap())));
    }
}
