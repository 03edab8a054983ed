//! Deadlines that are no connection's: few, and in order. Met at most one turn late, never early.

use std::collections::BTreeMap;
use std::future::{poll_fn, Future};
use std::pin::{pin, Pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::executor::with_timers;

/// A thread's deadlines.
pub struct Timers {
    waiting: BTreeMap<(Instant, u64), Waker>,
    /// Tells those of one moment apart.
    last: u64,
}

impl Timers {
    pub const fn new() -> Timers {
        Timers {
            waiting: BTreeMap::new(),
            last: 0,
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(key, _)| key.0)
    }

    /// Wakes whose deadline has come.
    pub fn fire(&mut self, now: Instant) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                return;
            }
            entry.remove().wake();
        }
    }
}

/// Waits for a moment; see [`sleep_until`].
pub struct Sleep {
    until: Instant,
    number: Option<u64>,
}

/// Ready at `until`, or at once if that is past.
pub fn sleep_until(until: Instant) -> Sleep {
    Sleep {
        until,
        number: None,
    }
}

/// Ready after `time` from now.
pub fn sleep(time: Duration) -> Sleep {
    sleep_until(Instant::now() + time)
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.until <= Instant::now() {
            return Poll::Ready(());
        }
        with_timers(|timers| {
            let number = *self.number.get_or_insert_with(|| {
                timers.last += 1;
                timers.last
            });
            timers
                .waiting
                .insert((self.until, number), cx.waker().clone());
        });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            with_timers(|timers| timers.waiting.remove(&(self.until, number)));
        }
    }
}

/// `future`'s output; `None` if it has none within `limit`.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep(limit));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}
