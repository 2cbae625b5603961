//! What results are printed on: how wide it is, whether it shows colours, and whether a person reads it.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write as _};
use std::ops::Bound;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use clap::ValueEnum;

use crate::keys::Kid;
use crate::keys::lifecycle::Phase;

/// What `--color` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// Sets what the whole process goes by.
pub(super) fn choose(choice: ColorChoice) {
    // Set once, at the start.
    let _ = CHOICE.set(choice);
}

/// Whether colours are shown on what is a terminal or not.
pub(super) fn shows_color(is_terminal: bool) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match CHOICE.get().copied().unwrap_or_default() {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            is_terminal && !is_dumb && !is_set("NO_COLOR")
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// In characters; none where lines may have any length.
    pub(super) width: Option<usize>,
    pub(super) has_color: bool,
    pub(super) is_terminal: bool,
}

impl Screen {
    pub(super) fn of_stdout() -> Self {
        Self::of(&io::stdout())
    }

    fn of(stream: &(impl AsFd + IsTerminal)) -> Self {
        let is_terminal = stream.is_terminal();
        let named = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let asked = || {
            let size = rustix::termios::tcgetwinsize(stream).ok()?;
            is_terminal.then_some(usize::from(size.ws_col))
        };
        let width = named.or_else(asked).filter(|width| *width >= NARROWEST);
        Self { width, has_color: shows_color(is_terminal), is_terminal }
    }

    /// `text` in a colour, by its number in SGR (ECMA-48 §8.3.117), where there are colours.
    pub(super) fn paint(self, text: &str, color: &str) -> String {
        if self.has_color && !color.is_empty() {
            format!("\x1b[{color}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A label and a sentence about it, which goes on below the sentence's beginning where the line is
    /// full. Ends the line.
    pub(super) fn remark(self, label: &str, color: &str, text: &str) -> String {
        let indent = label.chars().count().min(12);
        let first = self.width.unwrap_or(usize::MAX).saturating_sub(label.chars().count());
        let lines = wrapped(text, first, self.width.map_or(usize::MAX, |width| width - indent));
        let name = label.trim_start();
        let gap = &label[..label.len() - name.len()];
        let lines = lines.join(&format!("\n{:indent$}", ""));
        format!("{gap}{}{lines}\n", self.paint(name, color))
    }

    pub(super) fn warning(self, text: &str) -> String {
        self.remark("warning: ", YELLOW, text)
    }
}

/// Tells the person who runs a command, on stderr. Where that is closed there is nobody to tell.
pub(super) fn tell(label: &str, color: &str, text: &str) {
    let mut screen = Screen::of(&io::stderr());
    if !screen.is_terminal {
        screen.width = None;
    }
    let _ = io::stderr().write_all(screen.remark(label, color, text).as_bytes());
}

/// Below that nothing is made to fit.
const NARROWEST: usize = 40;

pub(super) const BOLD: &str = "1";
pub(super) const DIM: &str = "2";
pub(super) const RED: &str = "31";
pub(super) const GREEN: &str = "32";
pub(super) const YELLOW: &str = "33";
pub(super) const CYAN: &str = "36";

pub(super) fn color_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Active => GREEN,
        Phase::Announced => CYAN,
        Phase::Grace => YELLOW,
        _ => DIM,
    }
}

/// The text in lines of at most `first`, and then `width` characters, broken between words. A longer word
/// is broken where the line is full.
pub(super) fn wrapped(text: &str, first: usize, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    let room = |lines: &[String]| if lines.len() == 1 { first } else { width }.max(1);
    for word in text.split(' ') {
        let length = word.chars().count();
        let used = lines.last().map_or(0, |line| line.chars().count());
        let is_first = used == 0;
        if !is_first && used + 1 + length > room(&lines) {
            lines.push(String::new());
        } else if !is_first && let Some(line) = lines.last_mut() {
            line.push(' ');
        }
        for character in word.chars() {
            if lines.last().is_some_and(|line| line.chars().count() >= room(&lines)) {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push(character);
            }
        }
    }
    lines
}

/// Kids as they are shown: on a terminal a long one by its beginning, as far as no other begins so.
pub(super) struct ShownKids {
    kids: BTreeSet<Kid>,
    is_short: bool,
}

/// A kid that is no longer stands whole: people chose it to be read.
const READABLE: usize = 20;

/// The shortest beginning that is shown.
const SHORTEST: usize = 8;

impl ShownKids {
    /// Of all `kids` that there are, shown or not.
    pub(super) fn new(kids: impl IntoIterator<Item = Kid>, screen: Screen) -> Self {
        Self { kids: kids.into_iter().collect(), is_short: screen.is_terminal }
    }

    pub(super) fn shown<'a>(&self, kid: &'a Kid) -> &'a str {
        let text = kid.as_str();
        if !self.is_short || text.len() <= READABLE {
            return text;
        }
        let common = |other: &Kid| {
            text.bytes().zip(other.as_str().bytes()).take_while(|(one, other)| one == other).count()
        };
        let before = self.kids.range(..kid.clone()).next_back().map_or(0, common);
        let beyond = (Bound::Excluded(kid.clone()), Bound::Unbounded);
        let after = self.kids.range(beyond).next().map_or(0, common);
        // Of printable ASCII each byte is a character.
        text.get(..SHORTEST.max(1 + before.max(after))).unwrap_or(text)
    }
}
