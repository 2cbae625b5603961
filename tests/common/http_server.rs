//! A server with a handler for tests, and a client that speaks HTTP/1.1 by the byte; both over TCP
//! and over Unix sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response};
use jwksd::clock::SystemClock;
use jwksd::config::{ConnectionLimits as Limits, ListenAddress};
use jwksd::server::body::Body;
use jwksd::server::connections::Connections;
use jwksd::server::listener::Listener;
use jwksd::server::peer::Peer;
use jwksd::server::tls::TlsConfig;
use jwksd::server::{Handler, PendingResponse, serve};
use tokio::sync::watch;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const SHORT: Duration = Duration::from_millis(200);

/// More than the buffers between two sockets of one machine.
pub const BIG: usize = 64 << 20;

/// The length of a body of nothing but the digit 4.
pub const DIGITS: usize = 8 << 20;

pub const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Limits of which none is reached, but those that a test sets.
pub fn limits() -> Limits {
    Limits {
        max_connections: 1024,
        header_timeout: PATIENCE * 10,
        idle_timeout: PATIENCE * 10,
        write_timeout: PATIENCE * 10,
        max_connection_age: PATIENCE * 10,
        max_header_bytes: 16 * 1024,
        max_headers: 100,
    }
}

#[derive(Clone)]
struct TestHandler {
    big: Bytes,
    go_on: watch::Receiver<bool>,
    waiting: Arc<AtomicUsize>,
}

impl Handler for TestHandler {
    fn answer(&self, request: Request<Incoming>, peer: &Peer) -> PendingResponse {
        let Self { big, mut go_on, waiting } = self.clone();
        let peer = peer.clone();
        PendingResponse::later(async move {
            Response::new(match request.uri().path() {
                "/big" => Body::from(big),
                "/digits" => Body::from(vec![b'4'; DIGITS]),
                "/panic" => panic!("as the test asks"),
                "/peer" => Body::from(format!("{peer:?}")),
                "/wait" => {
                    waiting.fetch_add(1, Ordering::SeqCst);
                    let _ = go_on.wait_for(|go_on| *go_on).await;
                    Body::from("waited")
                }
                path => Body::from(path.to_owned()),
            })
        })
    }
}

pub struct Server {
    pub address: ListenAddress,
    pub connections: Arc<Connections>,
    pub waiting: Arc<AtomicUsize>,
    pub go_on: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    worker: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(limits: Limits) -> Self {
        Self::start_with_drain(limits, PATIENCE)
    }

    pub fn start_with_drain(limits: Limits, drain: Duration) -> Self {
        Self::start_on(&"127.0.0.1:0".parse().unwrap(), limits, drain)
    }

    /// Listens on any address; a Unix socket is open to everybody.
    pub fn start_on(address: &ListenAddress, limits: Limits, drain: Duration) -> Self {
        Self::start_secured(address, None, limits, drain)
    }

    /// The same behind TLS.
    pub fn start_secured(
        address: &ListenAddress,
        tls: Option<TlsConfig>,
        limits: Limits,
        drain: Duration,
    ) -> Self {
        let connections = Connections::new(limits, Arc::new(SystemClock));
        let (go_on, may_go_on) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let waiting = Arc::new(AtomicUsize::new(0));
        let handler = Arc::new(TestHandler {
            big: vec![b'x'; BIG].into(),
            go_on: may_go_on,
            waiting: Arc::clone(&waiting),
        });
        let (bound, address_when_bound) = mpsc::channel();
        let worker = thread::spawn({
            let (address, connections) = (address.clone(), Arc::clone(&connections));
            move || {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                runtime.enable_all().build().unwrap().block_on(async {
                    let listener = Listener::bind(&address, 0o666).await.unwrap();
                    let listener = listener.with_tls(tls.as_ref());
                    bound.send(listener.local_address().unwrap()).unwrap();
                    serve(listener, handler, connections, stopped, drain).await;
                });
            }
        });
        let address = address_when_bound.recv().unwrap();
        Self { address, connections, waiting, go_on, stop, worker: Some(worker) }
    }

    pub fn connect(&self) -> Client {
        Client::open(&self.address).unwrap()
    }

    /// A connection whose request the handler is working at.
    pub fn connect_and_wait(&self) -> Client {
        let mut client = self.connect();
        let before = self.waiting.load(Ordering::SeqCst);
        client.send(&GET.replace("/ ", "/wait "));
        eventually(|| self.waiting.load(Ordering::SeqCst) > before);
        client
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// How long the server takes to end.
    pub fn join(mut self) -> Duration {
        let start = Instant::now();
        self.worker.take().unwrap().join().unwrap();
        start.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        self.go_on.send_replace(true);
        if let Some(worker) = self.worker.take()
            && !thread::panicking()
        {
            worker.join().unwrap();
        }
    }
}

pub fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come to pass");
        thread::sleep(Duration::from_millis(2));
    }
}

pub struct Client {
    pub stream: TcpStream,
    pub unread: Vec<u8>,
}

pub struct Answered {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answered {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    /// That it is a refusal in our words, and the last thing said.
    #[track_caller]
    pub fn assert_refusal(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.head);
        assert_eq!(self.field("content-type"), Some("application/problem+json"));
        assert_eq!(self.field("cache-control"), Some("no-store"));
        assert_eq!(self.field("connection"), Some("close"));
        assert!(self.field("date").is_some());
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body["status"], status);
    }
}

impl Client {
    pub fn open(address: &ListenAddress) -> io::Result<Self> {
        let stream = match address {
            ListenAddress::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream
            }
            // To the standard library either is a descriptor, of the same system calls.
            ListenAddress::Unix(path) => OwnedFd::from(UnixStream::connect(path)?).into(),
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Reads a response; `None` where the connection was closed without one.
    pub fn try_receive(&mut self) -> Option<Answered> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|end| end == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.fill() {
                assert!(self.unread.is_empty(), "half a head: {:?}", self.unread);
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).unwrap();
        let mut answered =
            Answered { status: head[9..12].parse().unwrap(), head, body: Vec::new() };
        let length = answered.field("content-length").map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length {
            assert!(self.fill(), "half a body");
        }
        answered.body = self.unread.drain(..length).collect();
        Some(answered)
    }

    #[track_caller]
    pub fn receive(&mut self) -> Answered {
        self.try_receive().expect("a response")
    }

    pub fn fill(&mut self) -> bool {
        let mut space = [0; 8 * 1024];
        match self.stream.read(&mut space) {
            Ok(length) => {
                self.unread.extend_from_slice(&space[..length]);
                length > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    pub fn assert_works(&mut self) {
        self.send(GET);
        assert_eq!(self.receive().status, 200);
    }

    #[track_caller]
    pub fn assert_closed(&mut self) {
        assert!(self.try_receive().is_none(), "closed without another word");
    }
}
