//! Issuing into a Secret that the replicas' key directories are mounted from: whoever tries at the same
//! time, and whatever becomes of them, there is one successor.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jwksd::config::Schedule;
use jwksd::keys::Kid;
use jwksd::keys::lifecycle::{Phase, after};
use jwksd::ledger::fleet::secret::{FileSecret, SecretError, SecretFiles};
use jwksd::ledger::{Ledger, NamedKey, Overview, Record, Records, WarningKind};
use jwksd::operations::schedule::has_ended_files;
use jwksd::operations::{Issue, OperationError, OperationSettings, Operations, Prepared, Start};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{DAY, HOUR, POLICY, World, client, operations_with, plain_issue};
use crate::common::faults::AtomicWriter;

const SCHEDULE: Schedule = Schedule { every: Duration::from_secs(30 * 86_400), algorithm: None };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is written, and the answer is lost.
    Lost,
    /// Nothing is written, and there is no answer.
    Unreached,
    Refused,
    /// The replica that writes dies before, or after.
    DiesBefore,
    DiesAfter,
}

#[derive(Default)]
struct State {
    data: BTreeMap<String, String>,
    version: u64,
    /// How often it was read.
    reads: u64,
    fault: Option<Fault>,
    /// Done by somebody else between a replica's reading and its writing, once.
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
    /// The same after its writing.
    afterwards: Option<Box<dyn FnOnce() + Send>>,
}

/// A Secret, with what may happen to whoever writes it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<State>>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Secret")
    }
}

impl Kept {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn put(&self, name: &str, content: &str) {
        let mut state = self.state();
        state.data.insert(name.to_owned(), content.to_owned());
        state.version += 1;
    }

    /// The stems of its private halves.
    fn pairs(&self) -> BTreeSet<String> {
        let state = self.state();
        let names = state.data.keys().filter_map(|name| name.strip_suffix(".pem"));
        names.map(str::to_owned).collect()
    }

    fn kid_of(&self, stem: &str) -> Kid {
        let state = self.state();
        let attributes: Value =
            serde_json::from_str(&state.data[&format!("{stem}.meta.json")]).unwrap();
        Kid::new(attributes["keyId"].as_str().unwrap()).unwrap()
    }
}

impl FileSecret for Kept {
    fn name(&self) -> &'static str {
        "iam-signing-keys"
    }

    fn read(&self) -> Result<SecretFiles, SecretError> {
        let mut state = self.state();
        state.reads += 1;
        let data = state.data.iter().map(|(name, text)| (name.clone(), STANDARD.encode(text)));
        let data: BTreeMap<String, String> = data.collect();
        let metadata = json!({ "resourceVersion": state.version, "labels": { "kept": "yes" } });
        Ok(SecretFiles::of(json!({ "metadata": metadata, "data": data })))
    }

    fn replace(&self, files: &SecretFiles) -> Result<(), SecretError> {
        let meanwhile = self.state().meanwhile.take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let mut state = self.state();
        let fault = state.fault.take();
        match fault {
            Some(Fault::DiesBefore) => panic!("a replica dies"),
            Some(Fault::Unreached) => return Err(SecretError::Unanswered("away".to_owned())),
            Some(Fault::Refused) => return Err(SecretError::Refused("forbidden".to_owned())),
            _ => {}
        }
        let metadata = &files.object()["metadata"];
        assert_eq!(metadata["labels"]["kept"], "yes");
        if metadata["resourceVersion"] != state.version {
            return Err(SecretError::Conflict);
        }
        let text = |name: &str| String::from_utf8(files.file(name).unwrap().to_vec()).unwrap();
        state.data = files.names().map(|name| (name.to_owned(), text(name))).collect();
        state.version += 1;
        let afterwards = state.afterwards.take();
        drop(state);
        if let Some(afterwards) = afterwards {
            afterwards();
        }
        match fault {
            Some(Fault::DiesAfter) => panic!("a replica dies"),
            Some(Fault::Lost) => Err(SecretError::Unanswered("no answer".to_owned())),
            _ => Ok(()),
        }
    }
}

/// A world whose key directory is a volume of a Secret.
struct Mounted {
    world: World,
    secret: Kept,
    volume: AtomicWriter,
}

impl Mounted {
    /// With a key that has been published and is safe to sign with.
    fn new() -> Self {
        let mut world = World::new();
        let secret = Kept::default();
        world.published_key();
        for file in std::fs::read_dir(world.keys()).unwrap().map(Result::unwrap) {
            let name = file.file_name().into_string().unwrap();
            if file.file_type().unwrap().is_file() {
                // Under a name that a person would give it.
                let (_, ending) = name.split_once('.').unwrap();
                let content = std::fs::read_to_string(file.path()).unwrap();
                secret.put(&format!("old.{ending}"), &content);
                std::fs::remove_file(file.path()).unwrap();
            }
        }
        let volume = AtomicWriter::new(world.keys());
        let mut mounted = Self { world, secret, volume };
        mounted.world.operations = mounted.replica();
        mounted.deliver();
        mounted.world.pass(4 * HOUR);
        mounted
    }

    /// The same where the old key is the other audience's as well, as `h`.
    fn shared_by_two_audiences() -> Self {
        let mut mounted = Self::new();
        let pem = mounted.secret.state().data["old.pem"].clone();
        mounted.secret.put("other.pem", &pem);
        mounted.secret.put("other.meta.json", r#"{"keyId": "h", "audience": "human"}"#);
        mounted.deliver();
        mounted
    }

    fn replica(&self) -> Operations {
        operations_with(self.world.keys(), Some(Arc::new(self.secret.clone())))
    }

    /// What is in the Secret comes with the volume.
    fn deliver(&mut self) {
        let files: Vec<(String, String)> =
            self.secret.state().data.iter().map(|(n, c)| (n.clone(), c.clone())).collect();
        let files: Vec<(&str, String)> =
            files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect();
        self.volume.write(&files);
        self.world.look();
    }

    /// Until the key has signed for nearly as long as it is to.
    fn becomes_due(&mut self) {
        self.world.pass(29 * DAY + 18 * HOUR);
    }

    fn rotate(&mut self) -> Result<Option<Kid>, OperationError> {
        let now = self.world.now;
        let rotated = self.world.operations.rotate_if_due(&client(), SCHEDULE, now)?;
        Ok(rotated.map(|issued| issued.key.key_id))
    }

    /// A replica that may die of it.
    fn try_to_rotate(&mut self) {
        let mut replica = self.replica();
        let now = self.world.now;
        let tried = AssertUnwindSafe(|| replica.rotate_if_due(&client(), SCHEDULE, now));
        let _ = catch_unwind(tried);
    }

    /// The only pair beside the old one, whose successor it is to be.
    fn only_successor(&mut self) -> Kid {
        let pairs: Vec<String> =
            self.secret.pairs().into_iter().filter(|stem| stem != "old").collect();
        let [stem] = &pairs[..] else { panic!("{pairs:?}") };
        let old = self.secret.kid_of("old");
        let thumbprint = self.world.record(&old).public_key.thumbprint();
        assert_eq!(*stem, format!("client-after-{thumbprint}"));
        let kid = self.secret.kid_of(stem);
        let succession = self.world.record(&old).orders.succession.clone().unwrap();
        assert_eq!(succession.name.kid, kid);
        kid
    }

    /// The pair comes, takes over when it is safe, and the key before it ends then.
    fn assert_carried_out(mut self) {
        let (old, new) = (self.secret.kid_of("old"), self.only_successor());
        assert_eq!(self.world.current_at(self.world.now), Some(old.clone()));
        self.deliver();
        assert_eq!(self.rotate().unwrap(), None);
        self.world.pass(POLICY.propagation + 2 * HOUR);
        assert_eq!(self.world.current_at(self.world.now), Some(new.clone()));
        assert_eq!(self.world.dates(&old).at(self.world.now, &POLICY).phase, Phase::Grace);
        assert_eq!(self.only_successor_now(), new);
    }

    fn only_successor_now(&self) -> Kid {
        let pairs = self.secret.pairs();
        assert_eq!(pairs.len(), 2, "{pairs:?}");
        self.secret.kid_of(pairs.iter().find(|stem| *stem != "old").unwrap())
    }
}

#[test]
fn a_scheduled_rotation_adds_a_pair_to_the_secret_and_writes_nothing_here() {
    let mut mounted = Mounted::new();
    assert_eq!(mounted.rotate().unwrap(), None, "it is not due");
    mounted.becomes_due();
    let issued = mounted.rotate().unwrap().unwrap();
    assert_eq!(mounted.only_successor(), issued);
    assert!(!mounted.world.is_published(&issued), "no volume has brought it yet");
    assert_eq!(mounted.rotate().unwrap(), None, "it is on its way");
    mounted.assert_carried_out();
}

#[test]
fn whoever_is_overtaken_goes_on_with_the_pair_of_the_other() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    let (mut other, now) = (mounted.replica(), mounted.world.now);
    mounted.secret.state().meanwhile = Some(Box::new(move || {
        assert!(other.rotate_if_due(&client(), SCHEDULE, now).unwrap().is_some());
    }));
    mounted.rotate().unwrap();
    mounted.assert_carried_out();
}

#[test]
fn a_pair_that_no_volume_has_brought_is_the_successor_whichever_key_it_follows() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    let issued = mounted.rotate().unwrap().unwrap();
    // A key comes that another replica did not know of, and that is due at once.
    let pem = jwksd::operations::generate(jwksd::keys::Algorithm::EdDSA, 2048).unwrap();
    mounted.secret.put("other.pem", &pem);
    let from = mounted.world.now - jiff::SignedDuration::from_hours(24 * 28);
    let attributes = format!(r#"{{"keyId": "other", "validFrom": "{from}"}}"#);
    mounted.secret.put("other.meta.json", &attributes);
    let files = mounted.secret.state().data.clone().into_iter();
    let files: Vec<(String, String)> =
        files.filter(|(name, _)| !name.contains("-after-")).collect();
    mounted.volume.write_in_steps(&files, |_| {});
    mounted.world.look();
    mounted.world.pass(3 * DAY);
    assert_eq!(mounted.world.current_at(mounted.world.now), Some(Kid::new("other").unwrap()));
    mounted.rotate().unwrap();
    let pairs = mounted.secret.pairs();
    let followers: Vec<&String> = pairs.iter().filter(|stem| stem.contains("-after-")).collect();
    assert_eq!(followers.len(), 1, "{pairs:?}");
    let succession = mounted.world.record(&Kid::new("other").unwrap()).orders.succession.clone();
    assert_eq!(succession.unwrap().name.kid, issued);
}

#[test]
fn what_somebody_writes_into_the_secret_meanwhile_stays() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    let secret = mounted.secret.clone();
    mounted.secret.state().meanwhile = Some(Box::new(move || secret.put("note.txt", "mine")));
    assert!(mounted.rotate().unwrap().is_some());
    assert_eq!(mounted.secret.state().data["note.txt"], "mine");
    mounted.assert_carried_out();
}

#[test]
fn wherever_a_replica_dies_there_is_one_successor() {
    for fault in [Fault::DiesBefore, Fault::DiesAfter] {
        let mut mounted = Mounted::new();
        mounted.becomes_due();
        mounted.secret.state().fault = Some(fault);
        mounted.try_to_rotate();
        mounted.try_to_rotate();
        mounted.assert_carried_out();
    }
}

#[test]
fn a_lost_answer_is_no_second_key() {
    for fault in [Fault::Lost, Fault::Unreached] {
        let mut mounted = Mounted::new();
        mounted.becomes_due();
        mounted.secret.state().fault = Some(fault);
        let issued = mounted.rotate().unwrap().unwrap();
        assert_eq!(mounted.only_successor(), issued, "{fault:?}");
        mounted.assert_carried_out();
    }
}

#[test]
fn what_is_refused_changes_nothing_and_is_said() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    mounted.secret.state().fault = Some(Fault::Refused);
    let refusal = mounted.rotate().unwrap_err();
    assert_eq!(refusal.code(), "SIGNING_SECRET_UNAVAILABLE");
    assert!(refusal.to_string().contains("iam-signing-keys"), "{refusal}");
    let old = mounted.secret.kid_of("old");
    assert_eq!(mounted.world.record(&old).orders.succession, None);
    assert_eq!(mounted.secret.pairs().len(), 1);
    // The next try does it.
    assert!(mounted.rotate().unwrap().is_some());
    mounted.assert_carried_out();
}

#[test]
fn a_successor_that_was_deleted_gets_one_in_its_place() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    let first = mounted.rotate().unwrap().unwrap();
    mounted.deliver();
    mounted.world.operations.delete(&first, mounted.world.now).unwrap();
    assert_eq!(mounted.secret.pairs(), ["old".to_owned()].into(), "its files went from the Secret");
    let second = mounted.rotate().unwrap().unwrap();
    assert_ne!(first, second);
    mounted.assert_carried_out();
}

#[test]
fn a_command_issues_into_the_secret_too_and_each_time_anew() {
    let mut mounted = Mounted::new();
    let old = mounted.secret.kid_of("old");
    let request = Issue { replaces: Some(HOUR), ..plain_issue() };
    mounted.secret.state().fault = Some(Fault::Refused);
    mounted.world.issue(request.clone()).unwrap_err();
    let now = mounted.world.now;
    assert_eq!(
        mounted.world.dates(&old).at(now, &POLICY).phase,
        Phase::Active,
        "nothing is ordered"
    );
    mounted.secret.state().fault = Some(Fault::Lost);
    let issued = mounted.world.issue(request).unwrap();
    assert!(issued.notes.iter().any(|note| note.contains("Secret iam-signing-keys")));
    assert_eq!(mounted.only_successor_now(), issued.key.key_id);
    assert_eq!(mounted.world.dates(&old).at(now, &POLICY).phase, Phase::Grace);
    mounted.world.issue(plain_issue()).unwrap();
    assert_eq!(mounted.secret.pairs().len(), 3);
}

#[test]
fn of_replicas_that_start_with_an_empty_secret_one_issues_the_first_key() {
    let world = World::new();
    let secret = Kept::default();
    let replica = || operations_with(world.keys(), Some(Arc::new(secret.clone())));
    let (mut one, mut other, now) = (replica(), replica(), world.now);
    let issue = move |operations: &mut Operations| {
        let request = Issue { start: Start::Now, again: false, ..plain_issue() };
        let prepared = Prepared::new(request, operations.terms(), now).unwrap();
        operations.issue_first(&prepared, now).unwrap().is_some()
    };
    secret.state().meanwhile = Some(Box::new(move || assert!(issue(&mut other))));
    assert!(!issue(&mut one));
    assert_eq!(secret.pairs(), ["client-first".to_owned()].into());
}

/// What is in the Secret comes with the volume, and nobody has looked yet.
fn bring(keys: &std::path::Path, secret: &Kept) {
    let state = secret.state();
    for (name, content) in &state.data {
        std::fs::write(keys.join("..data").join(name), content).unwrap();
        let link = keys.join(name);
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(std::path::Path::new("..data").join(name), link).unwrap();
        }
    }
}

fn rotation() -> Issue {
    let replaces = Some(POLICY.default_grace);
    Issue { start: Start::WhenSafe, replaces, again: false, ..plain_issue() }
}

#[test]
fn a_volume_may_be_quicker_than_an_answer_that_is_lost() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    let (keys, secret) = (mounted.world.keys().to_owned(), mounted.secret.clone());
    mounted.secret.state().fault = Some(Fault::Lost);
    mounted.secret.state().afterwards = Some(Box::new(move || bring(&keys, &secret)));
    assert!(mounted.rotate().unwrap().is_some());
    mounted.assert_carried_out();
}

/// A rotation whose order is that of a replica that died before it wrote its pair, and the pair of another
/// one that has come.
fn rotated_by_two_of_which_one_died() -> (Mounted, Kid) {
    for _ in 0..50 {
        let mut mounted = Mounted::new();
        mounted.becomes_due();
        // One replica orders, and dies before it tells anybody or writes; its disk stays.
        let disk = tempfile::tempdir().unwrap();
        let records = mounted.world.records();
        Ledger::new(Some(disk.path().to_path_buf())).update(|_| (records.clone(), ()));
        let terms = OperationSettings {
            state: Arc::from(disk.path()),
            ..OperationSettings::clone(mounted.world.operations.terms())
        };
        let mut dying = Operations::new(Arc::new(terms), super::scanner(mounted.world.keys()));
        mounted.secret.state().fault = Some(Fault::DiesBefore);
        let now = mounted.world.now;
        let tried = AssertUnwindSafe(|| dying.rotate_if_due(&client(), SCHEDULE, now));
        assert!(catch_unwind(tried).is_err());
        // Another one goes on, and its pair comes.
        let written = mounted.rotate().unwrap().unwrap();
        mounted.deliver();
        // The first one is back, and the ledgers are joined: of two orders with one number either may win.
        let mut disk = Ledger::new(Some(disk.path().to_path_buf()));
        let theirs = disk.update(|records| (records.clone(), records.clone()));
        mounted.world.ledger.update(|records| {
            let mut joined = records.clone();
            for (key, theirs) in &theirs {
                if let Some(mine) = joined.get_mut(key) {
                    *mine = mine.joined_with(theirs);
                }
            }
            (joined, ())
        });
        let old = mounted.secret.kid_of("old");
        if mounted.world.record(&old).orders.succession.clone().unwrap().name.kid != written {
            return (mounted, written);
        }
    }
    panic!("the order of the dead one never wins");
}

#[test]
fn an_order_for_a_pair_that_was_never_written_gives_way_to_the_one_that_was() {
    let (mut mounted, _) = rotated_by_two_of_which_one_died();
    assert_eq!(mounted.rotate().unwrap(), None);
    mounted.assert_carried_out();
}

#[test]
fn a_rotation_by_hand_goes_on_with_the_pair_that_was_written() {
    let (mut mounted, _) = rotated_by_two_of_which_one_died();
    let _ = mounted.world.issue(rotation());
    mounted.assert_carried_out();
}

#[test]
fn an_order_for_a_pair_that_was_never_written_does_not_give_way_to_one_that_has_ended() {
    let (mut mounted, written) = rotated_by_two_of_which_one_died();
    mounted.world.operations.invalidate(&written, HOUR, mounted.world.now).unwrap();
    mounted.world.look();
    let another = mounted.rotate().unwrap();
    assert!(another.is_some_and(|kid| kid != written));
}

#[test]
fn keys_that_end_at_once_leave_a_gap_that_is_told() {
    let mut mounted = Mounted::new();
    let state = mounted.world.state();
    mounted.secret.state().meanwhile = Some(Box::new(move || {
        let ledger = jwksd::ledger::store::Store::open(&state).unwrap();
        ledger
            .lock(Duration::from_millis(100))
            .expect("nobody waits for the Secret under the lock");
    }));
    let now = Issue { replaces: Some(Duration::ZERO), again: false, ..plain_issue() };
    let issued = mounted.world.issue(now).unwrap();
    let gap =
        "has no key to sign with from 2026-11-01T04:00:00Z on, until a replica's volume brings";
    let warnings = &issued.key.warnings;
    assert!(warnings.iter().any(|warning| warning.contains(gap)), "{warnings:?}");
}

#[test]
fn a_second_rotation_waits_for_the_pair_of_the_first_whatever_that_is_called() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    let issued = mounted.world.issue(Issue { again: true, ..rotation() }).unwrap().key.key_id;
    assert_eq!(mounted.rotate().unwrap(), None);
    let refusal = mounted.world.issue(rotation()).unwrap_err();
    assert_eq!(refusal.code(), "ROTATION_PLANNED");
    assert_eq!(mounted.only_successor_now(), issued);
    // In this volume it is not, though others have it.
    mounted.deliver();
    let files = mounted.secret.state().data.clone().into_iter();
    let files: Vec<(String, String)> = files.filter(|(name, _)| name.starts_with("old")).collect();
    mounted.volume.write_in_steps(&files, |_| {});
    let new = mounted.world.record(&issued).public_key.thumbprint();
    mounted.world.ledger.update(|records| {
        let mut records = records.clone();
        let record = Arc::make_mut(records.get_mut(&new).unwrap());
        record.places.clear();
        (records, ())
    });
    assert_eq!(mounted.rotate().unwrap(), None);
    assert_eq!(mounted.world.issue(rotation()).unwrap_err().code(), "ROTATION_PLANNED");
    assert_eq!(mounted.only_successor_now(), issued);
}

#[test]
fn a_kid_that_is_in_the_secret_is_taken_though_no_volume_has_brought_it() {
    let mut mounted = Mounted::new();
    let request = Issue { kid: Some(Kid::new("x").unwrap()), ..plain_issue() };
    mounted.world.issue(request.clone()).unwrap();
    assert_eq!(mounted.world.issue(request).unwrap_err().code(), "KEY_ID_TAKEN");
    assert_eq!(mounted.secret.pairs().len(), 2);
}

#[test]
fn a_deletion_that_the_secret_refuses_is_made_good() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    let issued = mounted.rotate().unwrap().unwrap();
    mounted.deliver();
    mounted.secret.state().fault = Some(Fault::Refused);
    let deleted = mounted.world.operations.delete(&issued, mounted.world.now).unwrap();
    let warnings = &deleted.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("stay in the Secret")), "{warnings:?}");
    // A dead key is no successor, wherever its files lie.
    let second = mounted.rotate().unwrap().unwrap();
    assert_ne!(second, issued);
    assert_eq!(mounted.secret.pairs().len(), 3);
    let terms = Arc::clone(mounted.world.operations.terms());
    assert!(has_ended_files(&mounted.world.records(), mounted.world.now, &terms));
    mounted.secret.state().fault = Some(Fault::Lost);
    let removed = mounted.world.operations.remove_ended(mounted.world.now).unwrap();
    assert_eq!(removed.len(), 1, "{removed:?}");
    assert_eq!(mounted.only_successor_now(), second);
}

#[test]
fn a_pair_that_nobody_can_take_over_is_told_and_gives_way() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    let issued = mounted.rotate().unwrap().unwrap();
    assert_eq!(mounted.rotate().unwrap(), None);
    // No volume brings it.
    mounted.world.pass(POLICY.propagation + HOUR);
    let refusal = mounted.rotate().unwrap_err();
    assert_eq!(refusal.code(), "SUCCESSOR_NOT_DELIVERED");
    assert!(refusal.to_string().contains(issued.as_str()), "{refusal}");
    // Somebody makes it another audience's.
    let stem = mounted.secret.pairs().into_iter().find(|stem| stem != "old").unwrap();
    let name = format!("{stem}.meta.json");
    let edited = mounted.secret.state().data[&name].replace("client", "human");
    mounted.secret.put(&name, &edited);
    let another = mounted.rotate().unwrap().unwrap();
    assert_eq!(mounted.secret.kid_of(&format!("{stem}-2")), another);
}

#[test]
fn a_key_of_two_audiences_gets_one_successor_in_each() {
    let mut mounted = Mounted::shared_by_two_audiences();
    mounted.becomes_due();
    mounted.world.pass(4 * HOUR);
    let now = mounted.world.now;
    let mut issued = 0;
    for audience in [client(), super::human()].iter().cycle().take(8) {
        let rotated = mounted.world.operations.rotate_if_due(audience, SCHEDULE, now).unwrap();
        issued += usize::from(rotated.is_some());
    }
    assert_eq!((issued, mounted.secret.pairs().len()), (2, 4));
    // Delivered, they are no reason to order anything else.
    mounted.deliver();
    let old = Kid::new("h").unwrap();
    let ordered = mounted.world.record(&old).orders.number;
    let reads = mounted.secret.state().reads;
    for audience in [client(), super::human()].iter().cycle().take(8) {
        let rotated = mounted.world.operations.rotate_if_due(audience, SCHEDULE, now).unwrap();
        assert!(rotated.is_none());
        mounted.world.look();
    }
    assert_eq!(mounted.world.record(&old).orders.number, ordered);
    assert_eq!(mounted.secret.state().reads, reads, "there is nothing to set right");
}

#[test]
fn rotations_by_hand_of_a_key_of_two_audiences_do_not_take_its_successor_from_each_other() {
    let mut mounted = Mounted::shared_by_two_audiences();
    mounted.world.pass(4 * HOUR);
    for audience in [client(), super::human()] {
        mounted.world.issue(Issue { audience, ..rotation() }).unwrap();
    }
    let old = Kid::new("h").unwrap();
    let ordered = mounted.world.record(&old).orders.number;
    for audience in [client(), super::human(), client(), super::human()] {
        let refusal = mounted.world.issue(Issue { audience, ..rotation() }).unwrap_err();
        assert_eq!(refusal.code(), "ROTATION_PLANNED");
    }
    assert_eq!(mounted.world.record(&old).orders.number, ordered);
}

#[test]
fn a_successor_that_was_ended_is_no_successor_though_it_lies_there() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    let first = mounted.rotate().unwrap().unwrap();
    mounted.deliver();
    mounted.world.operations.invalidate(&first, HOUR, mounted.world.now).unwrap();
    mounted.world.look();
    let second = mounted.rotate().unwrap().unwrap();
    let old = mounted.secret.kid_of("old");
    for _ in 0..3 {
        assert_eq!(mounted.rotate().unwrap(), None);
        let succession = mounted.world.record(&old).orders.succession.clone().unwrap();
        assert_eq!(succession.name.kid, second);
    }
    mounted.deliver();
    mounted.world.pass(POLICY.propagation + 2 * HOUR);
    assert_eq!(mounted.world.current_at(mounted.world.now), Some(second));
    assert_eq!(mounted.world.dates(&old).at(mounted.world.now, &POLICY).phase, Phase::Grace);
}

#[test]
fn what_the_ledger_could_not_take_is_not_written_into_the_secret() {
    let mut mounted = Mounted::new();
    let store = jwksd::ledger::store::Store::open(&mounted.world.state()).unwrap();
    let held = store.lock(Duration::from_secs(1)).unwrap();
    let refusal = mounted.world.issue(Issue { replaces: Some(HOUR), ..plain_issue() });
    assert_eq!(refusal.unwrap_err().code(), "LEDGER_UNAVAILABLE");
    assert_eq!(mounted.secret.pairs().len(), 1);
    drop(held);
}

#[test]
fn a_successor_that_is_on_its_way_to_this_volume_is_no_reason_to_worry() {
    let mut mounted = Mounted::new();
    mounted.becomes_due();
    mounted.rotate().unwrap().unwrap();
    let worries = |records: &Records, now| {
        let warnings = Overview::of(records, now, &POLICY).warnings;
        warnings.iter().any(|warning| warning.kind == WarningKind::SuspendedRotation)
    };
    assert!(!worries(&mounted.world.records(), mounted.world.now));
    mounted.deliver();
    // As a replica has the records whose volume is late.
    let records = mounted.world.records();
    let told = records.iter().map(|(key, record)| {
        let mut record = Record::clone(record);
        if record.places.iter().any(|place| place.slot.stem().contains("after")) {
            record.places.clear();
        }
        if let Some(succession) = &mut Arc::make_mut(&mut record.orders).succession {
            succession.expected = None;
        }
        (*key, Arc::new(record))
    });
    let told: Records = told.collect();
    let now = mounted.world.now;
    assert!(!worries(&told, now));
    assert!(worries(&told, after(now, POLICY.propagation + HOUR)));
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Nothing,
    Fault(Fault),
    /// Another replica rotates between the reading and the writing of this one.
    Overtaken,
    /// Somebody else edits the Secret meanwhile.
    Edited,
    /// The volume is late by a day.
    Late,
}

fn happening() -> impl Strategy<Value = Happening> {
    let faults =
        [Fault::Lost, Fault::Unreached, Fault::Refused, Fault::DiesBefore, Fault::DiesAfter];
    prop_oneof![
        4 => Just(Happening::Nothing),
        5 => prop::sample::select(faults.to_vec()).prop_map(Happening::Fault),
        2 => Just(Happening::Overtaken),
        1 => Just(Happening::Edited),
        1 => Just(Happening::Late),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn for_years_each_key_has_one_successor_and_somebody_is_safe_to_sign(
        looks in prop::collection::vec((happening(), 1..96_u64), 150)
    ) {
        let mut mounted = Mounted::new();
        let begin = mounted.world.now;
        let mut seen = BTreeSet::new();
        for (happening, hours) in looks {
            match happening {
                Happening::Fault(fault) => mounted.secret.state().fault = Some(fault),
                Happening::Overtaken => {
                    let (mut other, now) = (mounted.replica(), mounted.world.now);
                    mounted.secret.state().meanwhile =
                        Some(Box::new(move || drop(other.rotate_if_due(&client(), SCHEDULE, now))));
                }
                Happening::Edited => {
                    let secret = mounted.secret.clone();
                    mounted.secret.state().meanwhile =
                        Some(Box::new(move || secret.put("note.txt", "edited")));
                }
                Happening::Nothing | Happening::Late => {}
            }
            mounted.try_to_rotate();
            mounted.try_to_rotate();
            (mounted.secret.state().fault, mounted.secret.state().meanwhile) = (None, None);
            if !matches!(happening, Happening::Late) {
                mounted.deliver();
            }
            let terms = Arc::clone(mounted.world.operations.terms());
            let records = mounted.world.records();
            if has_ended_files(&records, mounted.world.now, &terms) {
                mounted.world.operations.remove_ended(mounted.world.now).unwrap();
            }
            seen.extend(mounted.secret.pairs());
            let now = mounted.world.now;
            let current = mounted.world.current_at(now).unwrap();
            let dates = mounted.world.dates(&current);
            prop_assert!(dates.at(now, &POLICY).is_safe_to_sign(now), "{current} at {now}");
            let active = NamedKey::all(&records).filter(|named| {
                named.dates().at(now, &POLICY).phase == Phase::Active
            });
            prop_assert!(active.count() <= 2);
            mounted.world.pass(Duration::from_secs(3600 * hours));
        }
        let days = begin.duration_until(mounted.world.now).as_hours() / 24;
        let periods = usize::try_from(days / 30).unwrap() + 2;
        prop_assert!(seen.len() <= periods, "{} in {days} days: {seen:?}", seen.len());
        prop_assert!(seen.len() >= periods / 2, "{} in {days} days", seen.len());
        prop_assert!(mounted.secret.pairs().len() <= 4, "{:?}", mounted.secret.pairs());
    }
}
