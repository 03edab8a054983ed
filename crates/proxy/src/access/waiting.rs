//! Lines between the workers, which may not wait, and the thread that writes them.
//!
//! A worker wakes the thread for the first line that comes while it rests, and for none after that:
//! what a wake-up costs, a system call and twice another thread's turn, is shared by all lines of
//! [`GATHER`]. Only a buffer that grows long calls it sooner.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long lines gather after the first one.
pub const GATHER: Duration = Duration::from_millis(20);
/// Bytes of one worker's lines that are not left to gather any longer: about what a processor's
/// own cache holds beside the worker's work.
const LONG: usize = 256 * 1024;
/// Bytes of one worker's lines that may wait; a line has some hundred.
const MOST: usize = 1024 * 1024;

/// What the thread and everybody else have in common.
#[derive(Default)]
struct Shared {
    /// Of each worker.
    buffers: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    /// The thread waits for whatever comes.
    rests: AtomicBool,
    /// What has come is not to wait for more.
    hurry: AtomicBool,
}

impl Shared {
    fn any(&self) -> bool {
        let buffers = locked(&self.buffers);
        buffers.iter().any(|buffer| !locked(buffer).is_empty())
    }
}

/// The thread's side.
#[derive(Clone, Default)]
pub struct Gathered(Arc<Shared>);

impl Gathered {
    /// Waits, on the thread that writes, until lines have gathered or somebody is in a hurry.
    pub fn wait(&self) {
        let shared = &*self.0;
        loop {
            // In this order: who appends a line after we looked sees that we rest.
            shared.rests.store(true, SeqCst);
            if shared.hurry.load(SeqCst) || shared.any() {
                break;
            }
            thread::park();
        }
        shared.rests.store(false, SeqCst);
        let until = Instant::now() + GATHER;
        while !shared.hurry.load(SeqCst) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        shared.hurry.store(false, SeqCst);
    }

    /// Gives each worker's lines to `write`, which leaves `spare` empty. The memory of `spare`
    /// goes to a worker in exchange.
    pub fn take(&self, spare: &mut Vec<u8>, mut write: impl FnMut(&mut Vec<u8>)) {
        let buffers = locked(&self.0.buffers).clone();
        for buffer in buffers {
            mem::swap(&mut *locked(&buffer), spare);
            if !spare.is_empty() {
                write(spare);
            }
            // After a file that took nothing for a while.
            spare.shrink_to(LONG * 2);
        }
    }

    /// How to reach the thread that waits here.
    pub fn bell(&self, thread: Thread) -> Bell {
        Bell {
            shared: self.0.clone(),
            thread,
        }
    }
}

/// Wakes the thread.
#[derive(Clone)]
pub struct Bell {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Bell {
    /// What has come is taken now.
    pub fn hurry(&self) {
        self.shared.hurry.store(true, SeqCst);
        self.thread.unpark();
    }

    /// A worker's buffer.
    pub fn waiting(&self) -> Waiting {
        let buffer = Arc::<Mutex<Vec<u8>>>::default();
        locked(&self.shared.buffers).push(buffer.clone());
        Waiting {
            buffer,
            bell: self.clone(),
        }
    }
}

/// One worker's side.
pub struct Waiting {
    buffer: Arc<Mutex<Vec<u8>>>,
    bell: Bell,
}

impl Waiting {
    /// Has `write` append a line; whether it fits.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut buffer = locked(&self.buffer);
        let before = buffer.len();
        write(&mut buffer);
        let after = buffer.len();
        if after > MOST {
            buffer.truncate(before);
            return false;
        }
        drop(buffer);
        if before < LONG && after >= LONG {
            self.bell.hurry();
        } else if before == 0 && self.bell.shared.rests.swap(false, SeqCst) {
            self.bell.thread.unpark();
        }
        true
    }
}

/// Nothing that is done under these locks panics, and one thread's fault is not to be all others'.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bell that wakes this thread.
    fn own() -> (Gathered, Bell) {
        let gathered = Gathered::default();
        let bell = gathered.bell(thread::current());
        (gathered, bell)
    }

    fn line(text: &str) -> impl FnOnce(&mut Vec<u8>) + '_ {
        move |lines| lines.extend(text.as_bytes())
    }

    #[test]
    fn lines_of_all_workers_come_whole_and_in_each_ones_order() {
        const LINES: usize = 20_000;
        let (gathered, bell) = own();
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let waiting = bell.waiting();
                thread::spawn(move || {
                    for number in 0..LINES {
                        while !waiting.append(line(&format!("{worker} {number}\n"))) {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let (mut spare, mut next) = (Vec::new(), [0; 3]);
        while next != [LINES; 3] {
            gathered.wait();
            gathered.take(&mut spare, |lines| {
                for line in std::str::from_utf8(lines).unwrap().lines() {
                    let (worker, number) = line.split_once(' ').unwrap();
                    let next = &mut next[worker.parse::<usize>().unwrap()];
                    assert_eq!(number.parse(), Ok(*next));
                    *next += 1;
                }
                lines.clear();
            });
        }
        for worker in workers {
            worker.join().unwrap();
        }
    }

    #[test]
    fn a_line_that_does_not_fit_is_left_out_whole() {
        let (gathered, bell) = own();
        let waiting = bell.waiting();
        let (long, short) = ("x".repeat(MOST - 2) + "\n", "y\n");
        assert!(waiting.append(line(&long)));
        assert!(!waiting.append(line(short)));
        assert!(waiting.append(line("\n")));
        let mut taken = Vec::new();
        gathered.wait();
        gathered.take(&mut Vec::new(), |lines| taken.append(lines));
        assert_eq!(taken, (long + "\n").into_bytes());
        assert!(waiting.append(line(short)));
    }

    #[test]
    fn who_is_in_a_hurry_waits_for_no_line() {
        let (gathered, bell) = own();
        bell.hurry();
        gathered.wait();
        gathered.take(&mut Vec::new(), |_| unreachable!("there is no line"));
    }
}
