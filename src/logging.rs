//! Where log lines go and how they look: stderr, as text on a terminal and as JSON elsewhere.

use std::io::{self, IsTerminal as _};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::audit::AUDIT;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{LogConfig, LogFormat};

/// Installs the log for the whole process. A second call changes nothing.
pub fn init(log: LogConfig) {
    let as_text = match log.format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(log.level.max(Level::INFO))
        .with_timer(Now)
        .with_target(false)
        .with_writer(io::stderr);
    // Both escape what comes from outside: JSON in its strings, the text form control characters.
    let _ = if as_text {
        let lines = lines.with_ansi(io::stderr().is_terminal());
        lines.finish().with(filter_fn(move |about| is_wanted(about, log.level))).try_init()
    } else {
        let lines = lines.json().flatten_event(true).with_ansi(false);
        lines.finish().with(filter_fn(move |about| is_wanted(about, log.level))).try_init()
    };
}

/// Whether a line is printed: of the audit every one is. What libraries log has no `event` and can be
/// caused by clients (h2 warns of each connection that it ends), so it is for debugging alone.
fn is_wanted(about: &Metadata<'_>, level: Level) -> bool {
    let is_ours = about.target().starts_with(env!("CARGO_PKG_NAME"));
    about.target() == AUDIT || (*about.level() <= level && (is_ours || level >= Level::DEBUG))
}

/// RFC 3339 in UTC, to the microsecond.
struct Now;

impl FormatTime for Now {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:.6}", SystemClock.now())
    }
}
