//! Kubernetes volumes: the swap of `..data` as kubelet's `AtomicWriter` does it, step by step, by
//! chance, and many times a second.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jwksd::source::Slot;
use jwksd::source::scan::{DirectoryProblem, FileContent, FileProblem};
use tempfile::tempdir;

use super::{LIMITS, look, look_within, meanwhile, told};

/// A volume as kubelet writes it.
struct Volume {
    directory: PathBuf,
    version: u32,
}

impl Volume {
    fn at(directory: PathBuf) -> Self {
        fs::create_dir_all(&directory).unwrap();
        Self { directory, version: 0 }
    }

    /// Writes `files` as the new version, and says after which step it is.
    fn write(&mut self, files: &[(&str, &str)], mut after: impl FnMut(&str)) {
        self.version += 1;
        let data = self.directory.join("..data");
        let old = fs::read_link(&data).ok();
        let new = format!("..2026_11_23_{}", self.version);
        fs::create_dir(self.directory.join(&new)).unwrap();
        for (name, text) in files {
            fs::write(self.directory.join(&new).join(name), text).unwrap();
            after("a file was written");
        }
        symlink(&new, self.directory.join("..data_tmp")).unwrap();
        after("the new link was made");
        fs::rename(self.directory.join("..data_tmp"), &data).unwrap();
        after("..data was swapped");
        for (name, _) in files {
            let _ = symlink(format!("..data/{name}"), self.directory.join(name));
            after("a visible link was made");
        }
        for entry in fs::read_dir(&self.directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !name.starts_with("..") && files.iter().all(|(kept, _)| *kept != name) {
                fs::remove_file(self.directory.join(name)).unwrap();
                after("a stale link was removed");
            }
        }
        if let Some(old) = old {
            let old = self.directory.join(old);
            for entry in fs::read_dir(&old).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
                after("an old file was removed");
            }
            fs::remove_dir(&old).unwrap();
            after("the old directory was removed");
        }
    }
}

#[test]
fn every_step_of_a_swap_shows_the_old_version_or_the_new_one_whole() {
    let keys = tempdir().unwrap();
    let mut volume = Volume::at(keys.path().join("client"));
    volume.write(&[("tls.crt", "1"), ("tls.key", "1"), ("gone.pem", "1")], |_| {});
    let old = ["client/gone: gone.pem=1", "client/tls: tls.crt=1, tls.key=1"].as_slice();
    let new = ["client/new: new.pem=2", "client/tls: tls.crt=2, tls.key=2"].as_slice();
    assert_eq!(told(&look(keys.path())), old);
    let mut is_swapped = false;
    let mut steps = 0;
    volume.write(&[("tls.crt", "2"), ("tls.key", "2"), ("new.pem", "2")], |step| {
        steps += 1;
        is_swapped |= step == "..data was swapped";
        let seen = look(keys.path());
        assert_eq!(told(&seen), if is_swapped { new } else { old }, "after {step}");
        assert!(seen.unreadable.is_empty());
        for file in seen.entries.values().flat_map(|entry| &entry.files) {
            assert!(file.path.exists(), "after {step}: {}", file.path.display());
        }
    });
    assert_eq!(steps, 13);
}

#[test]
fn the_volume_and_its_data_directory_are_both_watched() {
    let keys = tempdir().unwrap();
    Volume::at(keys.path().to_path_buf()).write(&[("x.pem", "1")], |_| {});
    let seen = look(keys.path());
    let watched = seen.directories.iter().map(|directory| directory.path.clone());
    let expected = [keys.path().to_path_buf(), keys.path().join("..2026_11_23_1")];
    assert_eq!(watched.collect::<Vec<_>>(), expected);
    assert_eq!(seen.entries.first_key_value().unwrap().1.files[0].path, keys.path().join("x.pem"));
}

#[test]
fn a_data_link_by_hand_needs_no_visible_links() {
    let keys = tempdir().unwrap();
    fs::create_dir_all(keys.path().join("v1/sub")).unwrap();
    fs::write(keys.path().join("v1/x.pem"), "1").unwrap();
    fs::write(keys.path().join("v1/sub/y.pem"), "1").unwrap();
    fs::write(keys.path().join("beside.pem"), "not seen").unwrap();
    symlink("v1", keys.path().join("stable")).unwrap();
    for target in [keys.path().join("v1"), "v1".into(), "./stable".into()] {
        symlink(&target, keys.path().join("..data_tmp")).unwrap();
        fs::rename(keys.path().join("..data_tmp"), keys.path().join("..data")).unwrap();
        let seen = look(keys.path());
        assert_eq!(told(&seen), ["sub/y: y.pem=1", "x: x.pem=1"], "{}", target.display());
        for file in seen.entries.values().flat_map(|entry| &entry.files) {
            assert!(file.path.exists(), "{}", file.path.display());
        }
    }
}

#[test]
fn a_data_link_that_leads_out_or_nowhere_is_not_an_empty_directory() {
    let place = tempdir().unwrap();
    for (target, expected) in [("..", FileProblem::LeadsOut), ("gone", FileProblem::Dangling)] {
        let keys = place.path().join(expected.to_string());
        fs::create_dir_all(keys.join("sub")).unwrap();
        symlink(target, keys.join("sub/..data")).unwrap();
        symlink(target, keys.join("..data")).unwrap();
        match look_within(&keys, &LIMITS) {
            Err(error) => assert_eq!(error.problem, DirectoryProblem::DataLink(expected.clone())),
            other => panic!("{other:?}"),
        }
        fs::remove_file(keys.join("..data")).unwrap();
        symlink(if target == ".." { "../.." } else { target }, keys.join("sub/next")).unwrap();
        fs::rename(keys.join("sub/next"), keys.join("sub/..data")).unwrap();
        let seen = look(&keys);
        assert_eq!((&*seen.unreadable[0].path, &seen.unreadable[0].problem), ("sub", &expected));
    }
}

#[test]
fn a_swap_never_mixes_a_pair_nor_loses_one() {
    let keys = tempdir().unwrap();
    for directory in [keys.path().to_path_buf(), keys.path().join("client")] {
        hammer(&directory, keys.path());
        fs::remove_dir_all(keys.path()).unwrap();
        fs::create_dir(keys.path()).unwrap();
    }
}

/// Swaps the volume at `directory` as fast as it goes, while `keys` is looked at.
fn hammer(directory: &Path, keys: &Path) {
    let mut volume = Volume::at(directory.to_path_buf());
    let write = |volume: &mut Volume| {
        let text = volume.version.to_string();
        volume.write(&["tls.crt", "tls.key", "b.pem", "c.pem"].map(|name| (name, &*text)), |_| {});
    };
    write(&mut volume);
    let slot = |name: &str| {
        let below = directory.strip_prefix(keys).unwrap().join(name);
        Slot::new(Arc::from(keys), below.to_str().unwrap())
    };
    let slots = ["tls", "b", "c"].map(slot);
    let mut versions = BTreeSet::new();
    meanwhile(
        || write(&mut volume),
        || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(700) || versions.len() < 20 {
                assert!(start.elapsed() < Duration::from_secs(30), "only {versions:?} were seen");
                let seen = match look_within(keys, &LIMITS) {
                    Ok(seen) if seen.unreadable.is_empty() => seen,
                    Ok(seen) => {
                        assert_eq!(seen.unreadable[0].problem, FileProblem::Changing);
                        continue;
                    }
                    Err(error) if error.problem == DirectoryProblem::Changing => continue,
                    Err(error) => panic!("{error}"),
                };
                let files = slots.iter().flat_map(|slot| &seen.entries[slot].files);
                let texts = files.map(|file| match &file.content {
                    Ok(FileContent::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
                    other => panic!("{}: {other:?}", file.path.display()),
                });
                let texts = texts.collect::<Vec<_>>();
                assert_eq!(texts.len(), 4);
                assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
                versions.insert(texts[0].clone());
            }
        },
    );
}
