//! When the next request is due. Pure.

use std::time::{Duration, Instant};

/// How long the load goes on, and how fast.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As fast as answers come.
    Flood,
    /// So many a second, whatever the answers do: a late answer makes the next ones late, and
    /// they count from when they were due, so that a stall is seen by all whom it hit.
    Rate(f64),
}

#[derive(Debug)]
pub struct Schedule {
    began: Instant,
    ends: Instant,
    pace: Pace,
    /// Requests that were given out.
    given: u64,
}

impl Schedule {
    pub fn new(began: Instant, length: Duration, pace: Pace) -> Schedule {
        Schedule {
            began,
            ends: began + length,
            pace,
            given: 0,
        }
    }

    /// When the next request was due, if it is due by now. It has to be made.
    pub fn next(&mut self, now: Instant) -> Option<Instant> {
        let due = self.due(now)?;
        (due <= now).then(|| {
            self.given += 1;
            due
        })
    }

    /// How long until one is due; `None` if nothing has to be waited for.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        match self.pace {
            Pace::Flood => None,
            Pace::Rate(_) => self.due(now).map(|due| due.saturating_duration_since(now)),
        }
    }

    /// No request is due any more.
    pub fn over(&self, now: Instant) -> bool {
        self.due(now).is_none()
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        let due = match self.pace {
            Pace::Flood => now,
            Pace::Rate(rate) => self.began + Duration::from_secs_f64(self.given as f64 / rate),
        };
        (due < self.ends).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_flood_is_always_due_until_it_is_over() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, SECOND, Pace::Flood);
        assert_eq!(schedule.next(now), Some(now));
        assert_eq!(schedule.next(now), Some(now));
        assert_eq!(schedule.next(now + SECOND), None);
        assert!(schedule.over(now + SECOND));
    }

    #[test]
    fn a_rate_makes_up_for_a_stall_and_counts_from_when_it_was_due() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, SECOND, Pace::Rate(10.0));
        assert_eq!(schedule.next(now), Some(now));
        assert_eq!(schedule.next(now), None);
        assert_eq!(schedule.wait(now), Some(SECOND / 10));
        let late = now + SECOND / 4;
        assert_eq!(schedule.next(late), Some(now + SECOND / 10));
        assert_eq!(schedule.next(late), Some(now + SECOND / 5));
        assert_eq!(schedule.next(late), None);
        // All ten are made, however late.
        let rest = std::iter::from_fn(|| schedule.next(now + 2 * SECOND)).count();
        assert_eq!(rest, 7);
        assert!(schedule.over(now + 2 * SECOND));
    }
}
