//! Steps that were cut short: every state that a crash can leave behind, and crashes at random.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jwksd::encoding::hex;
use jwksd::keys::Kid;
use jwksd::ledger::step::{KeyFile, Placement};
use jwksd::ledger::{Record, Step, codec, store};
use jwksd::operations::{Issue, OperationError};
use serde_json::Value;

use super::common::daemon::Daemon;
use super::common::keys::named;
use super::{
    HOUR, World, answer, check_ledger, kid_of, leftovers, operations, plain_issue, start_keys,
};

/// Every file below a directory.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files_below(directory: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// Makes the files below `directory` these, whatever lay there.
fn restore(directory: &Path, files: &Files) {
    for path in files_below(directory).keys().filter(|path| !files.contains_key(*path)) {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in files {
        fs::write(path, bytes).unwrap();
    }
}

/// A step as it is written down.
fn pending(step: &Step) -> Vec<u8> {
    let content = serde_json::to_string(step).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content.as_bytes());
    let checksum = jwksd::encoding::hex(digest.as_ref());
    format!("{{\"format\":2,\"checksum\":\"{checksum}\",\"key\":{content}}}\n").into_bytes()
}

/// What everybody would say of the keys.
fn told(keys: &Path, at: jiff::Timestamp) -> Vec<String> {
    let pairs = operations(keys).list(at).unwrap();
    pairs
        .iter()
        .map(|pair| format!("{} {} {:?}", pair.key_id, pair.phase, pair.published_until))
        .collect()
}

/// A file's name before and after, with its directory.
fn paths(Placement { directory, from, to }: &Placement) -> [PathBuf; 2] {
    [from, to].map(|name| directory.join(name))
}

/// A step, and the files around it.
struct Around {
    world: World,
    before: Files,
    after: Files,
    step: Step,
}

impl Around {
    /// The successor of a key.
    fn issue() -> Self {
        let mut world = World::new();
        world.published_key();
        world.now += HOUR;
        let before = files_below(world.keys());
        let issued = world.issue(Issue { replaces: Some(HOUR), ..plain_issue() }).unwrap();
        let after = files_below(world.keys());
        // The names of staged files tell whose they are.
        let state = fs::canonicalize(world.state()).unwrap();
        let digest = digest(&SHA256, state.as_os_str().as_encoded_bytes());
        let prefix = format!(".jwksd-new-{}-", hex(&digest.as_ref()[..4]));
        let place = [issued.file.with_extension("meta.json"), issued.file]
            .map(|to| {
                let name = to.file_name().unwrap().to_str().unwrap();
                let from = format!("{prefix}{name}.tmp");
                Placement { directory: world.keys().into(), from, to: name.to_owned() }
            })
            .to_vec();
        let kids: Vec<Kid> = std::iter::once(issued.key.key_id)
            .chain(issued.replaced.into_iter().map(|pair| pair.key_id))
            .collect();
        let records = store::read(&world.state(), &[]).unwrap().records;
        let record = |kid| Arc::new(named(&records, kid).record.clone());
        let records = kids.iter().map(record).collect();
        let step = Step { place, records, remove: Vec::new() };
        Self { world, before, after, step }
    }

    /// The deletion of one key of two.
    fn delete() -> Self {
        let mut world = World::new();
        let key = world.published_key();
        world.published_key();
        world.now += HOUR;
        let file = world.file(&key);
        let before = files_below(world.keys());
        world.operations.delete(&key, world.now).unwrap();
        let after = files_below(world.keys());
        let records = store::read(&world.state(), &[]).unwrap().records;
        let records = vec![Arc::new(named(&records, &key).record.clone())];
        let remove = [file.clone(), file.with_extension("meta.json")].map(|file| KeyFile {
            directory: world.keys().into(),
            path: file.file_name().unwrap().into(),
        });
        let remove = remove.to_vec();
        Self { world, before, after, step: Step { place: Vec::new(), records, remove } }
    }

    fn keys(&self) -> &Path {
        self.world.keys()
    }

    fn pending_file(&self) -> PathBuf {
        self.world.state().join("pending")
    }

    fn staged(&self) -> Files {
        self.step
            .place
            .iter()
            .map(paths)
            .map(|[from, to]| (from, self.after[&to].clone()))
            .collect()
    }

    /// Files of the ledger that are written for a record, in their order.
    fn record_files(&self, record: &Record) -> [PathBuf; 2] {
        let name = codec::file_name(&record.public_key.thumbprint());
        [self.world.state().join(&name), self.world.state().join("mirror").join(name)]
    }

    /// Every state on the way, and whether the step counts in it. What is half-written is torn.
    fn states(&self) -> Vec<(String, Files, bool)> {
        let mut states = Vec::new();
        let mut files = self.before.clone();
        let mut note = |what: &str, files: &Files, counts| {
            states.push((what.to_owned(), files.clone(), counts));
        };
        for (path, bytes) in self.staged() {
            files.insert(path.clone(), bytes[..bytes.len() / 2].to_vec());
            note("torn staged file", &files, false);
            files.insert(path, bytes);
            note("staged file", &files, false);
        }
        let bytes = pending(&self.step);
        let temporary = self.pending_file().with_extension("tmp");
        files.insert(temporary.clone(), bytes[..bytes.len() / 2].to_vec());
        note("torn journal", &files, false);
        files.insert(temporary.clone(), bytes.clone());
        note("journal before its rename", &files, false);
        files.remove(&temporary);
        files.insert(self.pending_file(), bytes);
        note("journal", &files, true);
        for [from, to] in self.step.place.iter().map(paths) {
            let content = files.remove(&from).unwrap();
            files.insert(to, content);
            note("placed file", &files, true);
        }
        let lock = self.world.state().join("lock");
        files.insert(lock.clone(), self.after[&lock].clone());
        note("count", &files, true);
        for index in [0, 1] {
            for record in &self.step.records {
                let file = &self.record_files(record)[index];
                let bytes = &self.after[file];
                let temporary = PathBuf::from(format!("{}.tmp", file.display()));
                files.insert(temporary.clone(), bytes[..bytes.len() / 2].to_vec());
                note("torn record", &files, true);
                files.remove(&temporary);
                files.insert(file.clone(), bytes.clone());
                note("record", &files, true);
            }
        }
        for file in &self.step.remove {
            files.remove(&file.full_path());
            note("removed file", &files, true);
        }
        states
    }

    /// The journal that this test writes is the one that the program writes.
    fn check_states(&self) {
        let mut last = self.states().pop().unwrap().1;
        last.remove(&self.pending_file());
        let of_keys = |files: &Files| {
            files
                .iter()
                .filter(|(path, _)| !path.ends_with("lock"))
                .map(|(path, _)| path.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(of_keys(&last), of_keys(&self.after));
    }

    fn check(&self, recover: impl Fn(&Path)) {
        self.check_states();
        let at = self.world.now;
        restore(self.keys(), &self.before);
        let before = told(self.keys(), at);
        restore(self.keys(), &self.after);
        let after = told(self.keys(), at);
        assert_ne!(before, after);
        for (what, files, counts) in self.states() {
            restore(self.keys(), &files);
            // Who only reads sees one or the other.
            let seen = told(self.keys(), at);
            assert!(seen == before || seen == after, "{what}: {seen:#?}");
            recover(self.keys());
            let expected = if counts { &after } else { &before };
            assert_eq!(told(self.keys(), at), *expected, "{what}");
            assert_eq!(leftovers(self.keys()), [] as [&Path; 0], "{what}");
            check_ledger(&self.world.state());
            let wanted = if counts { &self.after } else { &self.before };
            let now = files_below(self.keys());
            let key_files = |files: &Files| {
                files
                    .iter()
                    .filter(|(path, _)| path.parent() == Some(self.keys()))
                    .map(|(path, bytes)| (path.clone(), bytes.clone()))
                    .collect::<Files>()
            };
            assert_eq!(key_files(&now), key_files(wanted), "{what}");
        }
    }
}

/// The next command, which is refused and mends all the same.
fn next_operation(keys: &Path) {
    let at = "2026-12-01T00:00:00Z".parse().unwrap();
    let unknown = Kid::new("unknown").unwrap();
    let mut next = operations(keys);
    assert!(matches!(next.invalidate(&unknown, HOUR, at), Err(OperationError::NotFound(_))));
    next.recover();
}

#[test]
fn an_issue_that_was_cut_short_is_completed_or_never_was() {
    Around::issue().check(next_operation);
}

#[test]
fn a_deletion_that_was_cut_short_is_completed_or_never_was() {
    Around::delete().check(next_operation);
}

#[test]
fn a_start_mends_what_was_cut_short() {
    for around in [Around::issue(), Around::delete()] {
        let states = around.states();
        // The last one before it counts, the first one, and one in its middle.
        let first = states.iter().position(|(_, _, counts)| *counts).unwrap();
        for (what, files, counts) in [&states[first - 1], &states[first], &states[first + 3]] {
            restore(around.keys(), files);
            let daemon = Daemon::start(around.keys());
            daemon.kids();
            assert!(daemon.stop().success());
            let is_after = around.step.records.iter().all(|record| {
                let read = store::read(&around.world.state(), &[]).unwrap().records;
                let now = read.get(&record.public_key.thumbprint());
                now.is_some_and(|now| {
                    now.deleted_at == record.deleted_at && now.orders == record.orders
                })
            });
            assert_eq!(is_after, *counts, "{what}");
            assert_eq!(leftovers(around.keys()), [] as [&Path; 0], "{what}");
        }
    }
}

#[test]
fn a_completed_private_file_is_as_closed_as_any() {
    let around = Around::issue();
    let states = around.states();
    let (_, files, _) = states.iter().find(|(what, ..)| what == "journal").unwrap();
    restore(around.keys(), files);
    for [from, _] in around.step.place.iter().map(paths) {
        let mode = if from.to_string_lossy().contains("meta") { 0o644 } else { 0o600 };
        fs::set_permissions(&from, fs::Permissions::from_mode(mode)).unwrap();
    }
    next_operation(around.keys());
    let mode = fs::metadata(&paths(&around.step.place[1])[1]).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_step_whose_files_are_gone_stands_in_nobodys_way() {
    let around = Around::issue();
    for what in ["journal", "placed file"] {
        let states = around.states();
        let (_, files, _) = states.iter().find(|(state, ..)| state == what).unwrap();
        restore(around.keys(), files);
        // Somebody tidies up after the crash.
        for [from, to] in around.step.place.iter().map(paths) {
            let _ = fs::remove_file(from);
            let _ = fs::remove_file(to);
        }
        let mut world = operations(around.keys());
        let prepared =
            jwksd::operations::Prepared::new(plain_issue(), world.terms(), around.world.now)
                .unwrap();
        let issued = world.issue(&prepared, around.world.now);
        assert!(issued.is_ok(), "{what}: {issued:?}");
        let first = &around.step.records[1].names[0].name.kid;
        let pair = world.show(first, around.world.now).unwrap();
        assert!(pair.active, "{what}: the old key was ended, and there is no new one");
    }
}

/// Small and always the same random numbers.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_command_that_is_killed_did_it_or_did_not() {
    let directory = super::fast_directory();
    let keys = directory.path();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let issue = "issue --audience client --algorithm EdDSA --invalidate-current";
    let begin = std::time::Instant::now();
    answer(keys, issue);
    let mut takes = u64::try_from(begin.elapsed().as_micros()).unwrap() + 1;
    let mut known = 1;
    let (mut done, mut undone) = (0, 0);
    for round in 0..50 {
        let list = || {
            let pairs = answer(keys, "list");
            pairs.as_array().unwrap().clone()
        };
        let is_deletion = round % 3 == 2 && known > 2;
        let before = list();
        let victim = before.iter().find(|pair| pair["active"] == false).map(kid_of);
        let command = match &victim {
            Some(victim) if is_deletion => format!("delete {victim} --yes"),
            _ => issue.to_owned(),
        };
        let mut child = start_keys(keys, &format!("{command} --format json"));
        // Most of its time it only starts.
        let after = Duration::from_micros(takes / 2 + next_random(&mut random) % takes);
        std::thread::park_timeout(after);
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        let acknowledged = serde_json::from_slice::<Value>(&output.stdout).is_ok();
        assert!(acknowledged || !output.status.success());

        let seen = list();
        let active: Vec<&Value> = seen.iter().filter(|pair| pair["active"] == true).collect();
        assert_eq!(active.len(), 1, "round {round}: {seen:#?}");
        assert_eq!(active[0]["current"], true);
        if command == issue {
            assert!([known, known + 1].contains(&seen.len()), "round {round}");
            let is_done = seen.len() == known + 1;
            let former = kid_of(before.iter().find(|pair| pair["active"] == true).unwrap());
            assert_eq!(is_done, kid_of(active[0]) != former, "round {round}: half of it");
            assert!(is_done || !acknowledged, "round {round}: it was said to be done");
        } else {
            assert!([known, known - 1].contains(&seen.len()), "round {round}");
            assert!(seen.len() < known || !acknowledged, "round {round}: it was said to be done");
        }
        // About as many are to be done as not, however busy the machine is.
        if seen.len() == known {
            undone += 1;
            takes += takes / 8;
        } else {
            done += 1;
            takes -= takes / 8;
        }
        known = seen.len();
    }
    // The next step tidies up, and what the files say is what the records say.
    answer(keys, issue);
    assert_eq!(leftovers(keys), [] as [&Path; 0]);
    check_ledger(&keys.join(".jwksd"));
    let files = |end: &str| {
        let names = fs::read_dir(keys).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(end)).count()
    };
    assert_eq!((files(".pem"), files(".meta.json")), (known + 1, known + 1));
    assert!(done > 3 && undone > 3, "{done} done, {undone} undone: the instants are no good");
}
