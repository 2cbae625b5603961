//! Whom the operations listener answers on loopback: a page in a browser of this machine, whose name
//! was made to lead here (DNS rebinding), sends that name as its Host.

use std::net::IpAddr;

use crate::server::peer::Peer;

/// Whether a request of `peer` for `host` is answered: from elsewhere every one, from loopback those
/// for an address, for `localhost`, or for one of `hosts`.
pub(super) fn is_answered(peer: &Peer, host: Option<&str>, hosts: &[String]) -> bool {
    let is_local = peer.address.is_some_and(|address| address.ip().to_canonical().is_loopback());
    // Browsers always name one.
    let Some(host) = host.filter(|_| is_local) else { return true };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((literal, _)) => literal,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let is = |known: &str| known.eq_ignore_ascii_case(name.strip_suffix('.').unwrap_or(name));
    name.parse::<IpAddr>().is_ok() || is("localhost") || hosts.iter().any(|known| is(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_only_addresses_and_known_names_are_answered() {
        let hosts = ["status.example".to_owned()];
        let peer = |address: &str| Peer { address: address.parse().ok(), ..Peer::default() };
        let names = ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "localhost.a"];
        let known = [
            "127.0.0.1:9090",
            "[::1]:9090",
            "localhost",
            "LocalHost:1",
            "localhost.:9090",
            "status.example",
            "10.1.2.3",
        ];
        for local in ["127.0.0.1:5", "127.8.8.8:5", "[::1]:5", "[::ffff:127.0.0.1]:5"] {
            for name in names {
                assert!(!is_answered(&peer(local), Some(name), &hosts), "{local} {name}");
            }
            for name in known {
                assert!(is_answered(&peer(local), Some(name), &hosts), "{local} {name}");
            }
            assert!(is_answered(&peer(local), None, &hosts));
        }
        for other in [peer("10.0.0.1:5"), Peer { uid: Some(0), ..Peer::default() }] {
            assert!(is_answered(&other, Some("evil.example"), &hosts));
        }
    }
}
