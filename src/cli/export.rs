//! `jwksd export`: every document as a file at its path below a directory, once.

use std::path::Path;

use super::moment::Moment;
use super::{DONE, FAILED, Failure, print};
use crate::clock::Clock;
use crate::config::Config;
use crate::publish::document::published_keys;
use crate::publish::export::{ExportSource, Exporter};
use crate::publish::snapshot;
use crate::serve;

pub(super) fn run(
    config: &Config,
    clock: &dyn Clock,
    directory: &Path,
    at: Option<Moment>,
) -> Result<u8, Failure> {
    let now = clock.now();
    let at = at.map_or(now, |moment| moment.resolve(now));
    let failure = |cause: String| Failure {
        what: format!("can't export to {}", directory.display()),
        cause,
        remedy: "name a directory of your own that can be written, outside the key directories"
            .to_owned(),
        code: FAILED,
    };
    let absolute = std::path::absolute(directory)?;
    if config.keys.dirs.iter().any(|keys| keys.starts_with(&absolute) || absolute.starts_with(keys))
    {
        return Err(failure("a key directory lies in it, or it in one".to_owned()));
    }
    let inspection = serve::inspect(config, now)?;
    let records = inspection.outcome.records;
    let (policy, publish) = (&config.lifecycle.policy, &config.publish);
    let keys = published_keys(&records, at, policy, publish.certificates, &[]);
    let (publisher, _) = snapshot::channel(serve::layout_of(config, &inspection.scan, &keys));
    let Some(snapshot) = publisher.publish(keys, at) else { return Ok(DONE) };
    let source = ExportSource { snapshot: &snapshot, records: &records, policy, now: at };
    let exported = Exporter::new(absolute, publish.max_age).export(source);
    let documents = exported.map_err(|error| failure(error.to_string()))?;
    print(format!("{documents} documents are in {}\n", directory.display()).as_bytes())?;
    Ok(DONE)
}
