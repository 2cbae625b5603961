//! Where log lines go and how they look: stderr, as text on a terminal and as JSON elsewhere.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

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
        // It would report them on stderr, and panic where that is closed.
        .log_internal_errors(false)
        .with_writer(|| LineWriter);
    // Both quote and escape what comes from outside, so that it looks like no other field.
    let _ = if as_text {
        let lines = lines.fmt_fields(QuotedFields).with_ansi(io::stderr().is_terminal());
        lines.finish().with(filter_fn(move |about| is_wanted(about, log.level))).try_init()
    } else {
        let lines = lines.json().flatten_event(true).with_ansi(false);
        lines.finish().with(filter_fn(move |about| is_wanted(about, log.level))).try_init()
    };
}

/// How many lines may wait to be written.
const MOST_WAITING: usize = 1024;

/// Where lines wait to be written by a thread of their own, once there is a [`LogQueue`].
static QUEUE: OnceLock<SyncSender<Vec<u8>>> = OnceLock::new();
static WAITING: AtomicUsize = AtomicUsize::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines were lost, because stderr is closed or full, or nobody reads it.
pub(crate) fn lost_lines() -> u64 {
    LOST.load(Relaxed)
}

fn write_line(line: &[u8]) {
    if io::stderr().write_all(line).is_err() {
        LOST.fetch_add(1, Relaxed);
    }
}

/// Writes a text among the lines where they are read on a terminal.
pub(crate) fn show(text: &str) {
    if io::stderr().is_terminal() {
        let _ = LineWriter.write(text.as_bytes());
    }
}

/// Takes a line, whatever becomes of it: logging stops nothing.
struct LineWriter;

impl io::Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(queue) = QUEUE.get() {
            WAITING.fetch_add(1, Relaxed);
            if queue.try_send(line.to_vec()).is_err() {
                WAITING.fetch_sub(1, Relaxed);
                LOST.fetch_add(1, Relaxed);
            }
        } else {
            write_line(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of a daemon, which wait in memory so that nothing else waits for whoever reads them.
/// What is left is written when this is dropped, as far as that takes no time.
pub(crate) struct LogQueue(Option<Receiver<Vec<u8>>>);

impl LogQueue {
    /// From now on lines wait until [`Self::start`].
    pub(crate) fn new() -> Self {
        let (queue, lines) = mpsc::sync_channel(MOST_WAITING);
        Self(QUEUE.set(queue).is_ok().then_some(lines))
    }

    /// Starts the thread that writes. Where there can be none, lines are lost.
    pub(crate) fn start(&mut self) {
        let Some(lines) = self.0.take() else { return };
        let write = move || {
            for line in lines {
                write_line(&line);
                WAITING.fetch_sub(1, Relaxed);
            }
        };
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(write);
    }
}

impl Drop for LogQueue {
    fn drop(&mut self) {
        // It was not started.
        for line in self.0.iter().flat_map(Receiver::try_iter) {
            write_line(&line);
        }
        let deadline = Instant::now() + Duration::from_millis(500);
        while self.0.is_none() && WAITING.load(Relaxed) > 0 && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// Whether a line is printed: of the audit every one is. What libraries log has no `event` and can be
/// caused by clients (h2 warns of each connection that it ends), so it is for debugging alone.
fn is_wanted(about: &Metadata<'_>, level: Level) -> bool {
    let is_ours = about.target().starts_with(env!("CARGO_PKG_NAME"));
    about.target() == AUDIT || (*about.level() <= level && (is_ours || level >= Level::DEBUG))
}

/// RFC 3339 in UTC, to the millisecond.
struct Now;

impl FormatTime for Now {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:.3}", SystemClock.now())
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
