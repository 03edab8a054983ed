//! How long something took, in buckets: written by one thread, read by any.

use hyperfleet_wire::control;

use crate::counters::Count;

/// Upper bounds of the buckets in microseconds, each its own. From a small answer of a server on
/// this host to the longest that a person waits for.
pub const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// A time, and its bucket found once for all who count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    bucket: usize,
    us: u64,
}

impl Sample {
    /// Of a time in microseconds.
    pub fn new(us: u64) -> Sample {
        Sample {
            bucket: BOUNDS_US.partition_point(|&bound| bound < us),
            us,
        }
    }
}

#[derive(Debug, Default)]
pub struct Histogram {
    counts: [Count; BOUNDS_US.len() + 1],
    sum_us: Count,
}

impl Histogram {
    pub fn count(&self, sample: Sample) {
        self.counts[sample.bucket].add(1);
        self.sum_us.add(sample.us);
    }

    pub fn add_to(&self, sum: &mut control::Histogram) {
        sum.counts.resize(self.counts.len(), 0);
        for (sum, count) in sum.counts.iter_mut().zip(&self.counts) {
            *sum += count.get();
        }
        sum.sum_us += self.sum_us.get();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_above_all_to_the_last() {
        let histogram = Histogram::default();
        for us in [0, 500, 501, 60_000_000, 60_000_001] {
            histogram.count(Sample::new(us));
        }
        let mut sum = control::Histogram::default();
        histogram.add_to(&mut sum);
        histogram.add_to(&mut sum);
        assert_eq!(sum.counts.len(), BOUNDS_US.len() + 1);
        assert_eq!(sum.counts[..3], [4, 2, 0]);
        assert_eq!(sum.counts[15..], [2, 2]);
        assert_eq!(sum.sum_us, 2 * (1001 + 120_000_001));
    }
}
