//! Measurements in `OpenMetrics`, all of them read when they are asked for.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use super::family::{Measured, seconds};
use super::{OpsSources, OpsView, fleet};
use crate::keys::Audience;
use crate::keys::lifecycle::{Dates, KeyState, Phase, Policy};
use crate::keys::material::certificate_end;
use crate::ledger::fleet::Exchange;
use crate::ledger::{NamedKey, Overview, Persistence, WarningKind};
use crate::logging;
use crate::publish::layout::DocumentKind;
use crate::publish::status::ReloadStatus;
use crate::sandbox::Restriction;
use crate::source::watch::WatchState;

/// All measurements, as they are at the instant of `sight`.
pub(super) fn encode(sources: &Arc<OpsSources>, sight: OpsView) -> String {
    let mut registry = Registry::with_prefix("jwksd");
    registry.register_collector(Box::new(Measurable { sources: Arc::clone(sources), sight }));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut text, &registry);
    text
}

/// What is measured when it is encoded.
struct Measurable {
    sources: Arc<OpsSources>,
    sight: OpsView,
}

impl fmt::Debug for Measurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measurable").finish_non_exhaustive()
    }
}

impl Collector for Measurable {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut measured = Measured::new(encoder);
        measured.build(&self.sources, &self.sight);
        let fleet = self.sources.fleet.as_ref().map(Exchange::status);
        fleet::measure(&mut measured, fleet.as_ref(), &self.sight);
        measured.finish()
    }
}

/// A key with its dates and what holds for it now.
type MeasuredKey<'a> = (NamedKey<'a>, Dates, KeyState);

/// How many published keys of an audience have series of their own.
const MOST_KEYS: usize = 100;

impl Measured<'_> {
    fn build(&mut self, sources: &OpsSources, sight: &OpsView) {
        let policy = &sources.terms.policy;
        self.family("build_info", "The version of this program")
            .add([("version", env!("CARGO_PKG_VERSION"))], 1.0);
        self.family("ready", "Whether requests should come here")
            .alone(f64::from(u8::from(sight.readiness.is_ready())));
        self.family("token_lifetime_seconds", "How long tokens live, as configured")
            .alone(policy.token_lifetime.as_secs_f64());
        self.family("clock_skew_seconds", "How far consumers' clocks may be off, as configured")
            .alone(policy.clock_skew.as_secs_f64());
        self.family("landlock_abi", "The ABI of Landlock that is in force; 0 where it is not")
            .alone(f64::from(sources.in_force.landlock_abi));
        let family = self.family("sandbox", "Whether a restriction of this program is in force");
        for Restriction { name, holds, .. } in &sources.in_force.restrictions {
            family.add([("restriction", *name)], f64::from(u8::from(*holds)));
        }
        self.counter(
            "log_lines_lost",
            "Log lines that were lost because stderr is closed or full, or nobody reads it",
        )
        .alone(count_of(logging::lost_lines()));
        if let Some(view) = &sight.view {
            let audiences = sight.snapshot.as_ref().map_or_else(
                || sources.terms.rules.audiences.listed(),
                |snapshot| snapshot.layout.audiences(),
            );
            self.keys(view, audiences, policy, sight.now);
            self.state(view);
        }
        self.documents(sight);
        let family =
            self.family("export_failing", "Whether an exported file is not as it should be");
        if let Some(export) = &sources.export {
            family.alone(f64::from(u8::from(export.borrow().error.is_some())));
        }
        let rotations = sources.rotations();
        let family = self.family(
            "rotation_next_timestamp_seconds",
            "When the next key of an audience is issued by schedule; absent while one is planned",
        );
        for (audience, status) in &rotations {
            if let Some(at) = status.next_at {
                family.add([("audience", audience.as_str())], seconds(at));
            }
        }
        let family = self.family(
            "rotation_failing",
            "Whether the last scheduled rotation of an audience failed",
        );
        for (audience, status) in &rotations {
            let is_failing = f64::from(u8::from(status.error.is_some()));
            family.add([("audience", audience.as_str())], is_failing);
        }
        self.listeners(sources);
        self.certificates(sources);
    }

    fn certificates(&mut self, sources: &OpsSources) {
        let shown: Vec<_> =
            sources.certificates.iter().map(|served| (served.listener, served.shown())).collect();
        let family = self.family(
            "tls_certificate_end_timestamp_seconds",
            "When the certificate that a listener serves ends",
        );
        for (listener, shown) in &shown {
            family.add([("listener", *listener)], seconds(shown.not_after));
        }
        let family = self.family(
            "tls_certificate_refused",
            "Whether another certificate lies there that is refused",
        );
        for (listener, shown) in &shown {
            let is_refused = f64::from(u8::from(shown.trouble.is_some()));
            family.add([("listener", *listener)], is_refused);
        }
        let family =
            self.counter("tls_reloads", "Changed certificates by listener and what came of them");
        for (listener, shown) in &shown {
            for (outcome, count) in [("changed", shown.renewed), ("refused", shown.refused)] {
                family.add([("listener", *listener), ("outcome", outcome)], count_of(count));
            }
        }
    }

    fn keys(
        &mut self,
        view: &ReloadStatus,
        audiences: &[Audience],
        policy: &Policy,
        now: Timestamp,
    ) {
        let overview = Overview::of(&view.records, now, policy);
        let states: Vec<MeasuredKey> = NamedKey::all(&view.records)
            .map(|named| (named, named.dates(), named.dates().at(now, policy)))
            .collect();
        let mut counts: BTreeMap<(&Audience, Phase), u32> = BTreeMap::new();
        for audience in audiences {
            counts.extend(Phase::ALL.map(|phase| ((audience, phase), 0)));
        }
        for (named, _, state) in &states {
            *counts.entry((named.audience(), state.phase)).or_default() += 1;
        }
        let family = self.family("keys", "Keys by audience and phase");
        for ((audience, phase), count) in counts {
            let labels = [("audience", audience.as_str()), ("phase", phase.as_str())];
            family.add(labels, f64::from(count));
        }
        let published = || states.iter().filter(|(_, _, state)| state.phase.is_published());
        let listed = self.listed(published(), audiences);
        let family = self.family(
            "key_publication_end_timestamp_seconds",
            "When a published key's publication ends; absent where that is open",
        );
        for (named, _, state) in &listed {
            family.of_key(*named, state.published_until.map(seconds));
        }
        let family = self.family(
            "key_safe_to_sign_timestamp_seconds",
            "From when every consumer has a published key, as far as can be said",
        );
        for (named, _, state) in &listed {
            family.of_key(*named, state.safe_to_sign_from.map(seconds));
        }
        let family = self.family(
            "key_sign_until_timestamp_seconds",
            "Until when a published key may sign so that its last token expires before it does",
        );
        for (named, _, state) in &listed {
            family.of_key(*named, state.sign_until.map(seconds));
        }
        let family = self.family("key_warnings", "Names of keys that something is to be known of");
        for kind in WarningKind::ALL {
            let warned = overview.warnings.iter().filter(|warning| warning.kind == kind).count();
            let warned = u32::try_from(warned).unwrap_or(u32::MAX);
            family.add([("warning", kind.as_str())], f64::from(warned));
        }
        let family = self.family(
            "key_grace_seconds",
            "How long a published key that ends, or has ended, is published after that",
        );
        for (named, dates, state) in &listed {
            let grace = dates
                .invalidated_at()
                .zip(state.published_until)
                .map(|(at, until)| at.duration_until(until).as_secs_f64().max(0.0));
            family.of_key(*named, grace);
        }
        let family = self.family(
            "key_certificate_end_timestamp_seconds",
            "When the certificate of a published key ends, where it has one",
        );
        for (named, _, _) in &listed {
            let end = named.key.certificates.first().and_then(|leaf| certificate_end(leaf));
            family.of_key(*named, end.map(seconds));
        }
        self.signers(&states, &overview, policy);
        let family = self.family("standby_keys", "Keys that can take over from the current one");
        let standby = published().filter(|(named, _, state)| {
            named.can_sign() && state.phase != Phase::Grace && !overview.is_current(named.name())
        });
        let mut counts: BTreeMap<&Audience, u32> = BTreeMap::new();
        standby.for_each(|(named, ..)| *counts.entry(named.audience()).or_default() += 1);
        for audience in audiences {
            let count = counts.get(audience).copied().unwrap_or_default();
            family.add([("audience", audience.as_str())], f64::from(count));
        }
        let next = states.iter().filter_map(|(_, _, state)| state.next_change).min();
        let family = self.family("next_change_seconds", "How long until a date of any key comes");
        if let Some(next) = next {
            family.alone(now.duration_until(next).as_secs_f64());
        }
    }

    /// The published keys that have series of their own: of each audience the newest, in the order
    /// of its key set. More than anybody publishes would be more than any monitoring takes.
    fn listed<'a>(
        &mut self,
        published: impl Iterator<Item = &'a MeasuredKey<'a>>,
        audiences: &[Audience],
    ) -> Vec<&'a MeasuredKey<'a>> {
        let mut listed: Vec<&MeasuredKey> = published.collect();
        listed.sort_unstable_by_key(|(named, dates, _)| {
            (named.audience(), Reverse(dates.valid_from), named.kid())
        });
        let mut counts: BTreeMap<&Audience, usize> =
            audiences.iter().map(|audience| (audience, 0)).collect();
        listed.retain(|(named, _, _)| {
            let count = counts.entry(named.audience()).or_default();
            *count += 1;
            *count <= MOST_KEYS
        });
        let family = self.family(
            "unlisted_keys",
            "Published keys beyond the newest 100 of an audience, which have no series of their own",
        );
        for (audience, count) in counts {
            let unlisted = u32::try_from(count.saturating_sub(MOST_KEYS)).unwrap_or(u32::MAX);
            family.add([("audience", audience.as_str())], f64::from(unlisted));
        }
        listed
    }

    fn signers(&mut self, states: &[MeasuredKey<'_>], overview: &Overview, policy: &Policy) {
        let current = || states.iter().filter(|(named, _, _)| overview.is_current(named.name()));
        let family = self.family("current_key_info", "The key that an audience signs with");
        for (named, _, _) in current() {
            let labels = [
                ("audience", named.audience().as_str()),
                ("kid", named.kid().as_str()),
                ("algorithm", named.key.algorithm.as_str()),
            ];
            family.add(labels, 1.0);
        }
        let family = self.family(
            "current_key_end_timestamp_seconds",
            "When the key that an audience signs with has to stop; absent where that is open",
        );
        for (named, dates, _) in current() {
            let ends = [dates.valid_to, dates.sign_until(policy)];
            if let Some(end) = ends.into_iter().flatten().min() {
                family.add([("audience", named.audience().as_str())], seconds(end));
            }
        }
    }

    fn state(&mut self, view: &ReloadStatus) {
        let family = self.counter("reloads", "Looks at the key directories by their outcome");
        let looks = view.looks;
        for (outcome, count) in
            [("changed", looks.changed), ("unchanged", looks.unchanged), ("failed", looks.failed)]
        {
            family.add([("outcome", outcome)], count_of(count));
        }
        let damaged = u32::try_from(view.damaged_files.len()).unwrap_or(u32::MAX);
        self.family("damaged_records", "Damaged files of the ledger that were set aside")
            .alone(f64::from(damaged));
        let contradictions = u32::try_from(view.contradictions.len()).unwrap_or(u32::MAX);
        self.family("contradictions", "Values of entries that contradict other entries")
            .alone(f64::from(contradictions));
        let family = self.family(
            "last_good_scan_timestamp_seconds",
            "When every key directory could be read last",
        );
        family.values.extend(view.last_good_scan.map(|at| (Vec::new(), seconds(at))));
        let mut reasons: BTreeMap<&'static str, u32> = BTreeMap::new();
        for refused in &view.refused {
            *reasons.entry(refused.reason.code()).or_default() += 1;
        }
        let family = self.family("refused_files", "Entries that are refused now, by reason");
        for (reason, count) in reasons {
            family.add([("reason", reason)], f64::from(count));
        }
        let has_events = matches!(view.watcher, WatchState::Watching { .. });
        self.family("watcher_events", "Whether changes are noticed by events, not only by polling")
            .alone(f64::from(u8::from(has_events)));
        let state = match view.persistence {
            Persistence::Disk => "disk",
            Persistence::Memory => "memory",
            Persistence::Failing(_) => "failing",
        };
        let family = self.family("ledger_state", "How the ledger is kept: 1 for what is the case");
        for name in ["disk", "memory", "failing"] {
            family.add([("state", name)], f64::from(u8::from(name == state)));
        }
    }

    fn documents(&mut self, sight: &OpsView) {
        let Some(snapshot) = &sight.snapshot else { return };
        let contents = snapshot.layout.contents();
        let key_sets = || {
            contents.iter().zip(&snapshot.documents).filter_map(|(content, document)| {
                let DocumentKind::KeySet(audience) = content else { return None };
                Some((audience.as_ref().map_or("", Audience::as_str), document))
            })
        };
        let family =
            self.family("document_bytes", "The size of a JWK Set; that of all has no audience");
        for (audience, document) in key_sets() {
            let bytes = u32::try_from(document.identity.body.len()).unwrap_or(u32::MAX);
            family.add([("audience", audience)], f64::from(bytes));
        }
        let family = self.family("document_keys", "How many keys a JWK Set has");
        for (audience, document) in key_sets() {
            let keys = u32::try_from(document.key_count).unwrap_or(u32::MAX);
            family.add([("audience", audience)], f64::from(keys));
        }
        let family = self.family("document_info", "The SHA-256 of a JWK Set");
        for (audience, document) in key_sets() {
            family.add([("audience", audience), ("digest", document.digest())], 1.0);
        }
    }

    fn listeners(&mut self, sources: &OpsSources) {
        let listeners = &sources.listeners;
        let family = self.counter("http_requests", "Requests by listener, path and status");
        for listener in listeners {
            for (path, status, count) in listener.requests.all() {
                let status = status.to_string();
                let labels = [("listener", listener.name), ("path", path), ("status", &status)];
                family.add(labels, count_of(count));
            }
        }
        let family = self.family("http_connections", "Open connections by listener");
        for listener in listeners {
            let open = u32::try_from(listener.connections.len()).unwrap_or(u32::MAX);
            family.add([("listener", listener.name)], f64::from(open));
        }
        let family = self.counter("http_accepted", "Accepted connections by listener");
        for listener in listeners {
            family.add([("listener", listener.name)], count_of(listener.connections.accepted()));
        }
        let family = self.counter("http_refusals", "Refusals by listener and limit");
        for listener in listeners {
            for (limit, count) in listener.connections.reached().all() {
                family.add([("listener", listener.name), ("limit", limit)], count_of(count));
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53, which is exact")]
const fn count_of(count: u64) -> f64 {
    count as f64
}
