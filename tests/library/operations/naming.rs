//! Which key an order is about, and that it is about all of its names.

use std::fs;
use std::time::Duration;

use jwksd::keys::Kid;
use jwksd::keys::lifecycle::Phase;
use jwksd::operations::{Issue, OperationError};
use serde_json::json;

use super::{DAY, HOUR, World, client, human, plain_issue};

fn kid(text: &str) -> Kid {
    Kid::new(text).unwrap()
}

/// A key with two kids for clients, and one of them and a third for humans.
fn key_of_four_names(world: &mut World) -> [Kid; 3] {
    let key = world.published_key();
    let file = world.file(&key);
    let put = |file: &std::path::Path, attributes: serde_json::Value| {
        fs::write(file.with_extension("meta.json"), attributes.to_string()).unwrap();
    };
    put(&file, json!({ "keyId": key, "keyIdAliases": ["alias"] }));
    let copy = world.keys().join("copy.pem");
    fs::copy(&file, &copy).unwrap();
    put(&copy, json!({ "keyId": "humans", "keyIdAliases": [key], "audience": "human" }));
    world.look();
    world.look();
    [key, kid("alias"), kid("humans")]
}

#[test]
fn an_order_under_any_name_is_about_all_of_them_and_its_answer_says_so() {
    let mut world = World::new();
    let names = key_of_four_names(&mut world);
    world.pass(DAY);
    for name in &names {
        let answer = world.operations.invalidate(name, 2 * HOUR, world.now).unwrap();
        assert_eq!(answer.key_id, *name, "it is shown as it was asked for");
        let ends = Some(world.now + 2 * HOUR);
        assert_eq!(answer.names.len(), 4);
        for state in &answer.names {
            assert_eq!((state.phase, state.published_until), (Phase::Grace, ends), "{state:?}");
        }
        for audience in [client(), human()] {
            let left = format!("the audience {audience} has no key left to sign with");
            assert!(answer.warnings.iter().any(|warning| warning.contains(&left)), "{left}");
        }
        world.look();
        for other in &names {
            assert_eq!(world.show(other).phase, Phase::Grace);
        }
        // And so is one that takes it back.
        let back = world.operations.reactivate(&names[2], None, None, world.now).unwrap();
        assert!(back.names.iter().all(|state| state.phase == Phase::Active), "{:?}", back.names);
        world.look();
    }
    let before: Vec<_> = world.published_at(world.now).into_iter().collect();
    assert_eq!(before.len(), 3);
    let deleted = world.operations.delete(&names[1], world.now).unwrap();
    assert_eq!(deleted.names.len(), 4);
    world.look();
    assert!(world.published_at(world.now).is_empty());
    for name in &names {
        let refused = world.operations.show(name, world.now);
        assert!(matches!(refused, Err(OperationError::NotFound(_))));
    }
}

#[test]
fn a_list_has_a_line_for_each_name() {
    let mut world = World::new();
    let names = key_of_four_names(&mut world);
    let list = world.operations.list(world.now).unwrap();
    let of = |audience| {
        let of_audience = list.iter().filter(|pair| pair.audience == audience);
        of_audience.map(|pair| pair.key_id.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(of(client()), [names[0].clone(), names[1].clone()].into());
    assert_eq!(of(human()), [names[0].clone(), names[2].clone()].into());
}

#[test]
fn a_beginning_of_six_characters_stands_for_the_only_kid_that_has_it() {
    let mut world = World::new();
    let issue = |world: &mut World, name: &str| {
        world.issue(Issue { kid: Some(kid(name)), ..plain_issue() }).unwrap();
    };
    for name in ["signing-2026-11", "signing-2026-12", "abcdefgh", "abcdef", "short"] {
        issue(&mut world, name);
    }
    world.look();
    let now = world.now;
    let mut shown =
        |text: &str| world.operations.show(&kid(text), now).map(|pair| pair.key_id.to_string());
    assert_eq!(shown("signing-2026-12").unwrap(), "signing-2026-12");
    assert_eq!(shown("abcdefg").unwrap(), "abcdefgh");
    assert_eq!(shown("abcdef").unwrap(), "abcdef", "one that is whole comes first");
    for text in ["abcde", "short-", "shor", "igning-2026-12"] {
        assert!(matches!(shown(text), Err(OperationError::NotFound(_))), "{text}");
    }
    let Err(OperationError::BadRequest { member, why }) = shown("signing-2026-1") else {
        panic!("it is the beginning of two")
    };
    assert_eq!(member, "KID");
    assert!(why.contains("several"), "{why}");
    // Orders go by it too, and what was deleted is in nobody's way.
    let deleted = world.operations.delete(&kid("signing-2026-11"), now).unwrap();
    assert_eq!(deleted.key_id, kid("signing-2026-11"));
    let pair = world.operations.invalidate(&kid("signing-2026"), Duration::ZERO, now).unwrap();
    assert_eq!((pair.key_id, pair.phase), (kid("signing-2026-12"), Phase::Retired));
    let refused = world.operations.delete(&kid("signing-2026-11"), now);
    assert!(matches!(refused, Err(OperationError::NotFound(_))));
}

#[test]
fn the_kid_of_a_deleted_key_stands_for_no_other_one() {
    let mut world = World::new();
    for name in ["client-2026", "client-2026-11"] {
        world.issue(Issue { kid: Some(kid(name)), ..plain_issue() }).unwrap();
    }
    world.look();
    world.operations.delete(&kid("client-2026"), world.now).unwrap();
    // As where the first answer was lost.
    let again = world.operations.delete(&kid("client-2026"), world.now);
    assert!(matches!(again, Err(OperationError::NotFound(_))), "{again:?}");
    assert_eq!(world.show(&kid("client-2026-11")).phase, Phase::Active);
    // Programs name keys by their whole kids.
    let mut operations = super::operations(world.keys()).with_whole_kids();
    let shown = operations.show(&kid("client-2026-1"), world.now);
    assert!(matches!(shown, Err(OperationError::NotFound(_))), "{shown:?}");
}

#[test]
fn who_reactivates_a_name_that_no_entry_declares_any_more_is_told_so() {
    let mut world = World::new();
    let [key, alias, _] = key_of_four_names(&mut world);
    let file = world.file(&key);
    fs::write(file.with_extension("meta.json"), json!({ "keyId": key }).to_string()).unwrap();
    world.look();
    world.look();
    world.operations.invalidate(&key, Duration::ZERO, world.now).unwrap();
    let answer = world.operations.reactivate(&alias, None, None, world.now).unwrap();
    let words = "no entry declares the kid alias any more";
    assert!(answer.warnings.iter().any(|told| told.contains(words)), "{:?}", answer.warnings);
    // An order is about the key, and so about its other names.
    assert_eq!(world.show(&key).phase, Phase::Active);
    let again = world.operations.reactivate(&key, None, None, world.now).unwrap();
    assert!(!again.warnings.iter().any(|told| told.contains("no entry declares")));
}

#[test]
fn a_kid_that_two_audiences_have_is_one_beginning() {
    let mut world = World::new();
    let [key, ..] = key_of_four_names(&mut world);
    let beginning = kid(&key.as_str()[..key.as_str().len() - 1]);
    assert_eq!(world.show(&beginning).key_id, key);
    // Two kids of one key are two: which of them is meant?
    let mut world = World::new();
    let file = {
        let key = world.published_key();
        world.file(&key)
    };
    let names = json!({ "keyId": "orders-a", "keyIdAliases": ["orders-b"] }).to_string();
    fs::write(file.with_extension("meta.json"), names).unwrap();
    world.look();
    let refused = world.operations.show(&kid("orders"), world.now);
    assert!(matches!(refused, Err(OperationError::BadRequest { .. })), "{refused:?}");
}
