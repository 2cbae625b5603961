//! Families of measurements in `OpenMetrics`.

use std::fmt;

use jiff::Timestamp;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::ledger::NamedKey;

/// Families are encoded one after the other: together they are more than should be in memory.
pub(super) struct Measured<'a> {
    encoder: DescriptorEncoder<'a>,
    last: Option<Family>,
    encoded: fmt::Result,
}

impl<'a> Measured<'a> {
    pub(super) const fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self { encoder, last: None, encoded: Ok(()) }
    }

    /// # Errors
    /// Where anything could not be encoded.
    pub(super) fn finish(mut self) -> fmt::Result {
        self.encode_last();
        self.encoded
    }

    pub(super) fn family(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.encode_last();
        self.last.insert(Family { name, help, is_counter: false, values: Vec::new() })
    }

    fn encode_last(&mut self) {
        if let Some(family) = self.last.take() {
            let encoded = family.encode(&mut self.encoder);
            self.encoded = self.encoded.and(encoded);
        }
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        let family = self.family(name, help);
        family.is_counter = true;
        family
    }
}

/// A name, an explanation, and a value for each set of labels.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    pub(super) values: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Self { name, help, is_counter, values } = self;
        let kind = if *is_counter { MetricType::Counter } else { MetricType::Gauge };
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            if labels.is_empty() {
                // It is the only one.
                return encode_value(*value, *is_counter, family);
            }
            encode_value(*value, *is_counter, family.encode_family(labels)?)?;
        }
        Ok(())
    }

    pub(super) fn add<const N: usize>(&mut self, labels: [(&'static str, &str); N], value: f64) {
        let labels = labels.map(|(name, value)| (name, value.to_owned()));
        self.values.push((labels.into(), value));
    }

    pub(super) fn alone(&mut self, value: f64) {
        self.values.push((Vec::new(), value));
    }

    pub(super) fn of_key(&mut self, named: NamedKey<'_>, value: Option<f64>) {
        if let Some(value) = value {
            let labels = [("audience", named.audience().as_str()), ("kid", named.kid().as_str())];
            self.add(labels, value);
        }
    }
}

fn encode_value(value: f64, is_counter: bool, encoder: MetricEncoder<'_>) -> fmt::Result {
    if is_counter {
        ConstCounter::new(value).encode(encoder)
    } else {
        ConstGauge::new(value).encode(encoder)
    }
}

/// An instant in seconds since the epoch.
pub(super) fn seconds(instant: Timestamp) -> f64 {
    instant.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()
}
