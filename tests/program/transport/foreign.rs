//! Proxies and clients that are set up for another protocol than the listener's.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::common::daemon::{Daemon, PATIENCE};
use super::common::faults::{assert_logged, await_log};
use super::{Site, await_ready, reached};

const GET: &str = "GET /.well-known/jwks.json HTTP/1.1\r\nhost: a\r\n\r\n";

/// What comes back for these bytes, until the connection is closed.
fn answer(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn another_protocol_is_named_counted_and_logged_once_a_minute() {
    let site = Site::new();
    let daemon = Daemon::start(&site.keys());
    await_ready(&daemon);
    let hello = [&[0x16, 0x03, 0x01, 0x00, 0x05, 0x01][..], &[0; 40]].concat();
    let version_1 = format!("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n{GET}").into_bytes();
    let version_2 =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", &[1; 12][..], GET.as_bytes()].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for (limit, cause, kinds) in [
        ("tls", "the client speaks TLS", vec![hello]),
        ("proxy-header", "the PROXY protocol", vec![version_1.clone(), version_2]),
        ("http2", "HTTP/2 without TLS", vec![preface]),
    ] {
        let mut count = 0.0;
        for bytes in kinds.iter().chain(&kinds) {
            let answer = answer(daemon.address, bytes);
            assert!(answer.starts_with("HTTP/1.1 400 "), "{limit}: {answer}");
            assert_eq!(answer.contains("over TLS"), limit == "http2", "{answer}");
            count += 1.0;
            assert!((reached(&daemon, limit) - count).abs() < 0.1, "{limit}");
        }
        await_log(&daemon, &["protocol.refused", cause, "remedy", "127.0.0.1"]);
    }
    assert_logged(&daemon, &["protocol.refused"], 3);
    assert!(reached(&daemon, "malformed") < 0.1);

    // Before a handshake, too.
    let secured = site.start(|command| command);
    answer(secured.address, &version_1);
    await_log(&secured, &["protocol.refused", "the PROXY protocol"]);
}
