//! Exports what is published whenever it may have changed, beside everything else: a directory that
//! fails or hangs keeps nothing from being published.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::config::Config;
use crate::publish::export::{ExportSource, ExportStatus, Exporter};
use crate::publish::snapshot::SnapshotReader;
use crate::publish::status::ReloadStatus;

/// Starts to export where that is configured. Returns how it goes.
pub(super) fn spawn(
    runtime: &Runtime,
    config: &Config,
    published: &SnapshotReader,
    view: &watch::Receiver<Option<Arc<ReloadStatus>>>,
    clock: &Arc<dyn Clock>,
) -> Option<watch::Receiver<ExportStatus>> {
    let directory = config.export.dir.clone()?;
    let exporter = Exporter::new(directory.clone(), config.publish.max_age);
    let (policy, poll) = (config.lifecycle.policy, config.keys.poll_interval);
    let (status, shown) = watch::channel(ExportStatus { directory, ..ExportStatus::default() });
    let (published, view, clock) = (published.clone(), view.clone(), Arc::clone(clock));
    runtime.spawn(async move {
        let (mut exporter, mut view) = (exporter, view);
        let mut wait = poll;
        loop {
            // Also where the loop hangs: the end of a key does not depend on it.
            if let Ok(Err(_)) = timeout(wait, view.changed()).await {
                return;
            }
            wait = poll;
            let now = clock.now();
            let (Some(snapshot), Some(seen)) =
                (published.at(now), view.borrow_and_update().clone())
            else {
                continue;
            };
            let end = snapshot.next_end().map(|end| Duration::try_from(now.duration_until(end)));
            let exported = spawn_blocking(move || {
                let records = &seen.records;
                let source = ExportSource { snapshot: &snapshot, records, policy: &policy, now };
                let outcome = exporter.export(source);
                (exporter, outcome)
            });
            // It does not panic, and is cancelled at the end of the program only.
            let Ok((again, outcome)) = exported.await else { return };
            exporter = again;
            wait = end.and_then(Result::ok).map_or(poll, |end| end.min(poll));
            status.send_modify(|status| status.record(outcome, now));
        }
    });
    Some(shown)
}
