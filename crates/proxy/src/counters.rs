//! What a worker counts: written by one thread, read by any.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hyperfleet_wire::control;

use crate::bounds::{Bound, NAMES};
use crate::held;
use crate::histogram::{Histogram, BOUNDS_US};
use crate::privileges;

/// The codes of the proxy's own answers, and what ended a connection without one.
const CODES: [&str; 12] = [
    "machine_not_found",
    "machine_not_running",
    "port_not_exposed",
    "upstream_connect_failed",
    "upstream_invalid_response",
    "upstream_timeout",
    "bad_request",
    "request_timeout",
    "too_large",
    "over_capacity",
    "not_found",
    "task_panicked",
];

/// A number with one writing thread: a load and a store, no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Answers by class of status, 1xx to 5xx.
#[derive(Debug, Default)]
pub struct Statuses([Count; 5]);

impl Statuses {
    pub fn count(&self, status: u16) {
        if let Some(class) = self.0.get(usize::from(status / 100).wrapping_sub(1)) {
            class.add(1);
        }
    }

    pub fn add_to(&self, sums: &mut [u64; 5]) {
        for (sum, count) in sums.iter_mut().zip(&self.0) {
            *sum += count.get();
        }
    }
}

/// Answers of the proxy's own by code.
#[derive(Debug, Default)]
pub struct Errors([Count; CODES.len()]);

impl Errors {
    pub fn count(&self, code: &str) {
        if let Some(at) = CODES.iter().position(|&known| known == code) {
            self.0[at].add(1);
        }
    }

    /// Adds what is not zero to `sums`, in the order of the codes in each.
    pub fn add_to(&self, sums: &mut Vec<(String, u64)>) {
        for (code, count) in CODES
            .iter()
            .zip(&self.0)
            .filter(|(_, count)| count.get() > 0)
        {
            match sums.iter_mut().find(|(known, _)| known == code) {
                Some((_, sum)) => *sum += count.get(),
                None => sums.push(((*code).to_owned(), count.get())),
            }
        }
    }
}

/// One worker's counters; see [`control::Counters`] for what each means.
#[derive(Default)]
pub struct Counters {
    pub connections: Count,
    pub tunnels: Count,
    pub accepted: Count,
    pub requests: Count,
    pub responses: Statuses,
    pub errors: Errors,
    pub bytes_in: Count,
    pub bytes_out: Count,
    pub upstream_connects: Count,
    pub upstream_reuses: Count,
    pub duration: Histogram,
    pub first_byte: Histogram,
    bounds: [Count; NAMES.len()],
}

impl Counters {
    /// Counts that a bound was met.
    pub fn met(&self, bound: Bound) {
        self.met_times(bound, 1);
    }

    /// Counts that a bound was met so many times.
    pub fn met_times(&self, bound: Bound, times: u64) {
        self.bounds[bound as usize].add(times);
    }

    /// The sum over all workers.
    pub fn total<'a>(workers: impl IntoIterator<Item = &'a Counters>) -> control::Counters {
        let mut total = control::Counters {
            bounds_us: BOUNDS_US.to_vec(),
            ..control::Counters::default()
        };
        let mut bounds = [0; NAMES.len()];
        for worker in workers {
            total.connections += worker.connections.get();
            total.tunnels += worker.tunnels.get();
            total.accepted += worker.accepted.get();
            total.requests += worker.requests.get();
            worker.responses.add_to(&mut total.responses);
            worker.errors.add_to(&mut total.errors);
            total.bytes_in += worker.bytes_in.get();
            total.bytes_out += worker.bytes_out.get();
            total.upstream_connects += worker.upstream_connects.get();
            total.upstream_reuses += worker.upstream_reuses.get();
            worker.duration.add_to(&mut total.duration);
            worker.first_byte.add_to(&mut total.first_byte);
            for (sum, count) in bounds.iter_mut().zip(&worker.bounds) {
                *sum += count.get();
            }
        }
        // Met where no worker's counters are at hand.
        bounds[Bound::HeldBytes as usize] += held::met();
        bounds[Bound::SystemCalls as usize] += privileges::refused_calls();
        total.bounds = NAMES.map(str::to_owned).into_iter().zip(bounds).collect();
        total
    }
}
