//! `jwksd render`: the JWK Set as it would be served at an instant. Writes nothing.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use super::moment::Moment;
use super::{DONE, Failure, print};
use crate::clock::Clock;
use crate::config::Config;
use crate::keys::Audience;
use crate::publish::document::{published_keys, render};
use crate::publish::layout::DocumentKind;
use crate::serve;

pub(super) fn run(
    config: &Config,
    clock: &dyn Clock,
    audience: Option<&Audience>,
    at: Option<Moment>,
) -> Result<u8, Failure> {
    let now = clock.now();
    let at = at.map_or(now, |moment| moment.resolve(now));
    // Before anything is read, where that tells.
    let audiences = &config.keys.audiences;
    if let Some(named) = audience
        && audiences.find(named.as_str()).is_none()
    {
        return Err(Failure::no_such_audience(named, audiences));
    }
    let inspection = serve::inspect(config, now)?;
    let policy = &config.lifecycle.policy;
    let keys =
        published_keys(&inspection.outcome.records, at, policy, config.publish.certificates, &[]);
    let layout = serve::layout_of(config, &inspection.scan, &keys);
    let wanted = DocumentKind::KeySet(audience.cloned());
    let Some(index) = layout.contents().iter().position(|content| *content == wanted) else {
        let named = audience.cloned().unwrap_or_else(|| Audience::new(""));
        return Err(Failure::no_such_audience(&named, audiences));
    };
    let documents = render(&layout, &keys, at, None);
    let document = documents.get(index).map(Arc::as_ref);
    let mut body = document.map(|document| document.identity.body.to_vec()).unwrap_or_default();
    // To a program exactly the served bytes, to a person a whole line.
    if io::stdout().is_terminal() {
        body.push(b'\n');
    }
    print(&body)?;
    Ok(DONE)
}
