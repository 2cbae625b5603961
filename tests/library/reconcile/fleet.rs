//! What one replica of a fleet makes of what it sees and of what the others told.

use jwksd::ledger::fleet::{Exchange, ReplicaId};

#[test]
fn who_has_just_begun_does_not_decide_alone() {
    let exchange = Exchange::new("a Secret".to_owned(), &ReplicaId::from("a"));
    assert!(exchange.view().is_connected && !exchange.status().is_connected);
}
