//! Documents as files, for web servers: as they are served, through whatever happens.

use crate::common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::daemon::{Connection, Daemon, Response, drop_by_rename, eventually, jwksd};
use common::faults::new_pem;
use jwksd::encoding::{hex, sha256};
use serde_json::{Value, json};

const SET: &str = "/.well-known/jwks.json";

struct Site {
    keys: tempfile::TempDir,
    root: tempfile::TempDir,
}

/// nginx with the configuration of deploy/, on a Unix socket. Killed when dropped.
struct Nginx {
    child: Child,
    directory: tempfile::TempDir,
}

impl Nginx {
    /// None, with a word about it, where there is none.
    fn start(root: &Path) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/export/nginx.conf");
        let server = fs::read_to_string(server).unwrap();
        let server = server.replace("/srv/jwks;", &format!("{};", root.display()));
        let server = server.replace("listen 8080;", &format!("listen unix:{};", at("socket")));
        // Its workers are somebody else where root starts it, who can't enter a directory of the test's.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let text = format!(
            "daemon off; {user} worker_processes 1; pid {}; error_log {};\nevents {{ }}\n\
             http {{ access_log off; {server} }}\n",
            at("pid"),
            at("error.log")
        );
        fs::write(at("nginx.conf"), text).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-c", &at("nginx.conf"), "-e", &at("error.log"), "-p", &at("")]);
        let Ok(child) = command.stderr(Stdio::null()).spawn() else {
            eprintln!("without nginx, which is not to be had");
            return None;
        };
        let nginx = Self { child, directory };
        eventually("nginx listens", || nginx.open().ok());
        Some(nginx)
    }

    fn open(&self) -> std::io::Result<Connection<UnixStream>> {
        Connection::open_unix(&self.directory.path().join("socket"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Site {
    fn new() -> Self {
        Self { keys: tempfile::tempdir().unwrap(), root: tempfile::tempdir().unwrap() }
    }

    fn put(&self, kid: &str, attributes: &Value) {
        let mut attributes = attributes.clone();
        attributes["keyId"] = kid.into();
        drop_by_rename(self.keys.path(), &format!("{kid}.meta.json"), attributes.to_string());
        drop_by_rename(self.keys.path(), &format!("{kid}.pem"), new_pem());
    }

    fn start(&self, environment: &[(&str, &str)]) -> Daemon {
        Daemon::start_with(self.keys.path(), |command| {
            command.env("JWKSD_EXPORT_DIR", self.root.path());
            command.env("JWKSD_KEYS_POLL_INTERVAL", "200ms").envs(environment.iter().copied())
        })
    }

    fn file(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.root.path().join(path.trim_start_matches('/'))).ok()
    }

    fn kids(&self, path: &str) -> Vec<String> {
        let set: Value =
            self.file(path).map_or(Value::Null, |set| serde_json::from_slice(&set).unwrap());
        let keys = set["keys"].as_array().cloned().unwrap_or_default();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    fn listed(&self) -> Vec<Value> {
        let manifest = self.file("jwksd-export.json").unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        manifest["documents"].as_array().unwrap().clone()
    }

    fn paths(&self) -> BTreeSet<String> {
        self.listed().iter().map(|one| one["path"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the set of all has these kids, and then sees that every file is what is served.
    fn await_kids(&self, daemon: &Daemon, nginx: Option<&Nginx>, expected: &[&str]) {
        daemon.await_kids(expected);
        eventually(&format!("{expected:?} are exported"), || {
            let mut kids = self.kids(SET);
            kids.sort_unstable();
            (kids == expected).then_some(())
        });
        eventually("every file is listed as it is served", || {
            self.listed().iter().all(|listed| is_served(self, daemon, listed)).then_some(())
        });
        for path in nginx.iter().flat_map(|_| self.paths()) {
            let nginx = nginx.unwrap().open().unwrap().request("GET", &path, &[]).unwrap();
            let served = daemon.get(&path);
            assert_eq!((nginx.status, &nginx.body), (200, &served.body), "{path}");
            assert_eq!(nginx.header("content-type"), served.header("content-type"), "{path}");
            assert_eq!(nginx.max_age(), 60, "{path}");
            assert_eq!((nginx.header("etag"), nginx.header("last-modified")), ("", ""), "{path}");
        }
    }
}

fn is_served(site: &Site, daemon: &Daemon, listed: &Value) -> bool {
    let path = listed["path"].as_str().unwrap();
    let (served, file) = (daemon.get(path), site.file(path));
    assert_eq!(served.status, 200, "{path}");
    assert_eq!(listed["contentType"], served.header("content-type"), "{path}");
    let max_age = listed["maxAge"].as_u64().unwrap();
    assert!((served.max_age()..=300).contains(&max_age), "{path}: {max_age}");
    file.is_some_and(|file| file == served.body && listed["digest"] == json!(hex(&sha256(&file))))
}

fn status(daemon: &Daemon) -> Value {
    ops(daemon, "/status").json()["export"].clone()
}

fn ops(daemon: &Daemon, path: &str) -> Response {
    Connection::open(daemon.address_of("ops")).unwrap().request("GET", path, &[]).unwrap()
}

fn failing(daemon: &Daemon) -> Option<String> {
    let metrics = ops(daemon, "/metrics").text();
    let value = metrics.lines().find_map(|line| line.strip_prefix("jwksd_export_failing "));
    value.map(str::to_owned)
}

#[test]
fn files_are_what_is_served_through_a_rotation_a_deletion_and_a_restart() {
    let site = Site::new();
    site.put("a", &json!({}));
    let nginx = Nginx::start(site.root.path());
    let nginx = nginx.as_ref();
    let issuer = [("JWKSD_PUBLISH_ISSUER", "https://id.example")];
    let daemon = site.start(&issuer);
    site.await_kids(&daemon, nginx, &["a"]);
    let served = [
        SET,
        "/client/.well-known/jwks.json",
        "/human/.well-known/jwks.json",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/client/.well-known/openid-configuration",
    ];
    assert!(served.iter().all(|path| site.paths().contains(*path)), "{:?}", site.paths());
    // What is below a file can't be a file.
    assert!(!site.paths().contains("/.well-known/openid-configuration/client"));

    site.put("b", &json!({}));
    site.await_kids(&daemon, nginx, &["a", "b"]);
    let mut command = jwksd();
    command.args(["keys", "delete", "a", "--yes", "--keys"]).arg(site.keys.path());
    assert!(command.output().unwrap().status.success());
    site.await_kids(&daemon, nginx, &["b"]);
    daemon.crash();

    site.put("c", &json!({}));
    fs::write(site.root.path().join("index.html"), "of somebody else").unwrap();
    let daemon = site.start(&[]);
    site.await_kids(&daemon, nginx, &["b", "c"]);
    // Discovery documents are no longer configured.
    eventually("they are removed", || {
        site.file("/client/.well-known/openid-configuration").is_none().then_some(())
    });
    eventually("and no longer listed", || (site.paths().len() == 3).then_some(()));
    if let Some(nginx) = nginx {
        let path = "/client/.well-known/openid-configuration";
        assert_eq!(nginx.open().unwrap().request("GET", path, &[]).unwrap().status, 404);
    }
    assert!(site.file("index.html").is_some());
    let status = status(&daemon);
    assert_eq!((&status["documents"], &status["error"]), (&json!(3), &Value::Null));
    assert_eq!(failing(&daemon).as_deref(), Some("0.0"));
}

#[test]
fn a_key_is_out_of_the_files_when_it_ends_and_the_list_says_when_that_is() {
    let site = Site::new();
    let end = common::daemon::now() + std::time::Duration::from_secs(6);
    site.put("a", &json!({ "validTo": end }));
    site.put("b", &json!({}));
    let daemon = site.start(&[("JWKSD_KEYS_POLL_INTERVAL", "10m")]);
    eventually("both are exported", || (site.kids(SET).len() == 2).then_some(()));
    let listed = site.listed();
    let all = listed.iter().find(|one| one["path"] == SET).unwrap();
    let at = |member: &str| all[member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(at("nextEnd") <= end && at("nextChange") <= end, "{all}");
    assert!(all["maxAge"].as_u64().unwrap() <= 6, "{all}");
    eventually("its end has come", || (site.kids(SET) == ["b"]).then_some(()));
    drop(daemon);
}

#[test]
fn what_cannot_be_exported_is_said_and_costs_nothing_else() {
    let site = Site::new();
    site.put("a", &json!({}));
    // A link is never followed, wherever it leads.
    let elsewhere = tempfile::tempdir().unwrap();
    let link = site.root.path().join("client");
    std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
    let daemon = site.start(&[]);
    daemon.await_kids(&["a"]);
    let error = eventually("it is told", || status(&daemon)["error"].as_str().map(str::to_owned));
    assert!(error.contains("/client/.well-known/jwks.json"), "{error}");
    assert_eq!(failing(&daemon).as_deref(), Some("1.0"));
    eventually("it is logged", || {
        daemon.log().iter().any(|line| line.contains("export.failed")).then_some(())
    });
    assert_eq!(site.kids(SET), ["a"]);
    assert_eq!(daemon.get("/client/.well-known/jwks.json").kids(), ["a"]);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    fs::remove_file(link).unwrap();
    eventually("it is tried again", || {
        daemon.log().iter().any(|line| line.contains("export.restored")).then_some(())
    });
    site.await_kids(&daemon, None, &["a"]);
    // And so is what somebody took away.
    fs::remove_dir_all(site.root.path().join("client")).unwrap();
    fs::remove_file(site.root.path().join("jwksd-export.json")).unwrap();
    eventually("it is there again", || site.file("/client/.well-known/jwks.json"));
}

#[test]
fn a_manifest_leads_to_nothing_outside_its_directory() {
    let site = Site::new();
    site.put("a", &json!({}));
    let root = site.root.path().join("site");
    fs::create_dir(&root).unwrap();
    let outside = site.root.path().join("precious");
    fs::write(&outside, "").unwrap();
    let entry = |path: &str| {
        json!({ "path": path, "digest": "", "contentType": "", "maxAge": 0, "nextChange": null,
                "nextEnd": null })
    };
    let paths = ["/../precious", outside.to_str().unwrap(), "/x/../../precious"];
    let manifest = json!({ "documents": paths.map(entry) });
    fs::write(root.join("jwksd-export.json"), manifest.to_string()).unwrap();
    assert!(export(&site, &root, &[]).status.success());
    assert!(outside.exists());
    assert!(root.join(".well-known/jwks.json").exists());
}

fn export(site: &Site, root: &Path, more: &[&str]) -> std::process::Output {
    let mut command = jwksd();
    command.arg("export").arg(root).arg("--keys").arg(site.keys.path()).args(more);
    command.output().unwrap()
}

#[test]
fn the_command_exports_once_as_of_any_time() {
    let site = Site::new();
    site.put("a", &json!({}));
    let start = common::daemon::now() + std::time::Duration::from_secs(48 * 3600);
    site.put("b", &json!({ "validFrom": start }));
    let root = site.root.path().join("made");
    let output = export(&site, &root, &[]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("3 documents are in {}\n", root.display())
    );
    let kids = || {
        let set: Value = serde_json::from_slice(&fs::read(root.join(&SET[1..])).unwrap()).unwrap();
        set["keys"].as_array().unwrap().len()
    };
    assert_eq!(kids(), 1);
    assert!(export(&site, &root, &["--at", "+30h"]).status.success());
    assert_eq!(kids(), 2);
    for wrong in
        [site.keys.path(), &site.keys.path().join("below"), site.keys.path().parent().unwrap()]
    {
        let output = export(&site, wrong, &[]);
        assert_eq!(output.status.code(), Some(1), "{}", wrong.display());
    }
}
