//! What a person who starts the daemon on a terminal is shown: where to look.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{Config, ListenAddress, LogFormat};

/// The URLs of the listeners, a line each; nothing where the log is for programs.
pub(super) fn banner(config: &Config, [public, ops, admin]: &[Vec<ListenAddress>; 3]) -> String {
    if config.log.format == LogFormat::Json {
        return String::new();
    }
    let mut text = format!("jwksd {} (Ctrl-C ends it)\n", env!("CARGO_PKG_VERSION"));
    let orders = format!("{}/oauth/keys/keypair", config.admin.prefix);
    for (name, addresses, is_tls, path) in [
        ("keys", public, config.public.tls.is_some(), &*config.publish.path),
        ("status", ops, false, "/"),
        ("orders", admin, config.admin.tls.is_some(), &orders),
    ] {
        for address in addresses {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {name:<7} {}", url(address, is_tls, path));
        }
    }
    text
}

fn url(address: &ListenAddress, is_tls: bool, path: &str) -> String {
    let ListenAddress::Tcp(address) = address else { return address.to_string() };
    // A wildcard is no address that one could open.
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    let scheme = if is_tls { "https" } else { "http" };
    format!("{scheme}://{}{path}", SocketAddr::new(ip, address.port()))
}
