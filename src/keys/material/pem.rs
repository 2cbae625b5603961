//! PEM (RFC 7468) text to parts.
//!
//! The decoder of a block accepts less than a whole file without a word, so this finds the blocks
//! itself and counts every marker. What a block holds is told by its contents, not by its label.

use zeroize::Zeroizing;

use super::der::Form;
use super::signing_key::Opener;
use super::{Part, other, read, recover, redact_long};
use crate::keys::refusal::{OtherFormat, RefusalReason, escape_name};

struct Block {
    label: String,
    headers: Vec<(String, Zeroizing<String>)>,
    /// Its base64.
    text: Zeroizing<String>,
    is_indented: bool,
}

/// A block with its base64 decoded.
struct Decoded {
    block: Block,
    contents: Zeroizing<Vec<u8>>,
}

const RECOVERED: &str = "its PEM has lost its line breaks, or stands in quotes or indented, as in an \
                         environment variable: it was read as it was meant";

pub(super) fn parse(text: &str, opener: &mut Opener<'_>) -> Result<Vec<Part>, RefusalReason> {
    let mut parts = Vec::new();
    let blocks = match decode(text) {
        Ok(blocks) if !blocks.is_empty() => {
            if blocks.iter().any(|decoded| decoded.block.is_indented) {
                parts.push(Part::Note(RECOVERED.to_owned()));
            }
            blocks
        }
        Ok(_) if !text.contains("-----BEGIN ") => return other::text(text),
        failed => {
            let recovered = decode(&recover::lines(text)).ok().filter(|blocks| !blocks.is_empty());
            let failed = failed.err().unwrap_or(RefusalReason::Truncated);
            parts.push(Part::Note(RECOVERED.to_owned()));
            recovered.ok_or(failed)?
        }
    };
    // By what they hold, not by their labels.
    let is_public = |decoded: &Decoded| {
        let form = Form::of(&decoded.contents);
        matches!(form, Ok(Form::Spki | Form::RsaPublic | Form::Certificate))
    };
    let open_private = opener.open_private || !blocks.iter().any(is_public);
    let notes = parts.len();
    for decoded in &blocks {
        let Decoded { block, contents } = decoded;
        let label = &*block.label;
        // openssl ecparam writes the curve before the key, which names it again.
        if label == "EC PARAMETERS" {
            continue;
        }
        let header = |name: &str| block.headers.iter().find(|(known, _)| known == name);
        // As heimdall names the key of a block. Only where the block is whole without it: where line
        // breaks are lost, a piece of the key may stand behind the kid.
        let kid = header("X-Key-ID").filter(|_| Form::of(contents).is_ok());
        let kid = kid.map(|(_, kid)| Part::KeyId(String::clone(kid)));
        // RFC 1421 §4.6.1.1 and §4.6.1.3.
        let is_encrypted = header("DEK-Info").is_some()
            || header("Proc-Type").is_some_and(|(_, value)| value.contains("ENCRYPTED"));
        let is_private = label.ends_with("PRIVATE KEY");
        let part = if is_private && is_encrypted {
            Part::Unopened { encrypted: true }
        } else if is_private && is_known(label) && !open_private && !is_public(decoded) {
            Part::Unopened { encrypted: label == Form::EncryptedPkcs8.label() }
        } else {
            let form = match form(label, contents) {
                Ok(form) => form,
                Err(RefusalReason::OtherFormat(format)) => {
                    parts.push(format.into_part()?);
                    continue;
                }
                Err(reason) => return Err(reason),
            };
            if form.label() != label {
                let label = escape_name(&redact_long(label));
                let found = form.label();
                parts.push(Part::Note(format!(
                    "the block \"{label}\" holds what is called \"{found}\", and was read as that"
                )));
            }
            read(form, contents, opener)?
        };
        parts.push(part);
        parts.extend(kid);
    }
    if parts.len() == notes { Err(RefusalReason::NoKey) } else { Ok(parts) }
}

/// What a block of this label holds.
fn form(label: &str, contents: &[u8]) -> Result<Form, RefusalReason> {
    let unknown = || RefusalReason::UnknownLabel(redact_long(label));
    if label == "OPENSSH PRIVATE KEY" {
        return Err(other::openssh_private(contents).into());
    }
    if label.starts_with("PGP ") {
        return Err(OtherFormat::OpenPgp { is_private: label.contains("PRIVATE") }.into());
    }
    match Form::of(contents) {
        Err(RefusalReason::OtherFormat(format)) => Err(format.in_pem().into()),
        // Parameters of other keys may look like a key.
        _ if !label.contains("KEY") && !label.contains("CERTIFICATE") => Err(unknown()),
        Err(RefusalReason::BadKey(_)) if !is_known(label) => Err(unknown()),
        form => form,
    }
}

/// Whether blocks of this label are read.
fn is_known(label: &str) -> bool {
    let forms = [Form::Pkcs8, Form::EncryptedPkcs8, Form::RsaPrivate, Form::Sec1];
    let public = [Form::Spki, Form::RsaPublic, Form::Certificate];
    forms.iter().chain(&public).any(|form| form.label() == label)
}

/// The blocks of a text, decoded.
fn decode(text: &str) -> Result<Vec<Decoded>, RefusalReason> {
    let mut decoded = Vec::new();
    for block in blocks(text)? {
        // A checksum follows their base64 (RFC 9580 §6.1), and they are not read.
        if block.label.starts_with("PGP ") {
            decoded.push(Decoded { block, contents: Zeroizing::default() });
            continue;
        }
        let plain = ::pem::parse(block.text.as_bytes())
            .map_err(|_| RefusalReason::BadPem("its base64 is damaged"))?;
        let mut contents = Zeroizing::new(plain.into_contents());
        if block.label == "TRUSTED CERTIFICATE" {
            // OpenSSL writes what the certificate is trusted for behind it.
            let length = super::der::element_length(&contents);
            contents.truncate(length.unwrap_or(0));
        }
        decoded.push(Decoded { block, contents });
    }
    Ok(decoded)
}

/// The blocks of a text. What stands between them is explanation and is passed over, as long as it
/// can't be a piece of a marker.
fn blocks(text: &str) -> Result<Vec<Block>, RefusalReason> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut lines = text.split('\n').peekable();
    while let Some(whole) = lines.next() {
        let line = whole.trim();
        let Some(mut block) = open.take() else {
            if let Some(label) = marker(line, "-----BEGIN ") {
                open = Some(Block::new(label, text.len()));
            } else if is_piece_of_a_marker(line, lines.peek().is_none()) {
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
                block.is_indented |= whole.starts_with([' ', '\t']) && !line.is_empty();
                block.add(line);
                open = Some(block);
            }
        }
    }
    if open.is_some() { Err(RefusalReason::Truncated) } else { Ok(blocks) }
}

/// Whether a line of explanation holds a marker that is damaged, or on the last line cut short.
fn is_piece_of_a_marker(line: &str, is_last: bool) -> bool {
    ["-----BEGIN", "-----END"].iter().any(|begin| {
        let is_cut = || (1..begin.len()).any(|length| line.ends_with(&begin[..length]));
        line.contains(begin) || (is_last && is_cut())
    })
}

impl Block {
    /// A block of this label that has no lines yet, in a file of this many bytes.
    fn new(label: &str, file_length: usize) -> Self {
        // With room for the whole, so that no piece of it is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(file_length + 64));
        text.extend(["-----BEGIN ", label, "-----\n"]);
        Self { label: label.to_owned(), headers: Vec::new(), text, is_indented: false }
    }

    /// Adds a line: a header (RFC 1421 §4.6), or one of base64, which has no colon.
    fn add(&mut self, line: &str) {
        match line.split_once(':') {
            Some((name, value)) => {
                self.headers
                    .push((name.trim().to_owned(), Zeroizing::new(value.trim().to_owned())));
            }
            None if !line.is_empty() => self.text.extend([line, "\n"]),
            None => {}
        }
    }
}

fn marker<'a>(line: &'a str, begin: &str) -> Option<&'a str> {
    line.strip_prefix(begin)?.strip_suffix("-----")
}
