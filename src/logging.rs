//! Where log lines go and how they look: stderr, as text on a terminal and as JSON elsewhere.

use std::fmt;
use std::io::{self, IsTerminal as _};

use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::audit::AUDIT;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{LogConfig, LogFormat};
use crate::keys::refusal::replace_controls;

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
    // Both quote and escape what comes from outside, so that it looks like no other field.
    let _ = if as_text {
        let lines = lines.fmt_fields(QuotedFields).with_ansi(io::stderr().is_terminal());
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

/// Fields as `name=value`, the value in quotes where it could be taken for more than one.
struct QuotedFields;

impl<'w> FormatFields<'w> for QuotedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldWriter { writer, is_first: true, written: Ok(()) };
        fields.record(&mut visitor);
        visitor.written
    }
}

struct FieldWriter<'w> {
    writer: Writer<'w>,
    is_first: bool,
    written: fmt::Result,
}

impl FieldWriter<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let gap = if std::mem::take(&mut self.is_first) { "" } else { " " };
        let (before, after) =
            if self.writer.has_ansi_escapes() { ("\x1b[3m", "\x1b[0m") } else { ("", "") };
        let written = match field.name() {
            "message" => write!(self.writer, "{gap}{value}"),
            name => write!(self.writer, "{gap}{before}{name}{after}={value}"),
        };
        self.written = self.written.and(written);
    }
}

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.write(field, format_args!("{}", replace_controls(value)));
        } else {
            self.write(field, format_args!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        let is_one_word = |text: &str| {
            let is_plain = |one: char| one.is_ascii_graphic() && !matches!(one, '"' | '=' | '\\');
            !text.is_empty() && text.chars().all(is_plain)
        };
        if field.name() == "message" || !is_one_word(&value) {
            self.record_str(field, &value);
        } else {
            self.write(field, format_args!("{value}"));
        }
    }
}
