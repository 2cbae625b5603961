//! Values that are written as text: durations, addresses.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Units of durations, the largest first: name and milliseconds.
const UNITS: [(&str, u128); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration such as `50ms`, `10s`, `5m`, `1h30m` or `30d`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "\"{}\" is no duration: write a number and a unit of ms, s, m, h or d, as in \"90s\" \
             or \"1h30m\"",
            text.escape_default()
        )
    };
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
        let number: u128 = number.parse().map_err(|_| wrong())?;
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let length = number.checked_mul(*length).and_then(|length| u64::try_from(length).ok());
        total = length.and_then(|length| total.checked_add(length)).ok_or_else(wrong)?;
        rest = &rest[digits + letters..];
    }
    // A thousand years are beyond every date that is dealt with.
    if text.is_empty() || total > 1000 * 365 * 86_400_000 {
        return Err(wrong());
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration as [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (name, length) in UNITS {
        // 24h and 30d read better than 1d and 720h: whole days only from two on.
        let count = rest / length;
        if count > 0
            && !(name == "d" && (!duration.as_millis().is_multiple_of(length) || count < 2))
        {
            // Writing to a string does not fail.
            let _ = write!(text, "{count}{name}");
            rest %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err("the path of a Unix socket is absolute, as in \"unix:/run/jwksd.sock\""
                    .to_owned())
            };
        }
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        numeric.as_deref().unwrap_or(text).parse().map(Self::Tcp).map_err(|_| {
            format!(
                "\"{}\" is no address: write an IP address and a port, as in \"127.0.0.1:8080\" or \
                 \"[::]:8080\", or \"unix:/path\"",
                text.escape_default()
            )
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_in_the_same_form() {
        for (text, millis) in [
            ("0s", 0),
            ("50ms", 50),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("24h", 86_400_000),
            ("30d", 30 * 86_400_000),
            ("1h7m", 4_020_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "10", "s", "-1s", "1.5h", "1 h", "1y", "99999999999999999999d", "1h30"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_ip_addresses_or_sockets() {
        for text in ["127.0.0.1:80", "[::]:8080", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        assert_eq!("localhost:1".parse::<ListenAddress>().unwrap().to_string(), "127.0.0.1:1");
        for text in ["8080", "host:80", "unix:relative", "127.0.0.1"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
