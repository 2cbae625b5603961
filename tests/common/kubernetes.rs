//! The little of the Kubernetes API that a fleet needs, with its faults: the Secret of its ledger, which
//! is read, watched, and replaced on the version that was read, and one of keys.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// An API server with the Secrets `jwksd-ledger` and `iam-signing-keys` in the namespace `iam`.
pub struct ApiServer {
    shared: Arc<Shared>,
    pub address: SocketAddr,
    directory: tempfile::TempDir,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    secret: Value,
    keys: Value,
    version: u64,
    /// Answers nothing, as if it were away.
    is_away: bool,
    /// Carries out this many writes without an answer.
    lost_answers: usize,
    /// The status with which everything is refused.
    refusal: Option<u16>,
    writes: usize,
    watches: usize,
    /// What the `Date` field is ahead by, in seconds.
    clock_ahead: i64,
}

impl ApiServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        shared.replace(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": "jwksd-ledger", "namespace": "iam", "labels": { "kept": "yes" } },
        }));
        shared.state.lock().unwrap().keys = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": "iam-signing-keys", "namespace": "iam", "resourceVersion": "1" },
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || shared.serve(&connection));
            }
        });
        Self { shared, address, directory: tempfile::tempdir().unwrap() }
    }

    /// A kubeconfig by which it is reached.
    pub fn kubeconfig(&self) -> PathBuf {
        let file = self.directory.path().join("kubeconfig");
        let authority = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
        let server = format!("http://{}", self.address);
        let cluster = json!({
            "server": server, "certificate-authority-data": STANDARD.encode(authority),
        });
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{ "name": "here", "cluster": cluster }],
            "contexts": [{ "name": "here", "context": { "cluster": "here", "user": "me", "namespace": "iam" } }],
            "users": [{ "name": "me", "user": {} }],
        });
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    pub fn secret(&self) -> Value {
        self.state().secret.clone()
    }

    /// The files of the Secret of keys.
    pub fn key_files(&self) -> Vec<(String, String)> {
        let keys = self.state().keys.clone();
        let data = keys["data"].as_object().cloned().unwrap_or_default();
        let text = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
        let files = data.iter().map(|(name, value)| (name.clone(), text(value)));
        files.map(|(name, bytes)| (name, String::from_utf8(bytes).unwrap())).collect()
    }

    pub fn writes(&self) -> usize {
        self.state().writes
    }

    pub fn watches(&self) -> usize {
        self.state().watches
    }

    /// Replaces the Secret as somebody else would.
    pub fn replace(&self, secret: Value) {
        self.shared.replace(secret);
    }

    pub fn set_away(&self, is_away: bool) {
        self.state().is_away = is_away;
        self.shared.changed.notify_all();
    }

    pub fn refuse(&self, status: Option<u16>) {
        self.state().refusal = status;
        self.shared.changed.notify_all();
    }

    pub fn lose_answers(&self, count: usize) {
        self.state().lost_answers = count;
    }

    pub fn set_clock_ahead(&self, seconds: i64) {
        self.state().clock_ahead = seconds;
    }
}

impl Shared {
    fn replace(&self, mut secret: Value) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        secret["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.secret = secret;
        self.changed.notify_all();
    }

    fn serve(&self, connection: &TcpStream) {
        let mut reader = BufReader::new(connection);
        while let Some((method, path, body)) = read_request(&mut reader) {
            let state = self.state.lock().unwrap();
            if state.is_away {
                return;
            }
            let refusal = state.refusal;
            drop(state);
            if let Some(status) = refusal {
                let message = json!({ "kind": "Status", "message": "not now", "code": status });
                self.answer(connection, status, &message);
            } else if path.contains("watch=true") {
                if path.contains("resourceVersion=0") {
                    return self.watch(connection);
                }
                // Without a version a server with an older etcd is silent for seconds.
                return drop((&*connection).read(&mut [0]));
            } else if path.ends_with("/api/v1/namespaces/iam/secrets/iam-signing-keys") {
                let (status, answer) = self.keys(&method, &body);
                self.answer(connection, status, &answer);
            } else if !path.ends_with("/api/v1/namespaces/iam/secrets/jwksd-ledger") {
                self.answer(connection, 404, &json!({ "kind": "Status", "message": "not found" }));
            } else if method == "GET" {
                let secret = self.state.lock().unwrap().secret.clone();
                self.answer(connection, 200, &secret);
            } else if !self.put(connection, serde_json::from_slice(&body).unwrap()) {
                return;
            }
        }
    }

    /// The answer to a request about the Secret of keys.
    fn keys(&self, method: &str, body: &[u8]) -> (u16, Value) {
        let mut state = self.state.lock().unwrap();
        if method == "GET" {
            return (200, state.keys.clone());
        }
        let mut next: Value = serde_json::from_slice(body).unwrap();
        let version = |secret: &Value| secret["metadata"]["resourceVersion"].clone();
        if version(&next) != version(&state.keys) {
            return (409, json!({ "kind": "Status", "message": "conflict" }));
        }
        let number: u64 = version(&next).as_str().unwrap().parse().unwrap();
        next["metadata"]["resourceVersion"] = json!((number + 1).to_string());
        state.keys = next.clone();
        (200, next)
    }

    /// Returns whether there was an answer.
    fn put(&self, connection: &TcpStream, secret: Value) -> bool {
        let mut state = self.state.lock().unwrap();
        let version = |secret: &Value| secret["metadata"]["resourceVersion"].clone();
        if version(&secret) != version(&state.secret) {
            drop(state);
            self.answer(connection, 409, &json!({ "kind": "Status", "message": "conflict" }));
            return true;
        }
        state.writes += 1;
        let is_lost = state.lost_answers > 0;
        state.lost_answers = state.lost_answers.saturating_sub(1);
        drop(state);
        self.replace(secret);
        if !is_lost {
            let secret = self.state.lock().unwrap().secret.clone();
            self.answer(connection, 200, &secret);
        }
        !is_lost
    }

    fn head(&self, status: u16, fields: &str) -> String {
        let ahead = jiff::SignedDuration::from_secs(self.state.lock().unwrap().clock_ahead);
        let date = super::daemon::now() + ahead;
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date);
        format!(
            "HTTP/1.1 {status} S\r\nDate: {}\r\nContent-Type: application/json\r\n{fields}\r\n\r\n",
            date.unwrap()
        )
    }

    fn answer(&self, mut connection: &TcpStream, status: u16, content: &Value) {
        let content = content.to_string();
        let head = self.head(status, &format!("Content-Length: {}", content.len()));
        let _ = connection.write_all(format!("{head}{content}").as_bytes());
    }

    /// What is there, and then every change for at most nine seconds.
    fn watch(&self, mut connection: &TcpStream) {
        let head = self.head(200, "Connection: close");
        let mut is_open = connection.write_all(head.as_bytes()).is_ok();
        let end = Instant::now() + Duration::from_secs(9);
        let mut told = 0;
        let mut state = self.state.lock().unwrap();
        state.watches += 1;
        while is_open && Instant::now() < end && !state.is_away && state.refusal.is_none() {
            if told < state.version {
                told = state.version;
                let event = json!({ "type": "MODIFIED", "object": state.secret });
                is_open = connection.write_all(format!("{event}\n").as_bytes()).is_ok();
            }
            state = self.changed.wait_timeout(state, Duration::from_millis(200)).unwrap().0;
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<(String, String, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (method, rest) = line.split_once(' ')?;
    let path = rest.split(' ').next()?.to_owned();
    let mut length = 0;
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).ok()?;
        let field = field.trim().to_ascii_lowercase();
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method.to_owned(), path, body))
}
