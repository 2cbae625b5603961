//! Text and instants as HTML shows them.

use std::fmt::{self, Write as _};

use jiff::Timestamp;

use crate::operations::relative::relative;

/// Text in elements and in quoted attributes. Controls are left out, and so is what would turn the
/// direction of the text around it.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_shown = |character: &char| {
            !character.is_control()
                && !matches!(character, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        for character in self.0.chars().filter(is_shown) {
            match character {
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '&' => f.write_str("&amp;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                other => f.write_char(other),
            }?;
        }
        Ok(())
    }
}

/// The beginning of a text that may be long and stands whole elsewhere.
pub(super) struct Short<'a>(pub(super) &'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 48;
        match self.0.char_indices().nth(MOST) {
            None => write!(f, "{}", Escaped(self.0)),
            Some((end, _)) => write!(f, "{}…", Escaped(&self.0[..end])),
        }
    }
}

/// An instant: how far away it is, and below that what the clock says then.
pub(super) struct When {
    pub(super) at: Timestamp,
    pub(super) now: Timestamp,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, now } = self;
        write!(f, "{} <small>{}</small>", relative(*at, *now), Clock(*at))
    }
}

/// An instant on the clock, to the second.
pub(super) struct Clock(pub(super) Timestamp);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0;
        write!(f, "<time datetime=\"{at}\">{}</time>", at.strftime("%F %T UTC"))
    }
}
