//! The one reaper. As PID 1 the agent must reap every orphan, and `waitpid(-1)` takes the status
//! of its own children too: so all statuses pass through here and are handed to who waits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{kill_process, kill_process_group, wait, Pid, Signal, WaitOptions};
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::{oneshot, Notify};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Code(i32),
    Signal(i32),
}

/// Processes that the agent started and that are not reaped yet. Clones share one table.
#[derive(Clone, Default)]
pub struct Processes {
    waiting: Rc<RefCell<HashMap<Pid, oneshot::Sender<Ended>>>>,
    /// Told after each reaping.
    reaped: Rc<Notify>,
}

impl Processes {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Enters a child just spawned. What comes back resolves when it is reaped.
    ///
    /// Must be called before control returns to the runtime, or the reaper may come first.
    pub fn enter(&self, pid: Pid) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, sender);
        receiver
    }

    /// Signals the process group that `pid` leads. Does nothing once `pid` has been reaped: the
    /// number may be another's by then.
    pub fn signal_group(&self, pid: Pid, signal: Signal) {
        if self.waiting.borrow().contains_key(&pid) {
            // ESRCH: all of the group are zombies already; the reaper is about to tell.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Signals the groups of all, and whatever else is a child of the agent: orphans, where it is
    /// a subreaper.
    pub fn signal_all(&self, signal: Signal) {
        for pid in self.waiting.borrow().keys() {
            let _ = kill_process_group(*pid, signal);
        }
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        for pid in children
            .split(' ')
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Reaps at every SIGCHLD, for ever, in a task of its own. To be called before any child is
    /// started.
    ///
    /// # Errors
    /// When the signal can't be watched.
    pub fn reap_for_ever(&self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        let processes = self.clone();
        tokio::task::spawn_local(async move {
            while ended.recv().await.is_some() {
                processes.reap();
                processes.reaped.notify_waiters();
            }
        });
        Ok(())
    }

    /// Waits until the agent has no child any more; true when so within `limit`. For PID 1, and
    /// for a subreaper, that is every process below it.
    pub async fn all_gone(&self, limit: Duration) -> bool {
        let gone = async {
            loop {
                let reaped = self.reaped.notified();
                if !self.reap() {
                    return;
                }
                reaped.await;
            }
        };
        tokio::time::timeout(limit, gone).await.is_ok()
    }

    /// Reaps whatever has ended; the kernel merges SIGCHLDs, so all of them each time.
    ///
    /// False when there is no child at all.
    fn reap(&self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let ended = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Ended::Code(code),
                        (None, Some(signal)) => Ended::Signal(signal),
                        // Stopped or continued: not asked for, not an end.
                        (None, None) => continue,
                    };
                    if let Some(waiter) = self.waiting.borrow_mut().remove(&pid) {
                        let _ = waiter.send(ended);
                    }
                }
                Ok(None) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}
