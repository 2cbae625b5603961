//! PEM (RFC 7468) text to parts.
//!
//! The decoder of a block accepts less than a whole file without a word, so this finds the blocks
//! itself and counts every marker.

use zeroize::Zeroizing;

use super::signing_key::Opener;
use super::{Chain, Part, der, redact_long};
use crate::keys::refusal::RefusalReason;

struct Block<'a> {
    label: &'a str,
    /// The block without blank lines, indentation and carriage returns.
    text: Zeroizing<String>,
}

pub(super) fn parse(text: &str, opener: &mut Opener<'_>) -> Result<Vec<Part>, RefusalReason> {
    let blocks = blocks(text)?;
    let is_public =
        |block: &Block<'_>| matches!(block.label, "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE");
    let open_private = opener.open_private || !blocks.iter().any(is_public);
    let mut private = |(public, key)| {
        opener.offer(&public, key);
        Part::Private(public)
    };
    let mut parts = Vec::new();
    let mut chain: Option<Chain> = None;
    for block in &blocks {
        let decoded = ::pem::parse(block.text.as_bytes())
            .map_err(|_| RefusalReason::BadPem("its base64 is damaged"))?;
        // RFC 1421 §4.6.1.1 and §4.6.1.3.
        let is_encrypted = decoded.headers().iter().any(|(name, value)| {
            name == "DEK-Info" || (name == "Proc-Type" && value.ends_with("ENCRYPTED"))
        });
        let contents = Zeroizing::new(decoded.into_contents());
        parts.push(match block.label {
            "ENCRYPTED PRIVATE KEY" => Part::Unopened { encrypted: true },
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" if is_encrypted => {
                Part::Unopened { encrypted: true }
            }
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" if !open_private => {
                Part::Unopened { encrypted: false }
            }
            "PRIVATE KEY" => private(der::pkcs8(&contents)?),
            "RSA PRIVATE KEY" => private(der::rsa_private(&contents)?),
            "EC PRIVATE KEY" => private(der::sec1(&contents)?),
            "PUBLIC KEY" => Part::Public(der::spki(&contents)?),
            "RSA PUBLIC KEY" => Part::Public(der::rsa_public(&contents)?),
            "CERTIFICATE" => {
                // The first is the leaf; the keys of the others may be of any kind.
                match &mut chain {
                    Some(chain) => {
                        der::x509(&contents)?;
                        chain.der.push(contents.to_vec());
                    }
                    None => chain = Some(der::certificate(&contents)?),
                }
                continue;
            }
            // openssl ecparam writes the curve before the key, which names it again.
            "EC PARAMETERS" => continue,
            label => return Err(RefusalReason::UnknownLabel(redact_long(label))),
        });
    }
    parts.extend(chain.map(Part::Certificates));
    if parts.is_empty() { Err(RefusalReason::NoKey) } else { Ok(parts) }
}

/// The blocks of a text. What stands between them is explanation and is passed over, as long as it
/// can't be a piece of a marker.
fn blocks(text: &str) -> Result<Vec<Block<'_>>, RefusalReason> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for line in text.split('\n').map(str::trim) {
        let Some(mut block) = open.take() else {
            if let Some(label) = marker(line, "-----BEGIN ") {
                open = Some(Block::new(label, text.len()));
            } else if line.starts_with('-') || line.contains("-----") {
                return Err(RefusalReason::Truncated);
            }
            continue;
        };
        match marker(line, "-----END ") {
            Some(end) if end == block.label => {
                block.text.extend(["-----END ", end, "-----\n"]);
                blocks.push(block);
            }
            Some(_) => return Err(RefusalReason::BadPem("its BEGIN and END lines differ")),
            None if line.contains("-----") => return Err(RefusalReason::Truncated),
            None => {
                block.add(line);
                open = Some(block);
            }
        }
    }
    if open.is_some() { Err(RefusalReason::Truncated) } else { Ok(blocks) }
}

impl<'a> Block<'a> {
    /// A block of this label that has no lines yet, in a file of this many bytes.
    fn new(label: &'a str, file_length: usize) -> Self {
        // With room for the whole, so that no piece of it is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(file_length + 64));
        text.extend(["-----BEGIN ", label, "-----\n"]);
        Self { label, text }
    }

    /// Adds a line. The decoder takes a blank line for the end of headers, so only that one stays.
    fn add(&mut self, line: &str) {
        let ends_headers =
            line.is_empty() && self.text.contains(':') && !self.text.contains("\n\n");
        if !line.is_empty() || ends_headers {
            self.text.extend([line, "\n"]);
        }
    }
}

fn marker<'a>(line: &'a str, begin: &str) -> Option<&'a str> {
    line.strip_prefix(begin)?.strip_suffix("-----")
}
