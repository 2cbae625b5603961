//! Clients that take nothing of a large answer, behind TLS.

use std::io::Write as _;
use std::net::SocketAddr;

use jwksd::clock::{Clock as _, SystemClock};
use jwksd::config::ListenAddress;
use jwksd::server::tls::TlsConfig;
use jwksd::server::tls::pair::Files;
use jwksd::server::tls::served::Reloader;

use super::clients::{Certificate, H2, HEADERS, HTTP1, Http2, by_hand, connect, frame, get};
use crate::common::daemon::{Connection, eventually};
use crate::common::http_server::{BIG, PATIENCE, SHORT, Server, limits};

/// A server with a large answer at `/big`, and room for so many connections.
fn server(certificate: &Certificate, max_connections: usize) -> (Server, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    certificate.write(directory.path());
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
    let reloader =
        Reloader::start("public", Files { certificate, key }, SystemClock.now()).unwrap();
    let tls = TlsConfig::by(reloader.served()).unwrap();
    let mut limits = limits();
    limits.write_timeout = SHORT;
    limits.max_connections = max_connections;
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let server = Server::start_secured(&anywhere, Some(tls), limits, PATIENCE);
    let ListenAddress::Tcp(address) = server.address else { unreachable!("it is TCP") };
    (server, address)
}

fn write_times(server: &Server) -> u64 {
    let mut reached = server.connections.reached().all();
    reached.find(|(limit, _)| *limit == "write-time").unwrap().1
}

#[test]
fn a_client_of_http_1_that_never_reads_is_cut() {
    let certificate = Certificate::new();
    let (server, address) = server(&certificate, 1024);
    let mut client = connect(address, &certificate.client(HTTP1)).unwrap();
    client.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    client.flush().unwrap();
    eventually("it is cut", || (write_times(&server) == 1).then_some(()));
    eventually("it is gone", || server.connections.is_empty().then_some(()));
    // Who reads gets all of it.
    let mut client = Connection::over(connect(address, &certificate.client(HTTP1)).unwrap());
    assert_eq!(client.request("GET", "/big", &[]).unwrap().body.len(), BIG);
}

#[test]
fn a_client_of_http_2_that_never_reads_is_cut() {
    let certificate = Certificate::new();
    let (server, address) = server(&certificate, 1024);
    // Room for everything, on the stream and on the connection.
    let mut client = by_hand(address, &certificate, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    client.write_all(&frame(0x8, 0, 0, &[0x7f, 0xff, 0, 0])).unwrap();
    let block = [&[0x82, 0x87, 0x44, 4][..], b"/big", &[0x41, 1, b'a']].concat();
    client.write_all(&frame(HEADERS, 0x5, 1, &block)).unwrap();
    client.flush().unwrap();
    eventually("it is cut", || (write_times(&server) == 1).then_some(()));
    eventually("it is gone", || server.connections.is_empty().then_some(()));
    let mut client = Http2::open(address, &certificate.client(H2));
    assert_eq!(client.ask(get("/big")).unwrap().body().len(), BIG);
    // A defect costs its own request.
    assert_eq!(client.get("/panic").status(), 500);
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn a_connection_too_many_is_told_so_in_http_1() {
    let certificate = Certificate::new();
    let (_server, address) = server(&certificate, 0);
    let stream = connect(address, &certificate.client(&["h2", "http/1.1"])).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = Connection::over(stream).request("GET", "/", &[]).unwrap();
    assert_eq!((answer.status, answer.header("connection")), (503, "close"));
    assert_eq!(answer.header("content-type"), "application/problem+json");
}
