//! Other protocols that come where HTTP/1.1 is spoken, or TLS: somebody's proxy or client is set up
//! for another port, and its operator sees nothing but a 400.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::warn;

use super::activity::Activity;
use super::counts::Limit;
use super::peer::Peer;
use super::throttle::LogThrottle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForeignProtocol {
    Tls,
    /// `PROXY protocol`, versions 1 and 2, before the request.
    ProxyHeader,
    /// With prior knowledge (RFC 9113 §3.3).
    Http2,
}

impl ForeignProtocol {
    /// What a connection began with that could not be understood.
    pub(super) fn on(activity: &Activity) -> Option<Self> {
        match activity.first_bytes() {
            // The record of a handshake (RFC 8446 §5.1).
            [0x16, 0x03, ..] => Some(Self::Tls),
            bytes if bytes == *b"\r\n\r\n\0\r\nQ" || bytes.starts_with(b"PROXY ") => {
                Some(Self::ProxyHeader)
            }
            _ => None,
        }
    }

    const fn limit(self) -> Limit {
        match self {
            Self::Tls => Limit::Tls,
            Self::ProxyHeader => Limit::ProxyHeader,
            Self::Http2 => Limit::Http2,
        }
    }

    const fn cause(self) -> &'static str {
        match self {
            Self::Tls => "the client speaks TLS, and this listener does not",
            Self::ProxyHeader => {
                "the client sends the header of the PROXY protocol before its request"
            }
            Self::Http2 => "the client speaks HTTP/2 without TLS, and this listener HTTP/1.1",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Tls => {
                "let the client speak plain HTTP to this port, or configure TLS for it (public.tls, admin.tls)"
            }
            Self::ProxyHeader => {
                "switch it off in the load balancer for this port (HAProxy: send-proxy; nginx: \
                 proxy_protocol; Envoy: the upstream proxy protocol transport)"
            }
            Self::Http2 => {
                "let the client speak HTTP/1.1, or configure public.tls, where it may have HTTP/2"
            }
        }
    }
}

/// The lines about them, of one listener.
#[derive(Debug, Default)]
pub(super) struct ForeignLog(Mutex<[LogThrottle; 3]>);

impl ForeignLog {
    /// Logs a connection, at most once a minute for each protocol; returns what it is to be counted as.
    pub(super) fn log(&self, protocol: ForeignProtocol, peer: &Peer) -> Limit {
        let mut throttles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = throttles[protocol as usize].count(Instant::now()) {
            let peer = peer.address.map(|address| address.to_string());
            warn!(
                event = "protocol.refused",
                cause = protocol.cause(),
                remedy = protocol.remedy(),
                peer,
                times,
                "a client speaks another protocol than this listener"
            );
        }
        protocol.limit()
    }
}
