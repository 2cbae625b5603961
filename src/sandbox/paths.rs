//! From the path of a directory to the places beneath which it is found, now and later.
//!
//! Landlock grants access to what a directory is, not to its name: one that is deleted and made again
//! is another. Each is granted by its parent therefore, unless that is the root; and where a link
//! leads there, by what the link's target lies in, so that the link can be changed to its neighbour.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How many links are followed (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;

/// The places for a directory that may be replaced.
pub(super) fn for_directory(path: &Path) -> BTreeSet<PathBuf> {
    let ResolvedPath { mut neighbours, end } = ResolvedPath::resolve(path);
    neighbours.insert(nearest_existing(parent_unless_root(&end)));
    neighbours
}

/// The places for a file that may be replaced, and its directory with it.
pub(super) fn for_file(path: &Path) -> BTreeSet<PathBuf> {
    let ResolvedPath { neighbours, end } = ResolvedPath::resolve(path);
    let mut places = neighbours;
    for directory in [path.parent(), end.parent()].into_iter().flatten() {
        if directory == Path::new("/") {
            // Only as long as it is the same file: the directory is the whole system.
            places.extend(Some(&end).filter(|end| end.exists()).cloned());
        } else {
            places.extend(for_directory(directory));
        }
    }
    places
}

/// The nearest directory on the way to `path` that there is.
pub(super) fn nearest_existing(path: &Path) -> PathBuf {
    let path = path.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/"));
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// What `directory` lies in; itself, where that is the root.
fn parent_unless_root(directory: &Path) -> &Path {
    directory.parent().filter(|parent| *parent != Path::new("/")).unwrap_or(directory)
}

struct ResolvedPath {
    /// What the targets of the links on the way lie in; not the root.
    neighbours: BTreeSet<PathBuf>,
    /// The path without links. Some of it need not exist.
    end: PathBuf,
}

/// What is still to be gone through, the next one last.
enum PathStep {
    Down(OsString),
    Up,
    /// The target of a link is the next one.
    Target,
}

impl ResolvedPath {
    fn resolve(path: &Path) -> Self {
        let mut resolved = Self { neighbours: BTreeSet::new(), end: PathBuf::from("/") };
        let mut steps: Vec<PathStep> = Vec::new();
        push_components(&mut steps, path);
        let mut links = 0;
        while let Some(step) = steps.pop() {
            let name = match step {
                PathStep::Down(name) => name,
                PathStep::Up => {
                    resolved.end.pop();
                    continue;
                }
                PathStep::Target => {
                    if resolved.end != Path::new("/") {
                        resolved.neighbours.insert(nearest_existing(&resolved.end));
                    }
                    continue;
                }
            };
            let next = resolved.end.join(name);
            match fs::read_link(&next) {
                Ok(target) if links < MAX_LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        resolved.end = PathBuf::from("/");
                    }
                    let before = steps.len();
                    push_components(&mut steps, &target);
                    // The last component of the target is the first that was pushed.
                    let last = (before + 1).min(steps.len());
                    steps.insert(last, PathStep::Target);
                }
                _ => resolved.end = next,
            }
        }
        resolved
    }
}

fn push_components(steps: &mut Vec<PathStep>, path: &Path) {
    let mut components: Vec<PathStep> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(PathStep::Down(name.to_owned())),
            Component::ParentDir => Some(PathStep::Up),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    components.reverse();
    steps.append(&mut components);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory whose path has no links, with these directories in it.
    fn with(directories: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for made in directories {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        (directory, root)
    }

    fn set<const N: usize>(root: &Path, paths: [&str; N]) -> BTreeSet<PathBuf> {
        paths.map(|path| root.join(path)).into()
    }

    #[test]
    fn a_directory_is_granted_by_its_parent_whether_it_is_there_or_not() {
        let (_directory, root) = with(&["a"]);
        assert_eq!(for_directory(&root.join("a/keys")), set(&root, ["a"]));
        fs::create_dir(root.join("a/keys")).unwrap();
        assert_eq!(for_directory(&root.join("a/keys")), set(&root, ["a"]));
        assert_eq!(for_directory(&root.join("a/b/c/keys")), set(&root, ["a"]));
    }

    #[test]
    fn a_directory_in_the_root_is_granted_itself() {
        let expected = BTreeSet::from([fs::canonicalize("/proc").unwrap()]);
        assert_eq!(for_directory(Path::new("/proc")), expected);
    }

    #[test]
    fn a_link_can_be_changed_to_its_target_s_neighbour() {
        let (_directory, root) = with(&["releases/v3/keys"]);
        symlink("releases/v3", root.join("current")).unwrap();
        symlink(root.join("releases/v3/keys"), root.join("keys")).unwrap();
        let through = for_directory(&root.join("current/keys"));
        assert_eq!(through, set(&root, ["releases", "releases/v3"]));
        assert_eq!(for_directory(&root.join("keys")), set(&root, ["releases/v3"]));
        symlink("keys", root.join("again")).unwrap();
        let neighbour = root.clone();
        let expected = [neighbour, root.join("releases/v3")].into();
        assert_eq!(for_directory(&root.join("again")), expected);
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(for_directory(&root.join("loop")), [root.clone()].into());
        symlink("../releases/./v3/../v3", root.join("releases/up")).unwrap();
        assert_eq!(for_directory(&root.join("releases/up")), set(&root, ["releases"]));
    }

    #[test]
    fn a_file_is_granted_by_its_directory_s_parent_and_where_it_leads() {
        let (_directory, root) = with(&["etc/tls", "archive/x"]);
        fs::write(root.join("etc/tls/tls.crt"), "").unwrap();
        assert_eq!(for_file(&root.join("etc/tls/tls.crt")), set(&root, ["etc"]));
        assert_eq!(for_file(&root.join("etc/tls/not-yet.crt")), set(&root, ["etc"]));
        fs::write(root.join("archive/x/1.pem"), "").unwrap();
        symlink("../../archive/x/1.pem", root.join("etc/tls/live.crt")).unwrap();
        let live = for_file(&root.join("etc/tls/live.crt"));
        assert_eq!(live, set(&root, ["archive", "archive/x", "etc"]));
    }
}
