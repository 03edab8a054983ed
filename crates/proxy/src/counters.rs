//! What a worker counts: written by one thread, read by any.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hyperfleet_wire::control;

use crate::bounds::{Bound, NAMES};
use crate::held;

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
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One worker's counters; see [`control::Counters`] for what each means.
#[derive(Default)]
pub struct Counters {
    pub connections: Count,
    pub tunnels: Count,
    pub accepted: Count,
    pub requests: Count,
    pub responses: [Count; 5],
    errors: [Count; CODES.len()],
    pub bytes_in: Count,
    pub bytes_out: Count,
    pub upstream_connects: Count,
    pub upstream_reuses: Count,
    bounds: [Count; NAMES.len()],
}

impl Counters {
    /// Counts an answer by its status' class.
    pub fn response(&self, status: u16) {
        if let Some(class) = self
            .responses
            .get(usize::from(status / 100).wrapping_sub(1))
        {
            class.add(1);
        }
    }

    /// Counts an answer of the proxy's own.
    pub fn error(&self, code: &str) {
        if let Some(at) = CODES.iter().position(|&known| known == code) {
            self.errors[at].add(1);
        }
    }

    /// Counts that a bound was met.
    pub fn met(&self, bound: Bound) {
        self.bounds[bound as usize].add(1);
    }

    /// The sum over all workers.
    pub fn total<'a>(workers: impl IntoIterator<Item = &'a Counters>) -> control::Counters {
        let mut total = control::Counters::default();
        let mut errors = [0; CODES.len()];
        let mut bounds = [0; NAMES.len()];
        for worker in workers {
            total.connections += worker.connections.get();
            total.tunnels += worker.tunnels.get();
            total.accepted += worker.accepted.get();
            total.requests += worker.requests.get();
            for (sum, count) in total.responses.iter_mut().zip(&worker.responses) {
                *sum += count.get();
            }
            for (sum, count) in errors.iter_mut().zip(&worker.errors) {
                *sum += count.get();
            }
            total.bytes_in += worker.bytes_in.get();
            total.bytes_out += worker.bytes_out.get();
            total.upstream_connects += worker.upstream_connects.get();
            total.upstream_reuses += worker.upstream_reuses.get();
            for (sum, count) in bounds.iter_mut().zip(&worker.bounds) {
                *sum += count.get();
            }
        }
        // Met where no worker's counters are at hand.
        bounds[Bound::HeldBytes as usize] += held::met();
        total.bounds = NAMES.map(str::to_owned).into_iter().zip(bounds).collect();
        total.errors = CODES
            .iter()
            .zip(errors)
            .filter(|(_, count)| *count > 0)
            .map(|(code, count)| ((*code).to_owned(), count))
            .collect();
        total
    }
}
