//! What was measured for one port of one machine: each worker writes meters of its own, made at the
//! port's first request there; whoever asks adds them up.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

use hyperfleet_wire::control::PortMeters;

use crate::answer::Answer;
use crate::counters::{Count, Errors, Statuses};
use crate::histogram::Histogram;

/// One worker's; see [`PortMeters`] for what each means.
#[derive(Debug)]
pub struct Meter {
    pub requests: Count,
    pub responses: Statuses,
    pub errors: Errors,
    pub bytes_in: Count,
    pub bytes_out: Count,
    pub in_flight: Count,
    pub tunnels: Count,
    pub duration: Histogram,
    pub first_byte: Histogram,
    /// The last byte's time on the worker's clock, milliseconds.
    active: Count,
    /// When it was made, on everybody's clock and on the worker's.
    made: (Instant, u64),
    /// The worker that alone writes to it.
    writer: ThreadId,
}

impl Meter {
    /// `now` is the worker's clock, milliseconds.
    pub fn new(now: u64) -> Meter {
        let active = Count::default();
        active.set(now);
        Meter {
            requests: Count::default(),
            responses: Statuses::default(),
            errors: Errors::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            in_flight: Count::default(),
            tunnels: Count::default(),
            duration: Histogram::default(),
            first_byte: Histogram::default(),
            active,
            made: (Instant::now(), now),
            writer: thread::current().id(),
        }
    }

    /// Bytes have moved; `now` as in [`Meter::new`].
    pub fn touch(&self, now: u64) {
        self.active.set(now);
    }

    /// The proxy answers in place of the machine.
    pub fn answered(&self, answer: Answer) {
        self.responses.count(answer.status());
        self.errors.count(answer.code());
    }

    /// A request that was never in flight. Somebody wants the machine, so it counts as activity.
    pub fn refused(&self, answer: Answer, now: u64) {
        self.requests.add(1);
        self.answered(answer);
        self.touch(now);
    }

    /// Milliseconds since the last byte.
    fn idle_ms(&self) -> u64 {
        let (instant, worker) = self.made;
        let age = instant.elapsed().as_millis() as u64;
        age.saturating_sub(self.active.get().saturating_sub(worker))
    }

    fn add_to(&self, sum: &mut PortMeters) {
        sum.requests += self.requests.get();
        self.responses.add_to(&mut sum.responses);
        self.errors.add_to(&mut sum.errors);
        sum.bytes_in += self.bytes_in.get();
        sum.bytes_out += self.bytes_out.get();
        sum.in_flight += self.in_flight.get();
        sum.tunnels += self.tunnels.get();
        self.duration.add_to(&mut sum.duration);
        self.first_byte.add_to(&mut sum.first_byte);
    }
}

/// A machine's meters of one worker, by port, as far as they were needed in a life of it.
#[derive(Default)]
pub struct Meters(RefCell<Vec<(u16, Arc<Meter>)>>);

impl Meters {
    /// The meter of a port: that of an earlier life, which the `ledger` knows, or a new one. `now` as in
    /// [`Meter::new`].
    pub fn of(&self, port: u16, ledger: &Ledger, now: u64) -> Arc<Meter> {
        let mut meters = self.0.borrow_mut();
        if let Some((_, meter)) = meters.iter().find(|(known, _)| *known == port) {
            return meter.clone();
        }
        let meter = ledger.mine(port, now);
        meters.push((port, meter.clone()));
        meter
    }

    /// Forgets the ports that are not exposed any more.
    pub fn retain(&self, exposed: impl Fn(u16) -> bool) {
        self.0.borrow_mut().retain(|(port, _)| exposed(*port));
    }
}

/// All workers' meters of one machine, for those who ask. Locked at a port's first request in a
/// worker, and to be read.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<(u16, Arc<Meter>)>>);

impl Ledger {
    /// This thread's meter of a port.
    fn mine(&self, port: u16, now: u64) -> Arc<Meter> {
        let me = thread::current().id();
        let mut meters = self.lock();
        let known = meters
            .iter()
            .find(|(known, meter)| *known == port && meter.writer == me);
        if let Some((_, meter)) = known {
            return meter.clone();
        }
        let meter = Arc::new(Meter::new(now));
        meters.push((port, meter.clone()));
        meter
    }

    /// As [`Meters::retain`].
    pub fn retain(&self, exposed: impl Fn(u16) -> bool) {
        self.lock().retain(|(port, _)| exposed(*port));
    }

    /// Sums over the workers for at most `most` ports behind `after`, in order, and the
    /// milliseconds since the last byte of any port; `None` when there are no meters.
    pub fn read(&self, after: Option<u16>, most: usize) -> Option<(Vec<PortMeters>, u64)> {
        let mut meters = self.lock().clone();
        let idle_ms = meters.iter().map(|(_, meter)| meter.idle_ms()).min()?;
        meters.sort_by_key(|(port, _)| *port);
        let mut ports: Vec<PortMeters> = Vec::new();
        for (port, meter) in &meters {
            if after.is_some_and(|after| *port <= after) {
                continue;
            }
            if ports.last().is_none_or(|last| last.port != *port) {
                if ports.len() == most {
                    break;
                }
                ports.push(PortMeters {
                    port: *port,
                    ..PortMeters::default()
                });
            }
            if let Some(sum) = ports.last_mut() {
                meter.add_to(sum);
            }
        }
        Some((ports, idle_ms))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u16, Arc<Meter>)>> {
        // A list of what there is stays right whoever panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_summed_over_workers_and_read_in_parts() {
        let ledger = Ledger::default();
        assert!(ledger.read(None, 9).is_none());
        let work = || {
            let meters = Meters::default();
            for port in [443, 80, 8080] {
                meters.of(port, &ledger, 0).requests.add(u64::from(port));
                meters.of(port, &ledger, 0).responses.count(204);
            }
        };
        thread::scope(|scope| {
            scope.spawn(work);
            scope.spawn(work);
        });
        let read = |after, most| {
            let (ports, _) = ledger.read(after, most).unwrap();
            let row = |port: &PortMeters| (port.port, port.requests, port.responses[1]);
            ports.iter().map(row).collect::<Vec<_>>()
        };
        assert_eq!(read(None, 2), [(80, 160, 2), (443, 886, 2)]);
        assert_eq!(read(Some(443), 2), [(8080, 16160, 2)]);
        assert_eq!(read(Some(8080), 2), []);
    }

    #[test]
    fn meters_outlive_a_life_and_go_with_their_port() {
        let ledger = Ledger::default();
        let first = Meters::default();
        first.of(80, &ledger, 0).requests.add(1);
        first.of(81, &ledger, 0).requests.add(1);
        let second = Meters::default();
        second.of(80, &ledger, 0).requests.add(1);
        second.of(81, &ledger, 0).requests.add(1);
        second.retain(|port| port == 80);
        ledger.retain(|port| port == 80);
        second.of(81, &ledger, 0);
        let (ports, _) = ledger.read(None, 9).unwrap();
        let requests: Vec<_> = ports.iter().map(|port| port.requests).collect();
        assert_eq!(requests, [2, 0]);
    }
}
