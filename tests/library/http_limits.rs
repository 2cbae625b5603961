//! What a connection may do and for how long, over real sockets.

use crate::common::http_server;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use http_server::Server;
use http_server::{BIG, Client, GET, PATIENCE, SHORT, eventually, limits};
use jwksd::config::ConnectionLimits as Limits;

#[test]
fn a_silent_client_is_closed_on() {
    let server = Server::start(Limits { header_timeout: SHORT, ..limits() });
    let start = Instant::now();
    server.connect().assert_closed();
    assert!(start.elapsed() >= SHORT);
}

#[test]
fn a_head_that_drips_is_refused_however_steadily() {
    let server = Server::start(Limits { header_timeout: SHORT, ..limits() });
    let mut client = server.connect();
    let mut writer = client.stream.try_clone().unwrap();
    let drip = thread::spawn(move || {
        let start = Instant::now();
        let _ = writer.write_all(b"GET / HTTP/1.1\r\nx: ");
        while start.elapsed() < PATIENCE && writer.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let start = Instant::now();
    client.receive().assert_refusal(408);
    assert!(start.elapsed() >= SHORT);
    drop(client);
    drip.join().unwrap();
}

#[test]
fn the_next_head_has_its_own_time() {
    let server = Server::start(Limits { header_timeout: SHORT, ..limits() });
    let mut client = server.connect();
    client.assert_works();
    client.send("GET / HT");
    client.receive().assert_refusal(408);
    client.assert_closed();
}

#[test]
fn half_a_head_that_came_with_the_request_before_it_is_idle() {
    let limits = Limits { header_timeout: SHORT / 2, idle_timeout: SHORT, ..limits() };
    let server = Server::start(limits);
    let mut client = server.connect();
    client.send(&format!("{GET}GET / HT"));
    assert_eq!(client.receive().status, 200);
    client.assert_closed();
}

#[test]
fn a_client_that_never_reads_is_closed_on() {
    let server = Server::start(Limits { write_timeout: SHORT, ..limits() });
    let mut client = server.connect();
    client.send("GET /big HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually(|| server.connections.len() == 1);
    eventually(|| server.connections.is_empty());
}

#[test]
fn a_client_that_reads_slowly_gets_everything() {
    let server = Server::start(Limits { write_timeout: SHORT * 3, ..limits() });
    let mut client = server.connect();
    client.send("GET /big HTTP/1.1\r\nhost: a\r\n\r\n");
    let start = Instant::now();
    let mut space = vec![0; 2 << 20];
    let mut received = 0;
    while received < BIG {
        let length = client.stream.read(&mut space).unwrap();
        assert!(length > 0, "cut off after {received} bytes");
        received += length;
        if start.elapsed() < SHORT * 6 {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn an_idle_connection_is_closed_after_the_idle_time_not_the_head_time() {
    let limits = Limits { header_timeout: SHORT / 2, idle_timeout: SHORT * 2, ..limits() };
    let server = Server::start(limits);
    let mut client = server.connect();
    client.assert_works();
    let start = Instant::now();
    client.assert_closed();
    assert!(start.elapsed() >= SHORT, "after {:?}", start.elapsed());
}

#[test]
fn an_old_connection_is_told_so_by_its_last_answer() {
    let server = Server::start(Limits { max_connection_age: SHORT, ..limits() });
    let mut client = server.connect();
    let start = Instant::now();
    // A proxy that reuses it has no request that crosses its end.
    loop {
        client.send(GET);
        let answered = client.receive();
        assert_eq!(answered.status, 200);
        assert!(start.elapsed() < PATIENCE);
        if answered.field("connection") == Some("close") {
            break;
        }
    }
    assert!(start.elapsed() >= SHORT / 2);
    client.assert_closed();
    server.connect().assert_works();
}

#[test]
fn an_old_connection_that_is_busy_is_answered_first() {
    let limits = Limits { max_connection_age: SHORT, header_timeout: PATIENCE, ..limits() };
    let server = Server::start(Limits { idle_timeout: SHORT * 3 / 2, ..limits });
    let mut client = server.connect_and_wait();
    let (mut idle, start) = (server.connect(), Instant::now());
    idle.assert_works();
    // One that is idle waits for its next request, as long as any does.
    idle.assert_closed();
    assert!(start.elapsed() >= SHORT * 3 / 2);
    // The other one is older still.
    server.go_on.send_replace(true);
    assert_eq!(client.receive().field("connection"), Some("close"));
    client.assert_closed();
}

#[test]
fn a_body_in_chunks_is_none_where_it_is_empty() {
    let server = Server::start(Limits { header_timeout: SHORT, ..limits() });
    let head = "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(&format!("{head}0\r\n\r\n"));
        assert_eq!(client.receive().status, 200);
    }
    // Its end may come later; where it does not, nobody waits for long.
    client.send(head);
    client.send("0\r\n\r\n");
    assert_eq!(client.receive().status, 200);
    client.send(head);
    assert_eq!(client.receive().status, 408);
    client.assert_closed();
    for request in [
        format!("{head}1\r\nx\r\n0\r\n\r\n"),
        format!("{head}1\r\nx\r\n"),
        format!("{head}no chunk\r\n"),
        "GET / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
    ] {
        let mut client = server.connect();
        client.send(&request);
        assert_eq!(client.receive().status, 400, "{request}");
        client.assert_closed();
    }
}

#[test]
fn too_much_head_is_refused() {
    let server = Server::start(limits());
    let field = "x: y\r\n";
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(17_000)), 431),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "y".repeat(17_000)), 431),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", field.repeat(100)), 431),
        (format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(8192)), 414),
        // Beyond the size of a head it is the library's own answer.
        (format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(17_000)), 431),
        (format!("GET /{}", "a".repeat(100_000)), 431),
    ] {
        let mut client = server.connect();
        client.send(&request);
        assert_eq!(client.receive().status, status);
        client.assert_closed();
    }
    let mut client = server.connect();
    client.send(&format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", field.repeat(99)));
    assert_eq!(client.receive().status, 200);
    client.send(&format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(16_000)));
    assert_eq!(client.receive().status, 200);
}

#[test]
fn what_is_not_http_1_is_refused() {
    let server = Server::start(limits());
    for request in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nhost a\r\n\r\n",
        "GET / HTTP/3.0\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        "GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01",
    ] {
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.receive().status, 400, "{request}");
        client.assert_closed();
    }
}

#[test]
fn a_malformed_request_after_others_is_refused() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send(&format!("{GET}{GET}nonsense\r\n\r\n"));
    assert_eq!(client.receive().status, 200);
    assert_eq!(client.receive().status, 200);
    assert_eq!(client.receive().status, 400);
    client.assert_closed();
}

#[test]
fn a_request_has_exactly_one_host() {
    let server = Server::start(limits());
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.send(request);
        client.receive().assert_refusal(400);
        client.assert_closed();
    }
    let mut client = server.connect();
    client.send("GET http://a/absolute HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.receive().body, b"/absolute");
}

#[test]
fn http_1_0_needs_no_host() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.receive().status, 200);
    client.assert_closed();
}

#[test]
fn a_declared_body_is_refused_before_it_is_read() {
    let server = Server::start(limits());
    let large = "x".repeat(200_000);
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\n".to_owned() + "x",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n{large}"),
    ] {
        let mut client = server.connect();
        client.send(&request);
        client.receive().assert_refusal(400);
        client.assert_closed();
    }
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.receive().status, 200);
    client.assert_works();
}

#[test]
fn a_head_request_has_the_length_and_no_body() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send("HEAD /twelve-bytes HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n/") {
        assert!(client.fill());
        text.append(&mut client.unread);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("content-length: 13\r\n"), "{text}");
    assert!(!text.contains("/twelve-bytes"), "{text}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(limits());
    let mut client = server.connect();
    let requests: String =
        (0..100).map(|number| GET.replace("/ ", &format!("/{number} "))).collect();
    // Cut anywhere, also within the ends of heads.
    for piece in requests.as_bytes().chunks(61) {
        client.stream.write_all(piece).unwrap();
    }
    for number in 0..100 {
        assert_eq!(client.receive().body, format!("/{number}").as_bytes());
    }
}

#[test]
fn a_thousand_requests_share_a_connection() {
    let server = Server::start(limits());
    let mut client = server.connect();
    for _ in 0..1000 {
        client.assert_works();
    }
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_answer() {
    let server = Server::start(limits());
    let mut client = server.connect_and_wait();
    client.stream.shutdown(Shutdown::Write).unwrap();
    server.go_on.send_replace(true);
    assert_eq!(client.receive().body, b"waited");
    client.assert_closed();
}

#[test]
fn a_defect_costs_one_request() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send("GET /panic HTTP/1.1\r\nhost: a\r\n\r\n");
    client.receive().assert_refusal(500);
    server.connect().assert_works();
}

#[test]
fn a_connection_too_many_takes_the_place_of_the_one_that_waits_longest() {
    let server = Server::start(Limits { max_connections: 3, ..limits() });
    let mut busy = server.connect_and_wait();
    let mut first = server.connect();
    eventually(|| server.connections.len() == 2);
    let mut second = server.connect();
    second.assert_works();
    server.connect().assert_works();
    first.assert_closed();
    server.connect().assert_works();
    server.go_on.send_replace(true);
    assert_eq!(busy.receive().body, b"waited");
    assert!(server.connections.len() <= 3);
}

#[test]
fn a_connection_that_was_just_used_is_not_the_one_that_gives_way() {
    let server = Server::start(Limits { max_connections: 2, ..limits() });
    let (mut first, mut second) = (server.connect(), server.connect());
    first.assert_works();
    second.assert_works();
    first.assert_works();
    server.connect().assert_works();
    second.assert_closed();
    first.assert_works();
}

#[test]
fn a_client_that_never_reads_gives_way_to_a_new_one() {
    let server = Server::start(Limits { max_connections: 2, ..limits() });
    let deaf = |server: &Server| {
        let mut client = server.connect();
        client.send("GET /big HTTP/1.1\r\nhost: a\r\n\r\n");
        // It is in the middle of its answer.
        client.stream.read_exact(&mut [0; 64]).unwrap();
        client
    };
    let (_first, _second) = (deaf(&server), deaf(&server));
    // As soon as their sockets are full.
    eventually(|| {
        let mut client = server.connect();
        client.send(GET);
        client.receive().status == 200
    });
}

#[test]
fn a_connection_too_many_is_refused_where_all_are_busy() {
    let server = Server::start(Limits { max_connections: 2, ..limits() });
    let mut busy = [server.connect_and_wait(), server.connect_and_wait()];
    for _ in 0..3 {
        let mut client = server.connect();
        client.send(GET);
        let answered = client.receive();
        answered.assert_refusal(503);
        assert_eq!(answered.field("retry-after"), Some("1"));
        client.assert_closed();
    }
    // However many come, and never leave: none of them is left waiting.
    let mut crowd: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    for client in &mut crowd {
        if let Some(answered) = client.try_receive() {
            answered.assert_refusal(503);
            client.assert_closed();
        }
    }
    server.go_on.send_replace(true);
    for client in &mut busy {
        assert_eq!(client.receive().body, b"waited");
    }
    server.connect().assert_works();
}

#[test]
fn shutdown_lets_requests_finish_and_closes_the_rest_at_once() {
    let server = Server::start(limits());
    let (mut fresh, mut idle) = (server.connect(), server.connect());
    idle.assert_works();
    let mut half = server.connect();
    half.assert_works();
    half.send("GET / HTTP/1.1\r\nhost");
    let mut busy = server.connect_and_wait();
    eventually(|| server.connections.len() == 4);
    server.stop();
    fresh.assert_closed();
    idle.assert_closed();
    half.send(": a\r\n\r\n");
    assert_eq!(half.receive().field("connection"), Some("close"));
    half.assert_closed();
    server.go_on.send_replace(true);
    let answered = busy.receive();
    assert_eq!((answered.status, answered.field("connection")), (200, Some("close")));
    busy.assert_closed();
    assert!(Client::open(&server.address).is_err(), "nothing is accepted any more");
    assert!(server.join() < PATIENCE / 2);
}

#[test]
fn shutdown_ends_when_its_time_is_over() {
    let server = Server::start_with_drain(limits(), SHORT);
    let mut half = server.connect();
    half.send("GET / HTTP/1.1\r\nhost");
    let mut busy = server.connect_and_wait();
    eventually(|| server.connections.len() == 2);
    server.stop();
    half.assert_closed();
    busy.assert_closed();
    assert!(server.join() < PATIENCE / 2);
}

#[test]
fn a_client_that_leaves_does_not_keep_its_place() {
    let server = Server::start(limits());
    let client = server.connect();
    eventually(|| server.connections.len() == 1);
    drop(client);
    eventually(|| server.connections.is_empty());
}

#[test]
fn a_piece_of_a_large_body_that_looks_like_a_status_is_none() {
    // Every piece of it has a 4xx where a status line has its status, wherever it is cut.
    let server = Server::start(limits());
    for _ in 0..3 {
        let mut stream = server.connect().stream;
        stream.write_all(b"GET /digits HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // Slowly enough for the socket to fill up, again and again.
        let mut piece = vec![0; 64 * 1024];
        loop {
            let length = stream.read(&mut piece).unwrap();
            if length == 0 {
                break;
            }
            answer.extend_from_slice(&piece[..length]);
            thread::yield_now();
        }
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        assert!(answer.len() - body == http_server::DIGITS);
        assert!(answer[body..].iter().all(|byte| *byte == b'4'));
    }
}
