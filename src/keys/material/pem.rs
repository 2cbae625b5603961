//! PEM (RFC 7468) text to parts.
//!
//! The decoder of a block accepts less than a whole file without a word, so this finds the blocks
//! itself and counts every marker.

use super::{Chain, Part, der, shown};
use crate::keys::refusal::Reason;

struct Block<'a> {
    label: &'a str,
    text: &'a str,
}

pub(super) fn parse(text: &str, open_private: bool) -> Result<Vec<Part>, Reason> {
    let blocks = blocks(text)?;
    let is_public =
        |block: &Block<'_>| matches!(block.label, "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE");
    let open_private = open_private || !blocks.iter().any(is_public);
    let mut parts = Vec::new();
    let mut chain: Option<Chain> = None;
    for block in &blocks {
        let decoded =
            ::pem::parse(block.text).map_err(|_| Reason::BadPem("its base64 is damaged"))?;
        let contents = decoded.contents();
        // Both wordings of RFC 1421: "Proc-Type: 4,ENCRYPTED" and "DEK-Info: ...".
        let legacy_encryption = decoded.headers().iter().any(|(name, _)| name == "DEK-Info")
            || block.text.contains("ENCRYPTED\n")
            || block.text.contains("ENCRYPTED\r");
        parts.push(match block.label {
            "ENCRYPTED PRIVATE KEY" => Part::Unopened { encrypted: true },
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" if legacy_encryption => {
                Part::Unopened { encrypted: true }
            }
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" if !open_private => {
                Part::Unopened { encrypted: false }
            }
            "PRIVATE KEY" => Part::Private(der::pkcs8(contents)?),
            "RSA PRIVATE KEY" => Part::Private(der::rsa_private(contents)?),
            "EC PRIVATE KEY" => Part::Private(der::sec1(contents)?),
            "PUBLIC KEY" => Part::Public(der::spki(contents)?),
            "RSA PUBLIC KEY" => Part::Public(der::rsa_public(contents)?),
            "CERTIFICATE" => {
                // The first is the leaf; the others are its chain and stay unread.
                match &mut chain {
                    Some(chain) => chain.der.push(contents.to_vec()),
                    None => chain = Some(der::certificate(contents)?),
                }
                continue;
            }
            // openssl ecparam writes the curve before the key, which names it again.
            "EC PARAMETERS" => continue,
            label => return Err(Reason::UnknownLabel(shown(label))),
        });
    }
    parts.extend(chain.map(Part::Certificates));
    if parts.is_empty() { Err(Reason::NoKey) } else { Ok(parts) }
}

/// The blocks of a text. What stands between them is explanation and is passed over, as long as it
/// can't be a piece of a marker.
fn blocks(text: &str) -> Result<Vec<Block<'_>>, Reason> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, usize)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let line = line.trim_end();
        match open {
            None => {
                if let Some(label) = marker(line, "-----BEGIN ") {
                    open = Some((label, start));
                } else if line.starts_with('-') {
                    return Err(Reason::Truncated);
                }
            }
            Some((label, from)) => {
                if line.starts_with("-----BEGIN") {
                    return Err(Reason::Truncated);
                }
                if let Some(end) = marker(line, "-----END ") {
                    if end != label {
                        return Err(Reason::BadPem("its BEGIN and END lines differ"));
                    }
                    blocks.push(Block { label, text: &text[from..at] });
                    open = None;
                }
            }
        }
    }
    if open.is_some() { Err(Reason::Truncated) } else { Ok(blocks) }
}

fn marker<'a>(line: &'a str, begin: &str) -> Option<&'a str> {
    line.strip_prefix(begin)?.strip_suffix("-----")
}
