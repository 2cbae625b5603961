//! One GET over http or https, as strict as consumers are: exactly 200, no redirects, a bounded answer. A
//! client library takes more of the binary than TLS does.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Status, parse_chunk_size};
use hyper::Uri;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long it may take in all, but for the look-up of the host's name.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes of an answer beside its body.
const LONGEST_HEAD: usize = 64 * 1024;

/// The body of the answer, which may have at most `most` bytes. What is wrong with a certificate is
/// [`io::ErrorKind::InvalidData`].
pub(super) fn get(url: &str, most: usize) -> io::Result<Vec<u8>> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
        return Err(io::Error::other("it names no host"));
    };
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = authority.as_str().rsplit('@').next().unwrap_or_default();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\naccept-encoding: identity\r\n\
         accept: application/jwk-set+json, application/json\r\n\r\n"
    );
    let host = host.trim_matches(['[', ']']);
    let stream = connect(host, port)?;
    if is_tls {
        exchange(secured(host, stream)?, &request, most)
    } else {
        exchange(stream, &request, most)
    }
}

/// A connection that ends when the patience does, however slowly the other side goes on.
struct TimedStream {
    stream: TcpStream,
    deadline: Instant,
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn connect(host: &str, port: u16) -> io::Result<TimedStream> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = io::Error::other("the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, remaining(deadline)?) {
            Ok(stream) => return Ok(TimedStream { stream, deadline }),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Read for TimedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(remaining(self.deadline)?))?;
        self.stream.read(buffer).map_err(as_timeout)
    }
}

impl Write for TimedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(remaining(self.deadline)?))?;
        self.stream.write(bytes).map_err(as_timeout)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel says that it would block.
fn as_timeout(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

fn secured(
    host: &str,
    stream: TimedStream,
) -> io::Result<StreamOwned<ClientConnection, TimedStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(authorities()?)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(session, stream))
}

/// Where distributions keep the certificates of authorities.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn authorities() -> io::Result<RootCertStore> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = || BUNDLES.iter().map(PathBuf::from).find(|file| file.exists());
    let file = named
        .or_else(known)
        .ok_or_else(|| invalid("there are no certificates of authorities here".to_owned()))?;
    let shown = file.display();
    let bytes = std::fs::read(&file).map_err(|error| invalid(format!("{shown}: {error}")))?;
    let blocks = pem::parse_many(bytes).map_err(|error| invalid(format!("{shown}: {error}")))?;
    let mut roots = RootCertStore::empty();
    let certificates = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE");
    roots.add_parsable_certificates(certificates.map(|block| block.into_contents().into()));
    if roots.is_empty() {
        return Err(invalid(format!("{shown} has no certificate of an authority")));
    }
    Ok(roots)
}

fn exchange(mut stream: impl Read + Write, request: &str, most: usize) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..count]);
        if let Some(body) = body_of(&answer, count == 0)? {
            if body.len() <= most {
                return Ok(body);
            }
            return Err(io::Error::other(format!("it has more than {most} bytes")));
        }
        if count == 0 {
            return Err(io::Error::other("the answer has no end"));
        }
        if answer.len() > most + LONGEST_HEAD {
            return Err(io::Error::other(format!("it has more than {most} bytes")));
        }
    }
}

/// The body as soon as it is whole (RFC 9112 §6).
fn body_of(answer: &[u8], is_end: bool) -> io::Result<Option<Vec<u8>>> {
    let mut headers = [EMPTY_HEADER; 100];
    let mut head = httparse::Response::new(&mut headers);
    let Status::Complete(length) = head.parse(answer).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let (status, rest) = (head.code.unwrap_or_default(), &answer[length..]);
    match status {
        100..200 => return body_of(rest, is_end),
        200 => {}
        _ => return Err(io::Error::other(format!("the answer is {status} and not 200"))),
    }
    let value = |name: &str| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    if value("transfer-encoding").is_some() {
        return unchunked(rest);
    }
    match value("content-length").map(str::parse) {
        Some(Ok(length)) => Ok(rest.get(..length).map(<[u8]>::to_vec)),
        Some(Err(error)) => Err(io::Error::other(error)),
        None => Ok(is_end.then(|| rest.to_vec())),
    }
}

/// The body without the framing of its chunks (RFC 9112 §7.1), as soon as it is whole.
fn unchunked(mut rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let begun = parse_chunk_size(rest).map_err(|error| io::Error::other(error.to_string()))?;
        let Status::Complete((start, size)) = begun else { return Ok(None) };
        if size == 0 {
            return Ok(Some(body));
        }
        let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
        let end = end.ok_or_else(|| io::Error::other("a chunk has no end"))?;
        let (Some(chunk), Some(next)) =
            (rest.get(start..end), rest.get(end..).and_then(|rest| rest.get(2..)))
        else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        rest = next;
    }
}
