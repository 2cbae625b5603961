//! Certificates, and clients that speak TLS: HTTP/1.1, HTTP/2, and frames by the byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Request, Response};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tokio_rustls::TlsConnector;

use crate::common::daemon::{PATIENCE, drop_by_rename};

pub const H2: &[&str] = &["h2"];
pub const HTTP1: &[&str] = &["http/1.1"];

/// A self-signed certificate and its key.
pub struct Certificate {
    pub der: CertificateDer<'static>,
    pub chain: String,
    pub key: String,
}

impl Certificate {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { der: certificate.der().clone(), chain: certificate.pem(), key: key.serialize_pem() }
    }

    /// Writes both files, one after the other.
    pub fn write(&self, directory: &Path) {
        drop_by_rename(directory, "tls.crt", &self.chain);
        drop_by_rename(directory, "tls.key", &self.key);
    }

    /// A client that trusts it.
    pub fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        client(&[self], protocols, rustls::ALL_VERSIONS)
    }
}

/// A client that trusts these, of these versions of TLS.
pub fn client(
    trusted: &[&Certificate],
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.der.clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub type TlsConfig = StreamOwned<ClientConnection, TcpStream>;

/// Connects, and shakes hands.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsConfig> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The certificate that a server shows.
pub fn shown(stream: &TlsConfig) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Whether the other side closes the connection, whatever it says before.
pub fn is_closed(stream: &mut impl Read) -> bool {
    let mut space = [0; 4096];
    loop {
        match stream.read(&mut space) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                );
            }
        }
    }
}

/// A client that speaks HTTP/2 as it should.
pub struct Http2 {
    runtime: tokio::runtime::Runtime,
    send: h2::client::SendRequest<Bytes>,
    ended: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    pub fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (send, ended) = runtime.block_on(async {
            let socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let stream =
                TlsConnector::from(Arc::clone(config)).connect(name, socket).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let (send, connection) = h2::client::handshake(stream).await.unwrap();
            (send, tokio::spawn(connection))
        });
        Self { runtime, send, ended }
    }

    pub fn ask(&mut self, request: Request<()>) -> Result<Response<Bytes>, h2::Error> {
        let Self { runtime, send, .. } = self;
        runtime.block_on(async {
            let asked = async {
                std::future::poll_fn(|cx| send.poll_ready(cx)).await?;
                let (response, _) = send.send_request(request, true)?;
                let (head, mut body) = response.await?.into_parts();
                let mut bytes = Vec::new();
                while let Some(piece) = body.data().await {
                    let piece = piece?;
                    body.flow_control().release_capacity(piece.len())?;
                    bytes.extend_from_slice(&piece);
                }
                Ok(Response::from_parts(head, bytes.into()))
            };
            tokio::time::timeout(PATIENCE, asked).await.expect("an answer")
        })
    }

    pub fn get(&mut self, path: &str) -> Response<Bytes> {
        self.ask(get(path)).unwrap()
    }

    /// How the server ends the connection. A farewell of the client's may meet a closed socket.
    pub fn end(self) -> Result<(), h2::Error> {
        let Self { runtime, send: _send, ended } = self;
        runtime.block_on(async {
            let ended = tokio::time::timeout(PATIENCE, ended).await.expect("the connection ends");
            let is_closed = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
            match ended.unwrap() {
                Err(error) if error.get_io().is_some_and(is_closed) => Ok(()),
                ended => ended,
            }
        })
    }
}

pub fn get(path: &str) -> Request<()> {
    Request::get(format!("https://localhost{path}")).body(()).unwrap()
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const CONTINUATION: u8 = 0x9;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

/// The setting that answers have no room to go to (RFC 9113 §6.5.2).
pub const NO_ROOM: [u8; 6] = [0, 4, 0, 0, 0, 0];

/// What came in a frame.
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn read_frame(stream: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [a, b, c, kind, _, s0, s1, s2, s3] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload)?;
    Ok(Frame { kind, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
}

/// The fields of `GET /` at the authority `a` (RFC 7541 Appendix A).
pub const GET_BLOCK: &[u8] = &[0x82, 0x87, 0x84, 0x41, 1, b'a'];

/// The request `GET /` on a stream.
pub fn get_frame(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET_BLOCK)
}

/// A connection whose frames are written by hand, after its preface with these settings.
pub fn by_hand(address: SocketAddr, certificate: &Certificate, settings: &[u8]) -> TlsConfig {
    let mut stream = connect(address, &certificate.client(H2)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, settings)).unwrap();
    stream.flush().unwrap();
    stream
}
