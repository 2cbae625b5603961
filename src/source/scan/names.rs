//! Which names of a key directory count, and which of them belong together.
//!
//! Names come in and nothing else: what lies behind them is not known here.

use std::path::Path;

/// Whether a file or directory of this name is passed over without a word: hidden ones (among them
/// the inner parts of a Kubernetes volume), what editors and `cp` leave behind, the CA certificate
/// that cert-manager puts beside a pair, and what file systems keep for themselves.
pub(super) fn is_passed_over(name: &[u8]) -> bool {
    const LEFTOVERS: [&[u8]; 4] = [b"~", b".swp", b".tmp", b".bak"];
    name.starts_with(b".")
        || name == b"ca.crt"
        || name == b"lost+found"
        || LEFTOVERS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a file or directory of this name is passed over with a note: what editors, package managers,
/// downloads and log rotation leave behind, and requests for certificates.
pub(super) fn is_leftover(name: &str) -> bool {
    const ENDINGS: [&str; 6] = [".old", ".orig", ".save", ".rpmsave", ".part", ".csr"];
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // `client.pem.1`, `client.pem.tmp.4711`.
    let is_numbered = || {
        let (before, number) = name.rsplit_once('.')?;
        let before = before.strip_suffix(".tmp").unwrap_or(before);
        let (_, ending) = before.rsplit_once('.')?;
        Some(is_number(number) && KEY_FILES.contains(&ending))
    };
    ENDINGS.iter().any(|ending| name.ends_with(ending))
        || name.rsplit_once('.').is_some_and(|(_, ending)| ending.starts_with("dpkg-"))
        || (name.len() > 1 && name.starts_with('#') && name.ends_with('#'))
        || name.contains(" (copy).")
        || is_numbered().unwrap_or(false)
}

/// The endings that files of keys commonly have.
const KEY_FILES: [&str; 11] =
    ["pem", "key", "crt", "cer", "cert", "pub", "der", "json", "jwk", "jwks", "p8"];

/// Whether cert-manager writes a file of this name beside `tls.key`, with the same key in another form or
/// with those of authorities.
pub(super) fn is_additional_output(name: &str) -> bool {
    matches!(name, "key.der" | "tls-combined.pem")
        || name.starts_with("truststore.")
        || name.starts_with("keystore.")
}

/// A slot's last component for a file that belongs to no entry. No stem is the same.
pub(super) fn name_slot(name: &str) -> String {
    format!("{name}/")
}

/// What the files of one entry have in common: `X` of `X.meta.json`, else the name without its
/// last ending.
pub(super) fn stem(name: &str) -> &str {
    let file_stem = || Path::new(name).file_stem().and_then(|stem| stem.to_str());
    name.strip_suffix(".meta.json").or_else(file_stem).unwrap_or(name)
}

/// Whether the name promises a public part, beside which a private part may stay closed.
pub(super) fn is_public_part(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    matches!(ending, Some("crt" | "cer" | "cert" | "pub"))
}

pub(super) fn is_attributes(name: &str) -> bool {
    name.ends_with(".meta.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_and_hidden_names_are_passed_over() {
        for name in [
            ".jwksd",
            "..data",
            "..2026_11_20",
            ".client.pem.swp",
            "client.pem~",
            "client.swp",
            "client.tmp",
            "client.pem.bak",
            "ca.crt",
            "lost+found",
        ] {
            assert!(is_passed_over(name.as_bytes()), "{name}");
        }
        for name in ["client.pem", "ca.crt.pem", "tls.crt", "tmp", "bak", "client~1.pem", "a.b"] {
            assert!(!is_passed_over(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn leftovers_of_tools_are_told_from_keys() {
        for name in [
            "client.pem.old",
            "client.pem.orig",
            "client.save",
            "client.pem.rpmsave",
            "client.pem.dpkg-dist",
            "client.pem.dpkg-old",
            "client.pem.part",
            "#client.pem#",
            "client (copy).pem",
            "client.csr",
            "client.pem.1",
            "client.key.20261120",
            "client.json.tmp.4711",
        ] {
            assert!(is_leftover(name), "{name}");
        }
        for name in [
            "client.pem",
            "client.2026",
            "client.2026.pem",
            "old.pem",
            "client.1",
            "part",
            "#",
            "client#.pem",
            "copy.pem",
            "csr.pem",
            "client.tmp.x",
            "dpkg-x.pem",
            "client.pem.x1",
            "client.pem.",
            "1",
            ".1",
        ] {
            assert!(!is_leftover(name), "{name}");
        }
    }

    #[test]
    fn files_of_one_entry_share_a_stem() {
        for (name, expected) in [
            ("client.pem", "client"),
            ("client.meta.json", "client"),
            ("client.2026.pem", "client.2026"),
            ("client.2026.meta.json", "client.2026"),
            ("client", "client"),
            ("meta.json", "meta"),
        ] {
            assert_eq!(stem(name), expected, "{name}");
        }
    }
}
