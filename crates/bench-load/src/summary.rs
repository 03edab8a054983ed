//! What a run of the load found, as one line of JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::reply::Fault;

/// Latencies to three digits, in nanoseconds, up to ten minutes.
const DIGITS: u8 = 3;
const LONGEST: u64 = 600_000_000_000;

/// Counts while the load runs.
pub struct Tally {
    latencies: Histogram<u64>,
    faults: BTreeMap<Fault, u64>,
    /// Of bodies and messages, both ways.
    bytes: u64,
}

impl Tally {
    /// # Errors
    /// Never for the bounds used here.
    pub fn new() -> Result<Tally, hdrhistogram::CreationError> {
        Ok(Tally {
            latencies: Histogram::new_with_bounds(1, LONGEST, DIGITS)?,
            faults: BTreeMap::new(),
            bytes: 0,
        })
    }

    /// An answer that was right.
    pub fn right(&mut self, after: Duration, bytes: u64) {
        let nanoseconds = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(nanoseconds.max(1));
        self.bytes += bytes;
    }

    pub fn wrong(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    pub fn summary(&self, took: Duration) -> Summary<'_> {
        let at = |quantile: f64| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Summary {
            answers: self.latencies.len(),
            seconds: took.as_secs_f64(),
            bytes: self.bytes,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.latencies.max() as f64 / 1000.0,
            faults: &self.faults,
        }
    }
}

/// The line that is printed. Latencies are in microseconds.
#[derive(Serialize)]
pub struct Summary<'a> {
    pub answers: u64,
    pub seconds: f64,
    pub bytes: u64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    pub faults: &'a BTreeMap<Fault, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_microseconds_and_faults_are_named() {
        let mut tally = Tally::new().unwrap();
        for milliseconds in 1..=100 {
            tally.right(Duration::from_millis(milliseconds), 10);
        }
        tally.wrong(Fault::Bytes);
        let summary = tally.summary(Duration::from_secs(2));
        assert_eq!((summary.answers, summary.bytes), (100, 1000));
        assert!((summary.p50_us - 50_000.0).abs() < 100.0);
        assert!((summary.p99_us - 99_000.0).abs() < 100.0);
        assert!((summary.p999_us - 100_000.0).abs() < 100.0);
        let line = serde_json::to_string(&summary).unwrap();
        assert!(line.contains(r#""faults":{"bytes":1}"#), "{line}");
    }
}
