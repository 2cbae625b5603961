//! Clients that flood an HTTP/2 connection: each is ended or bounded, while another is answered.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::clients::{
    CONTINUATION, DATA, END_HEADERS, GET_BLOCK, H2, HEADERS, Http2, PING, RST_STREAM, SETTINGS,
    TlsConfig, by_hand, frame, get_frame,
};
use super::{Site, reached};
use crate::common::daemon::{Daemon, PATIENCE};

/// Sends what `next` makes until the connection is ended, never reading, while a client in good
/// faith is answered.
fn is_ended(site: &Site, daemon: &Daemon, mut next: impl FnMut(u32) -> Vec<u8> + Send) {
    let is_over = AtomicBool::new(false);
    let mut client = by_hand(daemon.address, &site.certificate, &[]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + PATIENCE;
            let mut ended = Ok(());
            for number in 0.. {
                ended = send(&mut client, &next(number));
                if ended.is_err() || deadline < Instant::now() {
                    break;
                }
            }
            is_over.store(true, Ordering::SeqCst);
            let error = ended.expect_err("the flood goes on");
            assert!(
                !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
                "neither read nor ended: {error}"
            );
        });
        let mut good = Http2::open(daemon.address, &site.certificate.client(H2));
        let mut count = 0;
        while count < 3 || !is_over.load(Ordering::SeqCst) {
            assert_eq!(good.get("/.well-known/jwks.json").status(), 200);
            count += 1;
        }
    });
}

fn send(client: &mut TlsConfig, bytes: &[u8]) -> io::Result<()> {
    client.write_all(bytes)?;
    client.flush()
}

/// As many of these frames as make one write worth its while.
fn many(frame: &[u8]) -> Vec<u8> {
    frame.repeat(50)
}

#[test]
fn pings_and_settings_are_bounded() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    is_ended(&site, &daemon, |_| many(&frame(PING, 0, 0, &[0; 8])));
    assert!(reached(&daemon, "frames") >= 1.0);
    is_ended(&site, &daemon, |_| many(&frame(SETTINGS, 0, 0, &[])));
    assert!(reached(&daemon, "frames") >= 2.0);
    // Frames of no known kind are none of h2's business.
    is_ended(&site, &daemon, |_| many(&frame(0xee, 0, 0, &[])));
    assert!(reached(&daemon, "frames") >= 3.0);
}

#[test]
fn requests_that_are_reset_at_once_are_bounded() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    is_ended(&site, &daemon, |number| {
        let stream = number * 2 + 1;
        [get_frame(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
}

#[test]
fn a_block_of_fields_without_an_end_is_bounded() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    is_ended(&site, &daemon, |number| match number {
        0 => frame(HEADERS, 0, 1, GET_BLOCK),
        // A field that is in the static table, again and again; and nothing at all.
        _ if number % 2 == 0 => frame(CONTINUATION, 0, 1, &[0x84; 100]),
        _ => many(&frame(CONTINUATION, 0, 1, &[])),
    });
    is_ended(&site, &daemon, |number| match number {
        0 => frame(HEADERS, 0, 1, GET_BLOCK),
        _ => many(&frame(CONTINUATION, 0, 1, &[])),
    });
}

#[test]
fn data_without_bytes_is_bounded() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    is_ended(&site, &daemon, |number| match number {
        0 => frame(HEADERS, END_HEADERS, 1, GET_BLOCK),
        _ => many(&frame(DATA, 0, 1, &[])),
    });
}

#[test]
fn more_requests_at_once_than_allowed_are_bounded() {
    let site = Site::new();
    let daemon = site.start(|command| command);
    // None of them has its end, so that each would stay open.
    is_ended(&site, &daemon, |number| frame(HEADERS, END_HEADERS, number * 2 + 1, &GET_BLOCK[..1]));
}
