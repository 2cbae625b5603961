//! What this process gives up, so that little can be made of a defect in it: its memory can't be
//! dumped nor read by others, and where the kernel has Landlock, it opens no files but its own, runs
//! no program, and neither connects nor listens anew.
//!
//! Paths come in. What can't be had is told, and never keeps the program from running.

mod paths;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, make_bitflags,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior,
    setrlimit,
};
use tracing::{info, warn};

use crate::source::opener::{self, FileOpener};

/// Keeps the memory of this process, in which private keys pass, out of core dumps and away from
/// other processes of its user. Where the system does not let it, that shows in [`Confinement`].
pub(crate) fn keep_memory_private() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    // A handler of core dumps that the kernel pipes them to is given them whatever the limit.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// What the program has to do with files from now on. A directory stands for all that is below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileAccess {
    pub read: Vec<PathBuf>,
    pub read_files: Vec<PathBuf>,
    /// Files that are never replaced by others.
    pub fixed_files: Vec<PathBuf>,
    /// Directories that are read, and in which files and directories are made, replaced and removed.
    pub write: Vec<PathBuf>,
    pub remove: Vec<PathBuf>,
    /// The one port to which TCP connections are made.
    pub connect: Option<u16>,
}

/// One thing that the process gave up, or should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restriction {
    pub name: &'static str,
    pub holds: bool,
    /// What it comes to, or why it is not in force.
    pub detail: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The version of Landlock's interface that is made use of; 0 where it is not.
    pub landlock_abi: u8,
    pub restrictions: Vec<Restriction>,
}

/// The newest interface that this was tried with. A newer kernel restricts no more than this.
const NEWEST: ABI = ABI::V7;

/// The interfaces from which on there is more than files to restrict.
const FROM: [(&str, u8, &str); 2] = [
    ("tcp", 4, "no TCP connection is made, and no other port opened"),
    ("signals", 6, "no other process is signalled"),
];

/// Starts the process that opens files for this one where they lie elsewhere since it was confined.
/// To be called before [`confine`], and before there is anything that another process should not have.
pub(crate) fn start_opener(access: &FileAccess) -> Option<opener::Started> {
    let read: Vec<PathBuf> = access.read.iter().chain(&access.read_files).cloned().collect();
    let refused = |error: &std::io::Error| {
        warn!(
            event = "restriction.failed",
            restriction = "opener",
            cause = %error,
            remedy = "restart jwksd when a key directory was mounted or linked anew",
            "no second process can open files where they lie elsewhere later"
        );
    };
    opener::start(&read, &access.write).inspect_err(refused).ok()
}

/// Whether this process was started by [`start_opener`]; it has done its work then.
pub(crate) fn open_for_another() -> bool {
    let Some(opener) = FileOpener::from_arguments() else { return false };
    let _ = rustix::thread::set_name(c"jwksd-opener");
    let _ = rustix::thread::set_no_new_privs(true);
    // Files are left to it, and nothing else is.
    let files = READ | WRITE;
    let _ = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST) & !files)
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(RulesetCreated::restrict_self);
    opener.run();
    true
}

/// Restricts this process to this `access`. Called while there is one thread: others inherit it,
/// and those that run already would not.
pub fn confine(access: &FileAccess) -> Confinement {
    // Asked for by Landlock, and good to have without it.
    let _ = rustix::thread::set_no_new_privs(true);
    let grants = Grants::of(access);
    let confined = grants.restrict();
    let confinement = Confinement::from_status(&grants, &confined);
    confinement.log();
    confinement
}

#[derive(Debug, Default)]
struct Grants {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
    remove: BTreeSet<PathBuf>,
    connect: Option<u16>,
}

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile
});

impl Grants {
    fn of(access: &FileAccess) -> Self {
        let of_directories =
            |paths: &[PathBuf]| paths.iter().flat_map(|path| paths::for_directory(path)).collect();
        let mut read: BTreeSet<PathBuf> = of_directories(&access.read);
        read.extend(access.read_files.iter().flat_map(|path| paths::for_file(path)));
        read.extend(access.fixed_files.iter().cloned());
        let mut write: BTreeSet<PathBuf> = of_directories(&access.write);
        let parents = access.remove.iter().filter_map(|file| file.parent());
        let mut remove: BTreeSet<PathBuf> = parents.map(paths::nearest_existing).collect();
        // Nothing that is to be written is worth opening the whole system for it.
        for paths in [&mut write, &mut remove] {
            paths.retain(|path| path != Path::new("/"));
        }
        read.retain(|path| !write.contains(path));
        Self { read, write, remove, connect: access.connect }
    }

    fn restrict(&self) -> Result<RestrictionStatus, RulesetError> {
        // The service manager may listen for readiness where only this scope would forbid it.
        let manager = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
        let scope = if manager.as_encoded_bytes().starts_with(b"@") {
            Scope::Signal.into()
        } else {
            Scope::from_all(NEWEST)
        };
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(scope)?
            .create()?;
        for (paths, access) in
            [(&self.read, READ), (&self.write, WRITE), (&self.remove, AccessFs::RemoveFile.into())]
        {
            for path in paths {
                ruleset = grant(ruleset, path, access)?;
            }
        }
        if let Some(port) = self.connect {
            ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
        ruleset.restrict_self()
    }
}

fn grant(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    // What can't even be opened can't be used either.
    let Ok(opened) = PathFd::new(path) else { return Ok(ruleset) };
    let access = if path.is_dir() { access } else { access & AccessFs::ReadFile };
    if access.is_empty() { Ok(ruleset) } else { ruleset.add_rule(PathBeneath::new(opened, access)) }
}

impl Confinement {
    fn from_status(grants: &Grants, confined: &Result<RestrictionStatus, RulesetError>) -> Self {
        let landlock_abi = match confined {
            Ok(status) if status.ruleset != RulesetStatus::NotEnforced => match status.landlock {
                LandlockStatus::Available { effective_abi, .. } => abi_number(effective_abi),
                _ => 0,
            },
            _ => 0,
        };
        let why_not = || match confined {
            Err(error) => format!("Landlock was refused: {error}"),
            Ok(status) if status.landlock == LandlockStatus::NotEnabled => {
                "the kernel has Landlock, but it is not enabled".to_owned()
            }
            Ok(_) => "the kernel has no Landlock, or it is denied".to_owned(),
        };
        let mut restrictions = memory_restrictions();
        let files = landlock_abi > 0;
        let detail = if files { grants.to_string() } else { why_not() };
        restrictions.push(Restriction { name: "files", holds: files, detail });
        restrictions.extend(FROM.map(|(name, from, detail)| {
            let holds = from <= landlock_abi;
            let detail = match landlock_abi {
                0 => why_not(),
                _ if holds => match grants.connect.filter(|_| name == "tcp") {
                    Some(port) => format!(
                        "TCP connections are made to port {port} alone, and no other port opened"
                    ),
                    None => detail.to_owned(),
                },
                abi => format!("that needs Landlock's ABI {from}, and the kernel has {abi}"),
            };
            Restriction { name, holds, detail }
        }));
        Self { landlock_abi, restrictions }
    }

    fn log(&self) {
        for Restriction { name, holds, detail } in &self.restrictions {
            if *holds {
                info!(event = "restriction.applied", restriction = name, detail, "confined");
            } else {
                info!(
                    event = "restriction.failed",
                    restriction = name,
                    cause = detail,
                    "not confined"
                );
            }
        }
    }
}

/// What does not depend on Landlock.
fn memory_restrictions() -> Vec<Restriction> {
    let no_dumps = getrlimit(Resource::Core).current == Some(0);
    let is_private = matches!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    let no_privileges = rustix::thread::no_new_privs().unwrap_or(false);
    [
        ("core-dumps", no_dumps, "no core dump is written"),
        ("memory", is_private, "other processes of the same user can't read the memory"),
        ("privileges", no_privileges, "no program that is run can have more privileges"),
    ]
    .map(|(name, holds, detail)| {
        let detail = if holds { detail } else { "the system refused it" };
        Restriction { name, holds, detail: detail.to_owned() }
    })
    .into()
}

fn abi_number(abi: ABI) -> u8 {
    u8::try_from(abi.min(NEWEST) as i32).unwrap_or_default()
}

impl std::fmt::Display for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |paths: &mut dyn Iterator<Item = &PathBuf>| {
            let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
            if paths.is_empty() { "nowhere".to_owned() } else { paths.join(", ") }
        };
        let read: BTreeSet<&PathBuf> = self.read.union(&self.write).collect();
        let read = list(&mut read.into_iter());
        write!(f, "read: {read}; written: {}; run: nowhere", list(&mut self.write.iter()))
    }
}
