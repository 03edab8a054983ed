//! The thread that writes the access log.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{Access, Entry, Sink};
use crate::bounds::Bound;
use crate::counters::Counters;
use crate::log::{self, Sparing};
use crate::turns::Turns;

/// Lines that may wait for the thread: of 2 KiB at most, and of 300 bytes usually.
const QUEUE: usize = 4096;
/// Bytes after which lines are written, though more wait.
const BATCH: usize = 64 * 1024;
/// How long the last lines may take when the process ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What is in the queue.
pub enum Note {
    Line(Box<Entry>),
    /// There are new orders.
    Look,
}

/// What the thread is to do besides. Not in the queue, which may be full.
#[derive(Default)]
struct Orders {
    reopen: AtomicBool,
    end: AtomicBool,
}

/// The log while it is written.
pub struct AccessLog {
    queue: SyncSender<Note>,
    orders: Arc<Orders>,
    /// Ends when the thread does.
    done: Receiver<()>,
    /// Lines that the file did not take; of the thread alone.
    pub counters: Arc<Counters>,
}

impl AccessLog {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(sink: Sink, turns: Turns) -> io::Result<AccessLog> {
        let (queue, notes) = sync_channel(QUEUE);
        let (held, done) = sync_channel(1);
        let orders = Arc::<Orders>::default();
        let counters = Arc::<Counters>::default();
        let mut writer = Writer {
            sink,
            batch: Vec::new(),
            torn: false,
            complaint: Sparing::default(),
            orders: orders.clone(),
            counters: counters.clone(),
        };
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                let _held: SyncSender<()> = held;
                turns.behind();
                writer.run(&notes);
            })?;
        Ok(AccessLog {
            queue,
            orders,
            done,
            counters,
        })
    }

    /// A worker's way in; `counters` are its own, one of `sample` lines is written.
    pub fn access(&self, counters: Arc<Counters>, sample: u32) -> Access {
        Access {
            queue: self.queue.clone(),
            counters,
            sample,
            passed: Cell::new(0),
        }
    }

    /// The file was moved away: the next lines go to a new one of its name.
    pub fn reopen(&self) {
        self.order(&self.orders.reopen);
    }

    /// Waits until what is in the queue is written, but not for a file that takes nothing.
    pub fn close(self) {
        self.order(&self.orders.end);
        // It never sends; the error says whether it has ended.
        let _ = self.done.recv_timeout(LAST_LINES);
    }

    fn order(&self, order: &AtomicBool) {
        order.store(true, SeqCst);
        // A full queue has it look anyway.
        let _ = self.queue.try_send(Note::Look);
    }
}

struct Writer {
    sink: Sink,
    batch: Vec<u8>,
    /// The file's last line was cut off.
    torn: bool,
    complaint: Sparing,
    orders: Arc<Orders>,
    counters: Arc<Counters>,
}

impl Writer {
    fn run(&mut self, notes: &Receiver<Note>) {
        loop {
            let first = if self.orders.end.load(SeqCst) {
                notes.try_recv().ok()
            } else {
                notes.recv().ok()
            };
            let Some(first) = first else { return };
            self.take(first);
            while self.batch.len() < BATCH {
                let Ok(note) = notes.try_recv() else { break };
                self.take(note);
            }
            self.flush();
            if self.orders.reopen.swap(false, SeqCst) {
                self.reopen();
            }
        }
    }

    fn take(&mut self, note: Note) {
        if let Note::Line(entry) = note {
            if self.batch.is_empty() && self.torn {
                self.batch.push(b'\n');
            }
            entry.write(&mut self.batch);
        }
    }

    fn flush(&mut self) {
        let (written, failed) = self.sink.write(&self.batch);
        if let Some(&last) = self.batch[..written].last() {
            self.torn = last != b'\n';
        }
        if let Some(error) = failed {
            for _ in 0..lost(&self.batch, written) {
                self.counters.met(Bound::AccessLog);
            }
            self.complaint.line(format_args!(
                "access log: {error}; lines are lost until that is mended"
            ));
        }
        self.batch.clear();
    }

    fn reopen(&mut self) {
        match self.sink.reopen() {
            Ok(()) => {
                self.torn = false;
                log::line("access log opened again");
            }
            Err(why) => log::line(format_args!("access log: {why}; it stays in the old file")),
        }
    }
}

/// Lines of a batch that are not in the file whole when so many bytes of it are.
fn lost(batch: &[u8], written: usize) -> usize {
    let ends = memchr::memchr_iter(b'\n', &batch[written..]).count();
    // It begins with an end alone where a line was cut off, which was counted then.
    ends - usize::from(written == 0 && batch.starts_with(b"\n"))
}

#[cfg(test)]
mod tests {
    use super::lost;

    #[test]
    fn a_line_is_lost_once_however_it_is_cut() {
        for (batch, written, lines) in [
            ("a\nb\n", 4, 0),
            ("a\nb\n", 3, 1),
            ("a\nb\n", 2, 1),
            ("a\nb\n", 1, 2),
            ("a\nb\n", 0, 2),
            ("\na\nb\n", 0, 2),
            ("\na\nb\n", 1, 2),
            ("\na\nb\n", 3, 1),
        ] {
            assert_eq!(
                lost(batch.as_bytes(), written),
                lines,
                "{batch:?} {written}"
            );
        }
    }
}
