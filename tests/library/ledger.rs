//! The ledger on disk: what survives damage, failing disks, other processes and crashes.

use crate::common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::keys::{POLICY, public_key, seen};
use jiff::Timestamp;
use jwksd::keys::Thumbprint;
use jwksd::keys::lifecycle::End;
use jwksd::ledger::codec::{self, Damage};
use jwksd::ledger::store::{self, Store};
use jwksd::ledger::{Ledger, Orders, Persistence, Record, Records};
use jwksd::source::Slot;

fn key(number: u8) -> Thumbprint {
    public_key(number).thumbprint()
}

fn record(name: &str, number: u8) -> Record {
    let slot = Slot::new(Arc::from(Path::new("/keys")), name);
    Record::of_newcomer(&seen(name, number), &slot, Timestamp::UNIX_EPOCH, &POLICY)
}

/// Adds a record, or counts up one that is there.
fn touch(ledger: &mut Ledger, name: &str, number: u8) {
    ledger.update(|records| {
        let mut records = records.clone();
        let entry = records.entry(key(number)).or_insert_with(|| Arc::new(record(name, number)));
        Arc::make_mut(entry).revision += 1;
        (records, ())
    });
}

fn read(directory: &Path) -> Records {
    store::read(directory, &[]).unwrap().records
}

fn reopened(directory: &Path) -> Ledger {
    let mut ledger = Ledger::new(Some(directory.to_owned()));
    ledger.update(|records| (records.clone(), ()));
    ledger
}

fn main_and_mirror(directory: &Path, number: u8) -> [PathBuf; 2] {
    let name = codec::file_name(&key(number));
    [directory.join(&name), directory.join("mirror").join(&name)]
}

#[test]
fn what_is_written_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let mut ledger = Ledger::new(Some(state.clone()));
    touch(&mut ledger, "a", 1);
    touch(&mut ledger, "b/../\"odd\" kid", 2);
    assert_eq!(ledger.persistence(), &Persistence::Disk);
    assert_eq!(reopened(&state).records(), ledger.records());
    assert_eq!(ledger.records().len(), 2);
}

#[test]
fn a_process_knows_whether_there_is_anything_new_in_the_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let look = |ledger: &mut Ledger| ledger.update(|records| (records.clone(), ()));
    let mut ledger = Ledger::new(Some(state.clone()));
    assert!(!ledger.is_current(), "it was not read");
    touch(&mut ledger, "a", 1);
    assert!(ledger.is_current(), "what it wrote itself is not new");
    touch(&mut reopened(&state), "a", 1);
    assert!(!ledger.is_current(), "another process has written");
    look(&mut ledger);
    assert!(ledger.is_current());
    fs::write(state.join("pending"), "cut short").unwrap();
    assert!(!ledger.is_current(), "a step was interrupted");
    look(&mut ledger);
    assert!(ledger.is_current());
    fs::rename(&state, directory.path().join("elsewhere")).unwrap();
    assert!(!ledger.is_current(), "its directory is gone");
    look(&mut ledger);
    assert!(ledger.is_current(), "and is made anew");
}

#[test]
fn every_damage_to_one_copy_is_mended_from_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let mut ledger = Ledger::new(Some(state.to_owned()));
    touch(&mut ledger, "a", 1);
    touch(&mut ledger, "b", 2);
    let whole = fs::read(&main_and_mirror(state, 1)[0]).unwrap();
    for copy in main_and_mirror(state, 1) {
        let prefixes = (0..whole.len()).step_by(7).map(|length| whole[..length].to_vec());
        let flips = (0..whole.len() - 1).step_by(11).map(|at| {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            flipped
        });
        for damaged in prefixes.chain(flips) {
            fs::write(&copy, &damaged).unwrap();
            let found = store::read(state, &[]).unwrap().damaged_files;
            assert!(found.len() == 1 && found[0].restored, "{}", String::from_utf8_lossy(&damaged));
            let ledger = reopened(state);
            assert_eq!(ledger.records().len(), 2);
            let aside = ledger.damaged_files();
            assert_eq!(aside.len(), 1, "{}", String::from_utf8_lossy(&damaged));
            assert_eq!(fs::read(&aside[0]).unwrap(), damaged, "kept, not overwritten");
            assert_eq!(fs::read(&copy).unwrap(), whole, "and written again");
            fs::remove_file(&aside[0]).unwrap();
        }
    }
}

#[test]
fn a_record_damaged_in_both_copies_costs_no_other_key() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let mut ledger = Ledger::new(Some(state.to_owned()));
    touch(&mut ledger, "a", 1);
    touch(&mut ledger, "b", 2);
    for copy in main_and_mirror(state, 1) {
        fs::write(copy, "{}").unwrap();
    }
    let found = store::read(state, &[]).unwrap().damaged_files;
    assert!(found.len() == 2 && found.iter().all(|damaged| !damaged.restored));
    let ledger = reopened(state);
    assert_eq!(ledger.records().keys().collect::<Vec<_>>(), [&key(2)]);
    assert_eq!(ledger.damaged_files().len(), 2);
}

#[test]
fn a_running_process_mends_what_is_damaged_behind_its_back() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let mut ledger = Ledger::new(Some(state.to_owned()));
    touch(&mut ledger, "a", 1);
    for copy in main_and_mirror(state, 1) {
        fs::write(copy, "").unwrap();
    }
    // Another process writes, and so this one reads again.
    touch(&mut Ledger::new(Some(state.to_owned())), "b", 2);
    touch(&mut ledger, "c", 3);
    assert_eq!(read(state).len(), 3);
}

#[test]
fn a_record_of_another_version_is_set_aside_unchanged() {
    for format in [1, 99] {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        fs::create_dir(state.join("mirror")).unwrap();
        let other = format!(r#"{{"format":{format},"anything":true}}"#);
        fs::write(state.join(codec::file_name(&key(1))), &other).unwrap();
        let found = store::read(state, &[]).unwrap().damaged_files;
        assert_eq!(found[0].damage, Damage::OtherFormat(format));
        let mut ledger = reopened(state);
        touch(&mut ledger, "a", 1);
        assert_eq!(fs::read_to_string(&ledger.damaged_files()[0]).unwrap(), other);
        assert_eq!(read(state).len(), 1);
    }
}

#[test]
fn a_record_under_another_keys_name_is_not_believed() {
    let bytes = codec::encode(&record("a", 1));
    let name = codec::file_name(&key(2));
    assert_eq!(codec::decode(&bytes, &name), Err(Damage::WrongName(key(1))));
}

#[test]
fn a_record_whose_algorithm_does_not_fit_its_key_is_not_believed() {
    let mut record = record("a", 1);
    record.names[0].algorithm = jwksd::keys::Algorithm::RS256;
    let bytes = codec::encode(&record);
    let read = codec::decode(&bytes, &codec::file_name(&key(1)));
    assert!(matches!(read, Err(Damage::NotARecord(_))));
}

#[test]
fn of_two_copies_the_newer_one_counts() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let mut ledger = Ledger::new(Some(state.to_owned()));
    touch(&mut ledger, "a", 1);
    let [main, mirror] = main_and_mirror(state, 1);
    let old = fs::read(&main).unwrap();
    touch(&mut ledger, "a", 1);
    for copy in [main, mirror] {
        // As a crash between the two renames leaves it.
        let new = fs::read(&copy).unwrap();
        fs::write(&copy, &old).unwrap();
        let mended = reopened(state);
        assert_eq!(mended.records()[&key(1)].revision, 2);
        assert_eq!(fs::read(&copy).unwrap(), new);
    }
}

#[test]
fn temporary_files_of_a_crash_are_neither_read_nor_kept() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    touch(&mut Ledger::new(Some(state.to_owned())), "a", 1);
    let leftovers = [state.join("b.json.tmp"), state.join("mirror/b.json.tmp")];
    for leftover in &leftovers {
        fs::write(leftover, codec::encode(&record("b", 2))).unwrap();
    }
    assert_eq!(reopened(state).records().len(), 1);
    assert!(leftovers.iter().all(|leftover| !leftover.exists()));
}

#[test]
fn a_directory_that_fails_is_caught_up_when_it_works_again() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let mut ledger = Ledger::new(Some(state.clone()));
    touch(&mut ledger, "a", 1);
    // A file in the directory's place: every write fails, whoever is asking.
    fs::rename(&state, directory.path().join("away")).unwrap();
    fs::write(&state, "").unwrap();
    touch(&mut ledger, "b", 2);
    assert!(matches!(ledger.persistence(), Persistence::Failing(_)), "{:?}", ledger.persistence());
    assert_eq!(ledger.records().len(), 2, "the memory is whole");
    fs::remove_file(&state).unwrap();
    fs::rename(directory.path().join("away"), &state).unwrap();
    ledger.update(|records| (records.clone(), ()));
    assert_eq!(ledger.persistence(), &Persistence::Disk);
    assert_eq!(&read(&state), ledger.records());
}

#[test]
fn a_directory_that_was_removed_is_made_and_filled_again() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let mut ledger = Ledger::new(Some(state.clone()));
    touch(&mut ledger, "a", 1);
    fs::remove_dir_all(&state).unwrap();
    ledger.update(|records| (records.clone(), ()));
    ledger.update(|records| (records.clone(), ()));
    assert_eq!(read(&state).len(), 1);
}

#[test]
fn two_processes_at_once_lose_nothing_of_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    // On a busy machine the lock may take longer than it is waited for: then the disk is promised
    // nothing, and the ledger says so.
    let kept = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let kept = &kept;
            scope.spawn(move || {
                let mut ledger = Ledger::new(Some(state.to_owned()));
                for number in 0..20_u8 {
                    let own = 10 + writer * 20 + number;
                    touch(&mut ledger, &format!("own-{own}"), own);
                    touch(&mut ledger, "shared", 1);
                    let is_kept = *ledger.persistence() == Persistence::Disk;
                    kept.fetch_add(is_kept.into(), std::sync::atomic::Ordering::Relaxed);
                }
                while *ledger.persistence() != Persistence::Disk {
                    ledger.update(|records| (records.clone(), ()));
                }
            });
        }
    });
    let records = read(state);
    assert_eq!(records.len(), 4 * 20 + 1);
    let kept = kept.into_inner();
    let revision = records[&key(1)].revision;
    assert!(kept <= revision && revision <= 80, "{kept} kept, {revision} found");
    assert!(kept > 0);
}

#[test]
fn a_lock_that_is_held_for_long_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let mut ledger = Ledger::new(Some(state.to_owned()));
    touch(&mut ledger, "a", 1);
    let holder = Store::open(state).unwrap();
    let lock = holder.lock(std::time::Duration::from_secs(5)).unwrap();
    touch(&mut ledger, "b", 2);
    assert_eq!(ledger.records().len(), 2);
    assert!(matches!(ledger.persistence(), Persistence::Failing(_)));
    drop(lock);
    ledger.update(|records| (records.clone(), ()));
    assert_eq!(read(state).len(), 2);
}

#[test]
fn a_start_that_finds_the_lock_held_knows_what_is_remembered_and_overwrites_none_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let mut before = Ledger::new(Some(state.to_owned()));
    touch(&mut before, "a", 1);
    let holder = Store::open(state).unwrap();
    let lock = holder.lock(std::time::Duration::from_secs(5)).unwrap();
    let mut ledger = Ledger::new(Some(state.to_owned()));
    ledger.update(|records| (records.clone(), ()));
    assert_eq!(ledger.records(), before.records());
    drop(lock);
}

#[test]
fn what_another_process_wrote_meanwhile_is_not_overwritten_by_a_memory_that_did_not_know_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let mut ledger = Ledger::new(Some(state.to_owned()));
    touch(&mut ledger, "a", 1);
    let holder = Store::open(state).unwrap();
    let mut lock = holder.lock(std::time::Duration::from_secs(5)).unwrap();
    // Locked out, this process goes on in memory, further than the other one on disk.
    touch(&mut ledger, "a", 1);
    touch(&mut ledger, "a", 1);
    let mut ordered = Record::clone(&read(state)[&key(1)]);
    ordered.revision += 1;
    ordered.deleted_at = Some(Timestamp::UNIX_EPOCH);
    lock.write(&[Arc::new(ordered)], &[]).unwrap();
    drop(lock);
    ledger.update(|records| (records.clone(), ()));
    assert!(ledger.records()[&key(1)].deleted_at.is_some(), "the order is not lost");
}

#[test]
fn a_forgotten_record_stays_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let mut ledger = Ledger::new(Some(state.to_owned()));
    touch(&mut ledger, "a", 1);
    touch(&mut ledger, "b", 2);
    ledger.update(|records| {
        let mut records = records.clone();
        records.remove(&key(1));
        (records, ())
    });
    assert_eq!(reopened(state).records().len(), 1);
    assert!(main_and_mirror(state, 1).iter().all(|copy| !copy.exists()));
}

/// Everything that lies in a directory, to be put back later.
fn copy_of(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(copy_of(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files
}

type Put = fn(&Path, &[(PathBuf, Vec<u8>)]);

fn write_all(copy: &[(PathBuf, Vec<u8>)]) {
    for (file, bytes) in copy {
        fs::write(file, bytes).unwrap();
    }
}

#[test]
fn an_older_copy_of_the_directory_brings_nothing_back() {
    let end = End::planned(Timestamp::UNIX_EPOCH, std::time::Duration::ZERO);
    let over: Put = |_, copy| write_all(copy);
    let records_alone: Put = |_, copy| {
        for (file, bytes) in copy.iter().filter(|(file, _)| file.extension().is_some()) {
            let _ = fs::remove_file(file);
            fs::write(file, bytes).unwrap();
        }
    };
    let instead: Put = |state, copy| {
        fs::rename(state, state.with_extension("away")).unwrap();
        fs::create_dir_all(state.join("mirror")).unwrap();
        write_all(copy);
    };
    for (what, put) in [("over", over), ("records", records_alone), ("instead", instead)] {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let mut ledger = Ledger::new(Some(state.clone()));
        for number in 1..4 {
            touch(&mut ledger, &format!("k{number}"), number);
        }
        let older = copy_of(&state);
        ledger.update(|records| {
            let mut records = records.clone();
            let deleted = Arc::make_mut(records.get_mut(&key(1)).unwrap());
            deleted.deleted_at = Some(Timestamp::UNIX_EPOCH);
            deleted.revision += 1;
            let ended = Arc::make_mut(records.get_mut(&key(2)).unwrap());
            ended.orders = Arc::new(Orders { number: 1, end: Some(end), ..Orders::default() });
            ended.revision += 1;
            records.remove(&key(3));
            (records, ())
        });
        let before = ledger.records().clone();
        ledger.mark_served(&[]);
        put(&state, &older);
        ledger.verify();
        ledger.update(|records| (records.clone(), ()));
        assert_eq!(ledger.records(), &before, "{what}");
        assert_eq!(read(&state), before, "{what}: written again");
    }
}

#[test]
fn a_single_record_that_is_older_damaged_or_gone_in_one_copy_or_both_is_written_again() {
    type Spoil = fn(&Path, &[u8]);
    let older: Spoil = |copy, older| fs::write(copy, older).unwrap();
    let renamed: Spoil = |copy, older| {
        fs::write(copy.with_extension("other"), older).unwrap();
        fs::rename(copy.with_extension("other"), copy).unwrap();
    };
    let damaged: Spoil = |copy, older| fs::write(copy, &older[..older.len() / 2]).unwrap();
    let gone: Spoil = |copy, _| fs::remove_file(copy).unwrap();
    for (what, spoil) in
        [("older", older), ("renamed", renamed), ("damaged", damaged), ("gone", gone)]
    {
        for copies in [&[0][..], &[1], &[0, 1]] {
            let directory = tempfile::tempdir().unwrap();
            let state = directory.path();
            let mut ledger = Ledger::new(Some(state.to_owned()));
            touch(&mut ledger, "a", 1);
            touch(&mut ledger, "b", 2);
            let files = main_and_mirror(state, 1);
            let before = fs::read(&files[0]).unwrap();
            touch(&mut ledger, "a", 1);
            ledger.mark_served(&[]);
            let now = copy_of(state);
            for index in copies {
                spoil(&files[*index], &before);
            }
            ledger.verify();
            ledger.update(|records| (records.clone(), ()));
            assert_eq!(ledger.records()[&key(1)].revision, 2, "{what}");
            assert_eq!(ledger.records().len(), 2);
            for (file, bytes) in now.iter().filter(|(file, _)| file.extension().is_some()) {
                assert_eq!(
                    &fs::read(file).unwrap(),
                    bytes,
                    "{what} {copies:?}: {}",
                    file.display()
                );
            }
            assert_eq!(
                ledger.damaged_files().len(),
                if what == "damaged" { copies.len() } else { 0 }
            );
        }
    }
}

#[test]
fn a_key_that_is_seen_anew_after_it_was_forgotten_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let mut ledger = Ledger::new(Some(state.to_owned()));
    touch(&mut ledger, "a", 1);
    let older = copy_of(state);
    ledger.update(|_| (Records::new(), ()));
    let anew = |records: &Records| {
        let mut records = records.clone();
        let mut anew = record("a", 1);
        anew.first_seen = Timestamp::from_second(1_000_000).unwrap();
        anew.revision = 1;
        records.insert(key(1), Arc::new(anew));
        (records, ())
    };
    ledger.update(anew);
    ledger.mark_served(&[]);
    let before = ledger.records().clone();
    assert_eq!(read(state), before);
    // Whether its files vanish, or those of the time before are put back.
    for is_older in [false, true] {
        for copy in main_and_mirror(state, 1) {
            fs::remove_file(copy).unwrap();
        }
        for (file, bytes) in older.iter().filter(|(file, _)| is_older && file.extension().is_some())
        {
            fs::write(file, bytes).unwrap();
        }
        ledger.verify();
        ledger.update(|records| (records.clone(), ()));
        ledger.mark_served(&[]);
        assert_eq!(ledger.records(), &before);
        assert_eq!(read(state), before);
    }
}

#[test]
fn a_process_that_forgets_and_one_that_has_not_yet_come_to_rest() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let [mut one, mut other] = [(); 2].map(|()| Ledger::new(Some(state.to_owned())));
    touch(&mut one, "a", 1);
    touch(&mut one, "b", 2);
    other.update(|records| (records.clone(), ()));
    let forget = |records: &Records| {
        let mut records = records.clone();
        records.remove(&key(1));
        (records, ())
    };
    one.update(forget);
    for _ in 0..3 {
        // The other one comes to the same end by itself.
        other.update(forget);
        one.update(|records| (records.clone(), ()));
    }
    assert_eq!(read(state).keys().collect::<Vec<_>>(), [&key(2)]);
    assert_eq!((one.records().len(), other.records().len()), (1, 1));
    let before = copy_of(state);
    other.update(|records| (records.clone(), ()));
    one.update(|records| (records.clone(), ()));
    assert_eq!(copy_of(state), before);
}

#[test]
fn two_memories_that_went_apart_become_one() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let [mut one, mut other] = [(); 2].map(|()| Ledger::new(Some(state.to_owned())));
    touch(&mut one, "a", 1);
    other.update(|records| (records.clone(), ()));
    let holder = Store::open(state).unwrap();
    let lock = holder.lock(std::time::Duration::from_secs(5)).unwrap();
    let end = |seconds| {
        Some(End::planned(Timestamp::UNIX_EPOCH, std::time::Duration::from_secs(seconds)))
    };
    for (ledger, seconds) in [(&mut one, 100), (&mut other, 7)] {
        ledger.update(|records| {
            let mut records = records.clone();
            let record = Arc::make_mut(records.get_mut(&key(1)).unwrap());
            record.orders = Arc::new(Orders { number: 1, end: end(seconds), ..Orders::default() });
            record.revision += 1;
            (records, ())
        });
    }
    drop(lock);
    for _ in 0..3 {
        one.update(|records| (records.clone(), ()));
        other.update(|records| (records.clone(), ()));
    }
    assert_eq!(one.records(), other.records());
    assert_eq!(one.records()[&key(1)].orders.end, end(7), "on a tie the earlier end");
    let before = copy_of(state);
    one.update(|records| (records.clone(), ()));
    other.update(|records| (records.clone(), ()));
    assert_eq!(copy_of(state), before, "and nobody writes any more");
}

#[test]
fn without_a_directory_everything_is_in_memory_and_says_so() {
    let mut ledger = Ledger::new(None);
    touch(&mut ledger, "a", 1);
    assert_eq!(ledger.records().len(), 1);
    assert_eq!(ledger.persistence(), &Persistence::Memory);
}

#[test]
fn records_are_readable_by_all_and_writable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    touch(&mut Ledger::new(Some(directory.path().to_owned())), "a", 1);
    for copy in main_and_mirror(directory.path(), 1) {
        let mode = fs::metadata(copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0);
    }
}

#[test]
fn an_older_copy_brings_nothing_back_where_the_next_write_comes_before_the_next_poll() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let mut ledger = Ledger::new(Some(state.clone()));
    touch(&mut ledger, "a", 1);
    ledger.mark_served(&[]);
    let older = copy_of(&state);
    touch(&mut ledger, "a", 1);
    ledger.mark_served(&[]);
    let records = older.iter().filter(|(file, _)| file.extension().is_some());
    write_all(&records.cloned().collect::<Vec<_>>());
    touch(&mut ledger, "b", 2);
    ledger.mark_served(&[]);
    ledger.verify();
    ledger.update(|records| (records.clone(), ()));
    assert_eq!(ledger.records()[&key(1)].revision, 2);
    assert_eq!(read(&state), *ledger.records());
}

#[test]
fn a_loss_that_could_not_be_written_is_kept_whatever_was_ordered_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let [mut daemon, mut command] = [(); 2].map(|()| Ledger::new(Some(state.to_owned())));
    touch(&mut daemon, "a", 1);
    command.update(|records| (records.clone(), ()));
    let holder = Store::open(state).unwrap();
    let lock = holder.lock(std::time::Duration::from_secs(5)).unwrap();
    let loss = End::noticed(Timestamp::UNIX_EPOCH, std::time::Duration::from_secs(9));
    daemon.update(|records| {
        let mut records = records.clone();
        let record = Arc::make_mut(records.get_mut(&key(1)).unwrap());
        record.names[0].loss = Some(loss);
        record.names[0].generation += 1;
        record.revision += 1;
        (records, ())
    });
    drop(lock);
    for number in 1..4 {
        command.update(|records| {
            let mut records = records.clone();
            let record = Arc::make_mut(records.get_mut(&key(1)).unwrap());
            record.orders = Arc::new(Orders { number, ..Orders::default() });
            record.revision += 1;
            (records, ())
        });
    }
    for _ in 0..2 {
        daemon.update(|records| (records.clone(), ()));
        command.update(|records| (records.clone(), ()));
    }
    for ledger in [&daemon, &command] {
        let record = &ledger.records()[&key(1)];
        assert_eq!((record.names[0].loss, record.orders.number), (Some(loss), 3));
    }
    assert_eq!(read(state), *daemon.records());
}
