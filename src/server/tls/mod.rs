//! TLS 1.2 and 1.3 in front of a connection: the handshake and its limits. What was agreed on by
//! ALPN decides who speaks then, HTTP/2 or HTTP/1.1.
//!
//! [`pair`] reads a certificate and its key, [`served`] holds those that are served.

pub mod pair;
pub mod served;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use tokio::task::unconstrained;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::served::ServedPair;
use super::activity::{Activity, ShutdownRequest};
use super::connections::{ConnectionPermit, Connections};
use super::counts::Limit;
use super::foreign::ForeignProtocol;
use super::peer::Peer;
use super::socket::{Socket, Stream};
use super::{Handler, connection};

/// HTTP/2, as ALPN names it (RFC 9113 §3.2).
const H2: &[u8] = b"h2";

/// What the connections of a listener are tls by. A clone shares it.
#[derive(Clone)]
pub struct TlsConfig {
    config: Arc<ServerConfig>,
    /// The same without HTTP/2: a refusal is said in HTTP/1.1.
    refusing: Arc<ServerConfig>,
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// By the pair that is served at the time of each handshake.
    ///
    /// # Errors
    /// Where no random numbers can be had.
    pub fn by(served: &Arc<ServedPair>) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(served) as _);
        config.ticketer = Ticketer::new()?;
        // Tickets are all that is needed to resume, and cost no memory here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let refusing = Arc::new(config.clone());
        config.alpn_protocols.insert(0, H2.to_vec());
        Ok(Self { config: Arc::new(config), refusing })
    }
}

/// Serves a connection from its handshake on.
pub(super) async fn serve(
    stream: Box<dyn Stream>,
    tls: TlsConfig,
    handler: Arc<dyn Handler>,
    peer: Peer,
    permit: ConnectionPermit,
) {
    let connections = Arc::clone(permit.connections());
    let patience = connections.limits().header_timeout;
    let activity = Arc::clone(&permit.activity);
    let accepted = handshake(stream, tls.config, &activity, &connections, &peer, patience);
    let Some(stream) = accepted.await else {
        return;
    };
    if stream.get_ref().1.alpn_protocol() == Some(H2) {
        connection::serve_http2(stream, handler, peer, permit).await;
    } else {
        // Fairness among the connections is hyper's, as without TLS.
        unconstrained(connection::serve_http1(stream, handler, peer, permit, true)).await;
    }
}

/// Refuses a connection in the words that its client understands, after the handshake.
pub(super) async fn refuse(
    stream: Box<dyn Stream>,
    tls: TlsConfig,
    handler: Arc<dyn Handler>,
    connections: Arc<Connections>,
) {
    let activity = Arc::new(Activity::new(0));
    let (peer, patience) = (Peer::default(), connection::LINGER);
    let accepted = handshake(stream, tls.refusing, &activity, &connections, &peer, patience);
    if let Some(stream) = accepted.await {
        connection::refuse(stream, handler, connections).await;
    }
}

/// The handshake, for as long as somebody waits for it.
async fn handshake(
    stream: Box<dyn Stream>,
    config: Arc<ServerConfig>,
    activity: &Arc<Activity>,
    connections: &Connections,
    peer: &Peer,
    patience: Duration,
) -> Option<TlsStream<Socket>> {
    let mut socket = Socket::new(stream, Arc::clone(activity));
    socket.allow(connections.limits().max_header_bytes);
    let mut accepted = pin!(timeout(patience, TlsAcceptor::from(config).accept(socket)));
    let outcome = match activity.run(ShutdownRequest::Graceful, accepted.as_mut()).await {
        Some(outcome) => outcome,
        // A request may be on its way.
        None => timeout(connection::LINGER, accepted).await.ok()?,
    };
    match outcome {
        Ok(Ok(mut stream)) => {
            let (socket, session) = stream.get_mut();
            socket.allow(usize::MAX);
            let early = session.process_new_packets();
            activity.begin(early.map_or(0, |state| state.plaintext_bytes_to_read()));
            return Some(stream);
        }
        // Everything else is a client that went away.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            let protocol = ForeignProtocol::on(activity).filter(|it| *it != ForeignProtocol::Tls);
            let log = |protocol| connections.foreign.log(protocol, peer);
            connections.reached().count(protocol.map_or(Limit::Handshake, log));
        }
        Ok(Err(_)) => {}
        Err(_) => connections.reached().count(Limit::HandshakeTime),
    }
    None
}
