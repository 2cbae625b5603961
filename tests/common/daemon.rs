//! The real program as a child process, and a client that shows every byte of its answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use jwksd::clock::{Clock as _, SystemClock};
use jwksd::encoding::hex;
use serde_json::Value;

/// The instant now.
pub fn now() -> Timestamp {
    SystemClock.now()
}

/// How long anything that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` yields something, and panics with `what` where it never does.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A running `jwksd serve`. Killed when dropped.
pub struct Daemon {
    child: Child,
    /// Where the public listener is.
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    /// Starts the daemon on `keys`, its ledger in `.jwksd` there.
    pub fn start(keys: &Path) -> Self {
        Self::start_with(keys, |command| command)
    }

    /// Starts it with further arguments or environment.
    pub fn start_with(keys: &Path, with: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut command = jwksd();
        command.arg("serve").arg("--keys").arg(keys).args(["--listen", "127.0.0.1:0"]);
        command.args(["--ops-listen", "127.0.0.1:0", "--log-format", "json"]);
        with(&mut command);
        command.stdout(Stdio::null());
        Self::run(command)
    }

    /// Runs a command that becomes the daemon.
    pub fn run(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        // The descriptors that it was given are its own now.
        drop(command);
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        let address = eventually("the daemon listens", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the daemon ended with {status}: {:#?}", log.lock().unwrap());
            }
            log.lock().unwrap().iter().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == "listening" && line["listener"] == "public")
                    .then(|| line["address"].as_str()?.parse().ok())?
            })
        });
        Self { child, address, log }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Every line that it logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Every audit line of the log so far.
    pub fn audit(&self) -> Vec<Value> {
        let lines = self.log().into_iter().filter(|line| line.contains("key operation"));
        let lines = lines.map(|line| serde_json::from_str(&line).unwrap());
        lines.filter(|line: &Value| line["message"] == "key operation").collect()
    }

    /// Where one of its other listeners is, by TCP.
    pub fn address_of(&self, listener: &str) -> SocketAddr {
        eventually("it listens", || {
            self.log().iter().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == "listening" && line["listener"] == listener)
                    .then(|| line["address"].as_str()?.parse().ok())?
            })
        })
    }

    /// GETs a path on a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        self.try_get(path).unwrap()
    }

    /// The same, where the daemon may not be answering.
    pub fn try_get(&self, path: &str) -> std::io::Result<Response> {
        Connection::open(self.address)?.request("GET", path, &[])
    }

    /// The kids of the served set, in its order, as soon as there is one.
    pub fn kids(&self) -> Vec<String> {
        eventually("the keys are read", || {
            let response = self.get("/.well-known/jwks.json");
            (response.status == 200).then(|| response.kids())
        })
    }

    /// Waits until the served set has exactly these kids, in any order.
    pub fn await_kids(&self, expected: &[&str]) {
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        let mut last = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let response = self.get("/.well-known/jwks.json");
            if response.status == 200 {
                last = response.kids();
                last.sort_unstable();
                if last == expected {
                    return;
                }
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panic!("served {last:?}, not {expected:?}; log: {:#?}", self.log());
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills it without a word, as a crash would.
    pub fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        eventually("the daemon ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, with nothing of the environment that would configure it.
pub fn jwksd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jwksd"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("JWKSD_") {
            command.env_remove(name);
        }
    }
    command
}

/// A kept-alive connection.
pub struct Connection<S = TcpStream>(BufReader<S>);

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream))
    }
}

impl Connection<UnixStream> {
    /// Connects to a Unix socket.
    pub fn open_unix(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream))
    }
}

impl<S: Read + Write> Connection<S> {
    /// Speaks by any stream.
    pub fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends a request and reads the whole answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> std::io::Result<Response> {
        let head = head(method, path, headers);
        self.send(format!("{head}\r\n").as_bytes(), method == "HEAD")
    }

    /// The same with a body, whose length is declared.
    pub fn request_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let head = head(method, path, headers);
        let head = format!("{head}content-length: {}\r\n\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat(), method == "HEAD")
    }

    /// Sends these bytes and reads one answer.
    pub fn send(&mut self, bytes: &[u8], is_head: bool) -> std::io::Result<Response> {
        self.0.get_mut().write_all(bytes)?;
        self.read(is_head)
    }

    fn read(&mut self, is_head: bool) -> std::io::Result<Response> {
        let broken = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or_else(|| broken("no status line"))?;
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let empty = is_head || matches!(status, 204 | 304);
        let mut body = vec![0; if empty { 0 } else { length.unwrap_or(0) }];
        self.0.read_exact(&mut body)?;
        let is_chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let mut is_more = is_chunked && !empty;
        while is_more {
            line.clear();
            self.0.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16);
            let size = size.map_err(|_| broken("no size of a chunk"))?;
            let mut chunk = vec![0; size + 2];
            self.0.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
            is_more = size > 0;
        }
        Ok(Response { status, headers, body })
    }
}

/// The first lines of a request.
fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl Response {
    /// A header, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The kids of a JWK Set.
    pub fn kids(&self) -> Vec<String> {
        let set = self.json();
        let keys = set["keys"].as_array().unwrap();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    /// The max-age of its Cache-Control, in seconds.
    pub fn max_age(&self) -> u64 {
        let directives = self.header("cache-control").split(", ");
        directives
            .filter_map(|directive| directive.strip_prefix("max-age="))
            .map(|seconds| seconds.parse().unwrap())
            .next()
            .unwrap()
    }
}

/// The `ETag` of an answer with this body.
pub fn etag_of(body: &[u8]) -> String {
    format!("\"{}\"", hex(digest(&SHA256, body).as_ref()))
}

/// Puts a file in place as one step, as every careful writer does.
pub fn drop_by_rename(directory: &Path, name: &str, content: impl AsRef<[u8]>) {
    let temporary = directory.join(format!(".{name}.part"));
    std::fs::write(&temporary, content).unwrap();
    std::fs::rename(temporary, directory.join(name)).unwrap();
}
