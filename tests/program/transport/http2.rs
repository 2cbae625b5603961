//! HTTP/2 as it should be: requests, what is refused of them, and how connections end.

use std::io::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use hyper::Request;
use hyper::header::HeaderValue;
use jwksd::encoding::hex;

use super::clients::{
    DATA, END_HEADERS, END_STREAM, GET_BLOCK, H2, HEADERS, Http2, NO_ROOM, PING, RST_STREAM,
    by_hand, frame, get, get_frame, is_closed, read_frame,
};
use super::{Site, reached};
use crate::common::daemon::{drop_by_rename, eventually};

const JWKS: &str = "/.well-known/jwks.json";
const PROBLEM: &str = "application/problem+json";

#[test]
fn requests_are_answered_as_in_http_1() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    let mut client = Http2::open(daemon.address, &site.certificate.client(H2));
    let got = client.get(JWKS);
    assert_eq!(got.status(), 200);
    let plain = got.body().clone();
    assert!(plain.starts_with(b"{\"keys\":[{"));
    let head = client.ask(Request::head(format!("https://localhost{JWKS}")).body(()).unwrap());
    let head = head.unwrap();
    assert_eq!((head.status().as_u16(), head.body().len()), (200, 0));
    assert_eq!(head.headers()["content-length"], plain.len().to_string());
    assert_eq!(head.headers()["etag"], got.headers()["etag"]);
    let mut conditional = get(JWKS);
    conditional.headers_mut().insert("if-none-match", got.headers()["etag"].clone());
    assert_eq!(client.ask(conditional).unwrap().status(), 304);

    let missing = client.get("/nothing");
    assert_eq!(
        (missing.status().as_u16(), &missing.headers()["content-type"]),
        (404, &HeaderValue::from_static(PROBLEM))
    );
    assert!(!missing.headers().contains_key("connection"));
    let missing = Request::head("https://localhost/nothing").body(()).unwrap();
    let missing = client.ask(missing).unwrap();
    assert_eq!((missing.status().as_u16(), missing.body().len()), (404, 0));
    let delete = Request::delete(format!("https://localhost{JWKS}")).body(()).unwrap();
    assert_eq!(client.ask(delete).unwrap().status(), 405);
    let long = client.get(&format!("/{}", "a".repeat(9000)));
    assert_eq!(long.status(), 414);
    let mut large = get(JWKS);
    large.headers_mut().insert("a", "b".repeat(17_000).parse().unwrap());
    let large = client.ask(large).unwrap();
    assert_eq!(
        (large.status().as_u16(), &large.headers()["content-type"]),
        (431, &HeaderValue::from_static(PROBLEM))
    );
    let mut many = get(JWKS);
    for number in 0..120 {
        many.headers_mut().append("a", number.into());
    }
    assert_eq!(client.ask(many).unwrap().status(), 431);
    let mut other = get(JWKS);
    other.headers_mut().insert("host", HeaderValue::from_static("other.example"));
    assert_eq!(client.ask(other).unwrap().status(), 400);
    // It is the same connection still.
    assert_eq!(client.get(JWKS).body(), &plain);
    drop(client);
    assert!(daemon.stop().success());
}

#[test]
fn sets_of_every_size_arrive_whole_on_connections_old_and_new() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    let mut old = Http2::open(daemon.address, &site.certificate.client(H2));
    // Below a frame, around a few, large, and more than is given away at once.
    for count in [1, 4, 5, 50, 400] {
        for number in 1..count {
            let file = site.keys().join(format!("{number}.pem"));
            if !file.exists() {
                let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
                drop_by_rename(&site.keys(), &format!("{number}.pem"), key);
            }
        }
        let set = eventually("all are served", || {
            let set = old.get(JWKS).into_body();
            let kids = set.windows(6).filter(|part| part == b"\"kid\":").count();
            (kids == count).then_some(set)
        });
        let mut new = Http2::open(daemon.address, &site.certificate.client(H2));
        for client in [&mut old, &mut new] {
            let got = client.get(JWKS);
            let digest = hex(digest(&SHA256, got.body()).as_ref());
            assert_eq!(got.headers()["etag"], format!("\"{digest}\""));
            assert_eq!(got.headers()["content-length"], got.body().len().to_string());
            assert_eq!(got.body(), &set);
        }
    }
}

#[test]
fn an_authority_is_needed_and_a_body_is_refused() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    let mut client = by_hand(daemon.address, &site.certificate, &[]);
    // No authority; then a body; then one that is empty, which is none.
    client.write_all(&frame(HEADERS, 0x5, 1, &GET_BLOCK[..3])).unwrap();
    client.write_all(&frame(HEADERS, END_HEADERS, 3, GET_BLOCK)).unwrap();
    client.write_all(&frame(DATA, 0, 3, b"x")).unwrap();
    client.write_all(&frame(HEADERS, END_HEADERS, 5, GET_BLOCK)).unwrap();
    client.write_all(&frame(DATA, 0, 5, b"")).unwrap();
    client.write_all(&frame(DATA, END_STREAM, 5, b"")).unwrap();
    client.flush().unwrap();
    let mut answered = Vec::new();
    while answered.len() < 3 {
        let frame = read_frame(&mut client).unwrap();
        // The statuses 400 and 404 have an index (RFC 7541 Appendix A).
        if frame.kind == HEADERS {
            let status = if frame.stream == 5 { 0x8d } else { 0x8c };
            assert!(frame.payload.contains(&status), "{:x?}", frame.payload);
            answered.push(frame.stream);
        }
        assert!(frame.kind != RST_STREAM || frame.stream == 3, "only what was not sent is reset");
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 3, 5]);
}

#[test]
fn an_idle_connection_is_told_to_go() {
    let site = Site::new();
    let daemon = site.start(|command| command.env("JWKSD_LIMITS_IDLE_TIMEOUT", "300ms"));
    let mut client = Http2::open(daemon.address, &site.certificate.client(H2));
    assert_eq!(client.get(JWKS).status(), 200);
    client.end().unwrap();
    // Pings do not keep it, and who does not listen is closed all the same.
    let mut deaf = by_hand(daemon.address, &site.certificate, &[]);
    // On a busy machine it is closed before.
    let _ = deaf.write_all(&frame(PING, 0, 0, &[0; 8])).and_then(|()| deaf.flush());
    assert!(is_closed(&mut deaf));
}

#[test]
fn an_old_connection_is_told_to_go() {
    let site = Site::new();
    let daemon = site.start(|command| command.env("JWKSD_LIMITS_MAX_CONNECTION_AGE", "300ms"));
    let mut client = Http2::open(daemon.address, &site.certificate.client(H2));
    // Busy all the time.
    eventually("it ends", || client.ask(get(JWKS)).is_err().then_some(()));
}

#[test]
fn the_end_of_the_program_waits_for_no_idle_connection() {
    let site = Site::new();
    let daemon = site.start(|command| command.env("JWKSD_DRAIN", "10m"));
    let mut client = Http2::open(daemon.address, &site.certificate.client(H2));
    assert_eq!(client.get(JWKS).status(), 200);
    // This one answers nothing.
    let _deaf = by_hand(daemon.address, &site.certificate, &[]);
    assert!(daemon.stop().success());
    client.end().unwrap();
}

#[test]
fn a_client_without_room_for_its_answer_is_cut() {
    let site = Site::new();
    let daemon = site.start(|command| command.env("JWKSD_LIMITS_WRITE_TIMEOUT", "300ms"));
    let mut client = by_hand(daemon.address, &site.certificate, &NO_ROOM);
    client.write_all(&get_frame(1)).unwrap();
    client.flush().unwrap();
    assert!(is_closed(&mut client));
    eventually("it is counted", || (reached(&daemon, "write-time") >= 1.0).then_some(()));
}
