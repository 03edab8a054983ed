//! A time to measure with, cheaper than `std::time::Instant`: one number, told and subtracted
//! without checks, where each request does it several times.

use rustix::time::{clock_gettime, ClockId};

/// Nanoseconds of the system's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(u64);

impl Moment {
    pub fn now() -> Moment {
        let time = clock_gettime(ClockId::Monotonic);
        Moment(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// Microseconds from `earlier` to this one.
    pub fn us_since(self, earlier: Moment) -> u64 {
        self.0.wrapping_sub(earlier.0) / 1000
    }
}
