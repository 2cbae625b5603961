//! PEM as it comes out of environment variables, JSON, YAML and shells: its line breaks lost or written
//! out, in quotes, all on one line. The markers tell what is meant; what they enclose is checked as that
//! of any other file.

use zeroize::Zeroizing;

/// The text with each marker on a line of its own, and with the line breaks inside of blocks that white
/// space stands for.
pub(super) fn lines(text: &str) -> Zeroizing<String> {
    let plain = unescape(text);
    // With room for the whole, so that no piece of it is left behind by growing.
    let room = plain.len() + 4 * plain.matches("-----").count() + 8;
    let mut lines = Zeroizing::new(String::with_capacity(room));
    let mut rest = &**plain;
    while let Some((before, label, after)) = next_marker(rest, "-----BEGIN ") {
        lines.extend([before, "\n-----BEGIN "]);
        push_label(&mut lines, label);
        let body = after.find("-----").unwrap_or(after.len());
        push_body(&mut lines, &after[..body]);
        rest = &after[body..];
        if let Some(("", label, after)) = next_marker(rest, "-----END ") {
            lines.push_str("-----END ");
            push_label(&mut lines, label);
            rest = after;
        }
    }
    lines.push_str(rest);
    lines
}

/// What stands before the next marker, its label, and what stands behind it.
fn next_marker<'a>(text: &'a str, begin: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (before, from) = text.split_once(begin)?;
    let (label, after) = from.split_once("-----")?;
    Some((before, label, after))
}

/// A line may have been broken inside of a label too.
fn push_label(lines: &mut String, label: &str) {
    for (index, word) in label.split_ascii_whitespace().enumerate() {
        lines.extend([if index == 0 { "" } else { " " }, word]);
    }
    lines.push_str("-----\n");
}

fn push_body(lines: &mut String, body: &str) {
    for line in body.lines() {
        if line.contains(':') {
            lines.extend([line, "\n"]);
            continue;
        }
        // What joins the pieces of a text in programs, and marks a quotation in mail.
        let words = line.split_ascii_whitespace().filter(|word| !matches!(*word, "+" | ">" | "|"));
        for word in words {
            lines.extend([word.trim_matches([',', ';']), "\n"]);
        }
    }
}

/// The text without its quotes and with what its escapes stand for, never longer than before.
fn unescape(text: &str) -> Zeroizing<String> {
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let character = match character {
            '\\' => {
                // Escaped once more by each program that it went through.
                let after = rest.as_str().trim_start_matches('\\');
                rest = after.chars();
                match rest.next() {
                    Some('u') => {
                        let code =
                            after.get(1..5).and_then(|code| u32::from_str_radix(code, 16).ok());
                        let code = code.and_then(char::from_u32);
                        rest =
                            after.get(if code.is_some() { 5 } else { 1 }..).unwrap_or("").chars();
                        code.unwrap_or('\n')
                    }
                    Some('/') => '/',
                    Some(_) | None => '\n',
                }
            }
            '\r' | '"' | '\'' | '`' => '\n',
            character => character,
        };
        plain.push(character);
    }
    plain
}
