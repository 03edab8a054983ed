//! A time to measure with, where each request does it several times: by the standard library, whose
//! clock is read without a system call; rustix's was seen to make one each time.

use std::time::Instant;

/// A moment of the system's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(Instant);

impl Moment {
    pub fn now() -> Moment {
        Moment(Instant::now())
    }

    /// Microseconds from `earlier` to this one.
    pub fn us_since(self, earlier: Moment) -> u64 {
        self.0.duration_since(earlier.0).as_micros() as u64
    }
}
