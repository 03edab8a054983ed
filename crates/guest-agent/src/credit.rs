//! How much output of one process may be under way to the host, so that one that nobody reads is
//! held up and loses nothing.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// Bytes that may still be told. Its owners share it.
pub struct Credit {
    window: usize,
    left: Cell<usize>,
    news: Notify,
}

impl Credit {
    /// All of a `window` is free.
    pub fn new(window: usize) -> Rc<Self> {
        Rc::new(Self {
            window,
            left: Cell::new(window),
            news: Notify::new(),
        })
    }

    /// Returns when some bytes may be told: how many.
    pub async fn some(&self) -> usize {
        loop {
            if self.left.get() > 0 {
                return self.left.get();
            }
            self.news.notified().await;
        }
    }

    /// `bytes` are under way from now on.
    pub fn spend(&self, bytes: usize) {
        self.left.set(self.left.get().saturating_sub(bytes));
    }

    /// The host took `bytes`. More than were under way count as those.
    pub fn grant(&self, bytes: usize) {
        let left = self.left.get().saturating_add(bytes);
        self.left.set(left.min(self.window.max(self.left.get())));
        self.news.notify_waiters();
    }

    /// Nobody counts any more: whatever comes may be told.
    pub fn lift(&self) {
        self.left.set(usize::MAX);
        self.news.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_spent_comes_back_by_grants_alone() {
        let credit = Credit::new(10);
        assert_eq!(credit.some().await, 10);
        credit.spend(10);
        let waiting = tokio::time::timeout(Duration::from_millis(20), credit.some());
        assert!(waiting.await.is_err());
        credit.grant(4);
        assert_eq!(credit.some().await, 4);
        credit.grant(1000);
        assert_eq!(credit.some().await, 10);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn whoever_waits_hears_of_a_grant_and_of_the_end_of_counting() {
        let credit = Credit::new(1);
        credit.spend(1);
        let (one, two, ()) = tokio::join!(credit.some(), credit.some(), async { credit.grant(1) });
        assert_eq!((one, two), (1, 1));
        credit.spend(1);
        let (left, ()) = tokio::join!(credit.some(), async { credit.lift() });
        assert_eq!(left, usize::MAX);
        credit.spend(1 << 40);
        credit.grant(1);
        assert!(credit.some().await > 1 << 40);
    }
}
