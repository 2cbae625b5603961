//! How the world goes wrong around the daemon: kubelet's swaps, full disks, missing events.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jwksd::encoding::base64url;
use jwksd::keys::Algorithm;
use rustix::fs::inotify;
use serde_json::{Value, json};

use super::daemon::{Connection, Daemon, drop_by_rename, eventually};

/// A new private key that is fast to make.
pub fn new_pem() -> String {
    jwksd::operations::generate(Algorithm::ES256, 2048).unwrap().to_string()
}

/// Drops a new key of this id, and returns its PEM.
pub fn drop_key(keys: &Path, kid: &str) -> String {
    let pem = new_pem();
    drop_by_rename(keys, &format!("{kid}.meta.json"), json!({ "keyId": kid }).to_string());
    drop_by_rename(keys, &format!("{kid}.pem"), &pem);
    pem
}

/// Removes the files of [`drop_key`].
pub fn remove_key(keys: &Path, kid: &str) {
    fs::remove_file(keys.join(format!("{kid}.pem"))).unwrap();
    fs::remove_file(keys.join(format!("{kid}.meta.json"))).unwrap();
}

/// The JWK that the key in a PEM file is published as.
pub fn jwk_of(pem: &str, kid: &str) -> Value {
    let der = pem::parse(pem).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.contents()).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let [x, y] = [x, y].map(base64url);
    json!({ "alg": "ES256", "crv": "P-256", "kid": kid, "kty": "EC", "use": "sig", "x": x, "y": y })
}

/// How many looks the daemon has taken.
fn looks(daemon: &Daemon) -> u64 {
    let metrics = Connection::open(daemon.address_of("ops"))
        .and_then(|mut connection| connection.request("GET", "/metrics", &[]))
        .unwrap();
    let metrics = metrics.text();
    let counts = metrics.lines().filter_map(|line| line.strip_prefix("jwksd_reloads_total"));
    let counts = counts.filter_map(|line| line.rsplit(' ').next()?.split('.').next());
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

/// Waits until the daemon has looked twice and published what it saw.
pub fn await_looks(daemon: &Daemon) {
    let before = looks(daemon);
    // One may be over and not counted yet, and the next one may have begun before this. It looks at
    // once where it is asked to.
    eventually("it looks again", || {
        daemon.signal(rustix::process::Signal::HUP);
        // To be asked takes it longer than to look.
        std::thread::park_timeout(Duration::from_millis(5));
        (looks(daemon) >= before + 4).then_some(())
    });
}

/// Waits until a line with all these texts is in the log.
pub fn await_log(daemon: &Daemon, texts: &[&str]) {
    eventually(&format!("{texts:?} in the log"), || (count_log(daemon, texts) > 0).then_some(()));
}

/// How many lines of the log have all these texts.
pub fn count_log(daemon: &Daemon, texts: &[&str]) -> usize {
    let log = daemon.log();
    log.iter().filter(|line| texts.iter().all(|text| line.contains(text))).count()
}

/// Waits until `count` lines of the log have all these texts: lines come a little later than what they
/// tell. No more may come by then.
pub fn assert_logged(daemon: &Daemon, texts: &[&str], count: usize) {
    eventually(&format!("{texts:?} is logged"), || {
        (count_log(daemon, texts) >= count).then_some(())
    });
    assert_eq!(count_log(daemon, texts), count, "{:#?}", daemon.log());
}

/// Makes `command` run by `wrapper`, which must replace itself by it, so that the process id is the
/// same.
pub fn wrap<'a>(command: &'a mut Command, wrapper: &[&str]) -> &'a mut Command {
    let mut outer = Command::new(wrapper[0]);
    outer.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    *command = outer;
    command
}

/// A wrapper that runs `preparation` as root of namespaces of its own; none, with a word about it,
/// where that is forbidden.
pub fn namespace(preparation: &str) -> Option<[String; 5]> {
    let script = format!("{preparation} && exec \"$@\"");
    let wrapper = ["unshare", "-rm", "sh", "-c", &script].map(str::to_owned);
    let mut probe = Command::new("unshare");
    probe.args(&wrapper[1..]).args(["sh", "true"]).stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Some(wrapper);
    }
    eprintln!("skipped: no namespace can be had in which `{preparation}` works");
    None
}

/// Runs a command in the mount namespace of a daemon that [`wrap_in`] started.
pub fn run_inside(daemon: &Daemon, command: &[&str]) {
    let pid = daemon.pid().to_string();
    let mut enter = Command::new("nsenter");
    enter.args(["--preserve-credentials", "-U", "-m", "-t", &pid]).args(command);
    assert!(enter.status().unwrap().success(), "{command:?}");
}

/// What stands in the way of file events: a limit of none at all.
pub const NO_INOTIFY: &str = "echo 0 >/proc/sys/user/max_inotify_instances";

/// [`wrap`] by the result of [`namespace`].
pub fn wrap_in<'a>(command: &'a mut Command, namespace: &[String; 5]) -> &'a mut Command {
    let wrapper: Vec<&str> = namespace.iter().map(String::as_str).chain(["sh"]).collect();
    wrap(command, &wrapper)
}

/// kubelet's AtomicWriter on a volume.
pub struct AtomicWriter {
    volume: PathBuf,
    swaps: u32,
}

impl AtomicWriter {
    /// For the volume at this directory.
    pub fn new(volume: &Path) -> Self {
        Self { volume: volume.to_owned(), swaps: 0 }
    }

    /// Swaps in these files, in kubelet's order of steps.
    pub fn write(&mut self, files: &[(&str, String)]) {
        let files: Vec<(String, String)> =
            files.iter().map(|(name, content)| ((*name).to_owned(), content.clone())).collect();
        self.write_in_steps(&files, |_| {});
    }

    /// The same, with `pause` called after each step, which it is told.
    pub fn write_in_steps(&mut self, files: &[(String, String)], mut pause: impl FnMut(&str)) {
        use std::os::unix::fs::symlink;
        self.swaps += 1;
        let data = self.volume.join("..data");
        let old = fs::read_link(&data).ok();
        let name = format!("..2026_11_20_10_00_00.{}", self.swaps);
        fs::create_dir(self.volume.join(&name)).unwrap();
        pause("the directory is made");
        for (file, content) in files {
            fs::write(self.volume.join(&name).join(file), content).unwrap();
            pause("a file is written");
        }
        symlink(&name, self.volume.join("..data_tmp")).unwrap();
        pause("before the new data is in place");
        fs::rename(self.volume.join("..data_tmp"), data).unwrap();
        pause("the new data is in place");
        for (file, _) in files {
            let link = self.volume.join(file);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(file), link).unwrap();
                pause("a link is made");
            }
        }
        // Links alone are its own: a ledger may lie beside them.
        let stale = fs::read_dir(&self.volume).unwrap().map(Result::unwrap);
        let stale = stale.filter(|entry| entry.file_type().unwrap().is_symlink());
        let stale = stale.filter_map(|entry| entry.file_name().into_string().ok());
        for file in stale.filter(|file| !file.starts_with("..")) {
            if !files.iter().any(|(name, _)| *name == file) {
                fs::remove_file(self.volume.join(file)).unwrap();
                pause("a stale link is removed");
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.volume.join(old)).unwrap();
            pause("the old data is removed");
        }
    }
}

/// The opens in a directory, as a watcher sees them.
pub struct Opens(OwnedFd);

impl Opens {
    /// Begins to count.
    pub fn of(directory: &Path) -> Self {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let queue = inotify::init(flags).unwrap();
        inotify::add_watch(&queue, directory, inotify::WatchFlags::OPEN).unwrap();
        Self(queue)
    }

    /// How many there were since the last call.
    pub fn count(&self) -> usize {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        std::iter::from_fn(|| events.next().ok().map(|_| ())).count()
    }
}
