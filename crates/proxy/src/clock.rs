//! Coarse deadlines: one sweep a worker instead of one timer a connection.
//!
//! A deadline is moved on every request and almost never met, so moving it must cost nothing: it is
//! one store into a dense table that is walked every [`TICK`]. A deadline is met at most one tick
//! late and never early. A worker without connections does not tick.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::Notify;

use crate::runtime::sleep;

/// How often deadlines are looked at.
pub const TICK: Duration = Duration::from_millis(100);

const NEVER: u64 = u64::MAX;

/// The time of one worker, in milliseconds since it began, as of the last tick.
pub struct Clock {
    began: Instant,
    now: Cell<u64>,
    asleep: Cell<bool>,
    wanted: Notify,
    entries: RefCell<Slab<Entry>>,
    /// Woken at the next tick.
    soon: RefCell<Vec<Waker>>,
}

struct Entry {
    at: u64,
    waker: Waker,
}

impl Clock {
    pub fn new() -> Rc<Clock> {
        Rc::new(Clock {
            began: Instant::now(),
            now: Cell::new(0),
            asleep: Cell::new(true),
            wanted: Notify::new(),
            entries: RefCell::new(Slab::new()),
            soon: RefCell::default(),
        })
    }

    /// Milliseconds since the worker began; as old as one tick while there are timers.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// A timer that wakes the task of `waker`; it has no deadline yet.
    pub fn timer(self: &Rc<Self>, waker: Waker) -> Timer {
        if self.asleep.get() {
            self.refresh();
            self.wanted.notify_one();
        }
        let key = self.entries.borrow_mut().insert(Entry { at: NEVER, waker });
        Timer {
            clock: self.clone(),
            key,
        }
    }

    /// Wakes the task of every timer: something about the whole worker has changed.
    pub fn wake_all(&self) {
        for (_, entry) in self.entries.borrow().iter() {
            entry.waker.wake_by_ref();
        }
    }

    /// Runs for ever; `each_tick` is called after the deadlines of each tick and says whether it
    /// needs the next one.
    pub async fn run(self: Rc<Self>, mut each_tick: impl FnMut(u64) -> bool) {
        let mut needed = false;
        loop {
            if !needed && self.entries.borrow().is_empty() {
                self.asleep.set(true);
                self.wanted.notified().await;
                self.asleep.set(false);
            }
            sleep(TICK).await;
            let before = self.now.get();
            self.refresh();
            let now = self.now.get();
            for (_, entry) in self.entries.borrow().iter() {
                // Once: a task that has other things to do first is not woken again each tick.
                if entry.at > before && entry.at <= now {
                    entry.waker.wake_by_ref();
                }
            }
            for waker in self.soon.take() {
                waker.wake();
            }
            needed = each_tick(now);
        }
    }

    fn refresh(&self) {
        self.now.set(self.began.elapsed().as_millis() as u64);
    }
}

/// One task's deadline. Dropping it takes it off the clock.
pub struct Timer {
    clock: Rc<Clock>,
    key: usize,
}

impl Timer {
    /// The deadline is `after` from now, whatever it was.
    pub fn set(&self, after: Duration) {
        // The time may be one tick old: without it, a deadline would be met early.
        let at = self.clock.now() + (after + TICK).as_millis() as u64;
        self.clock.entries.borrow_mut()[self.key].at = at;
    }

    /// No deadline.
    pub fn clear(&self) {
        self.clock.entries.borrow_mut()[self.key].at = NEVER;
    }

    /// Wakes the task at the next tick, whatever the deadline.
    pub fn wake_at_tick(&self) {
        let waker = self.clock.entries.borrow()[self.key].waker.clone();
        self.clock.soon.borrow_mut().push(waker);
    }

    pub fn expired(&self) -> bool {
        self.clock.entries.borrow()[self.key].at <= self.clock.now()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.clock.entries.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{block_on, spawn, yield_now};
    use std::future::poll_fn;
    use std::task::Poll;

    async fn expiry(clock: Rc<Clock>, after: Duration) -> Duration {
        let began = Instant::now();
        let mut timer = None;
        poll_fn(|cx| {
            let timer = timer.get_or_insert_with(|| {
                let timer = clock.timer(cx.waker().clone());
                timer.set(after);
                timer
            });
            if timer.expired() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        began.elapsed()
    }

    #[test]
    fn a_deadline_is_never_met_early_and_the_clock_sleeps_between() {
        let slept = block_on(|| (), async {
            let clock = Clock::new();
            spawn(clock.clone().run(|_| false));
            for _ in 0..2 {
                let after = Duration::from_millis(30);
                assert!(expiry(clock.clone(), after).await >= after);
                // One more tick, and a clock without timers is asleep.
                while !clock.asleep.get() {
                    yield_now().await;
                }
            }
        });
        slept.unwrap();
    }
}
