//! Where log lines go and how they look: stderr, as text on a terminal and as JSON elsewhere.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock::{Clock as _, SystemClock};
use crate::config::{Log, LogFormat};

/// Installs the log for the whole process. A second call changes nothing.
pub fn init(log: Log) {
    let as_text = match log.format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(log.level)
        .with_timer(Now)
        .with_target(false)
        .with_writer(io::stderr);
    // Both escape what comes from outside: JSON in its strings, the text form control characters.
    let _ = if as_text {
        lines.with_ansi(io::stderr().is_terminal()).try_init()
    } else {
        lines.json().flatten_event(true).with_ansi(false).try_init()
    };
}

/// RFC 3339 in UTC, to the microsecond.
struct Now;

impl FormatTime for Now {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:.6}", SystemClock.now())
    }
}
