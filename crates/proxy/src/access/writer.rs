//! The thread that writes the access log.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::entry::Calendar;
use super::waiting::{Bell, Gathered};
use super::{Access, Sink};
use crate::bounds::Bound;
use crate::counters::Counters;
use crate::log::{self, Sparing};
use crate::turns::Turns;

/// How long the last lines may take when the process ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What the thread is to do besides.
#[derive(Default)]
struct Orders {
    reopen: AtomicBool,
    end: AtomicBool,
}

/// The log while it is written.
pub struct AccessLog {
    bell: Bell,
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
        let gathered = Gathered::default();
        let (held, done) = sync_channel(1);
        let orders = Arc::<Orders>::default();
        let counters = Arc::<Counters>::default();
        let mut writer = Writer {
            sink,
            torn: false,
            complaint: Sparing::default(),
            orders: orders.clone(),
            counters: counters.clone(),
        };
        let lines = gathered.clone();
        let thread = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                let _held: SyncSender<()> = held;
                turns.behind();
                writer.run(&lines);
            })?;
        Ok(AccessLog {
            bell: gathered.bell(thread.thread().clone()),
            orders,
            done,
            counters,
        })
    }

    /// A worker's way in; `counters` are its own, one of `sample` lines is written.
    pub fn access(&self, counters: Arc<Counters>, sample: u32) -> Access {
        Access {
            waiting: self.bell.waiting(),
            counters,
            calendar: RefCell::<Calendar>::default(),
            sample,
            passed: Cell::new(0),
        }
    }

    /// The file was moved away: the next lines go to a new one of its name.
    pub fn reopen(&self) {
        self.order(&self.orders.reopen);
    }

    /// Waits until the lines that wait are written, but not for a file that takes nothing.
    pub fn close(self) {
        self.order(&self.orders.end);
        // It never sends; the error says whether it has ended.
        let _ = self.done.recv_timeout(LAST_LINES);
    }

    fn order(&self, order: &AtomicBool) {
        order.store(true, SeqCst);
        self.bell.hurry();
    }
}

struct Writer {
    sink: Sink,
    /// The file's last line was cut off.
    torn: bool,
    complaint: Sparing,
    orders: Arc<Orders>,
    counters: Arc<Counters>,
}

impl Writer {
    fn run(&mut self, lines: &Gathered) {
        let mut spare = Vec::new();
        loop {
            lines.wait();
            // Before the lines are taken: those of before the order are in the old file.
            let reopen = self.orders.reopen.swap(false, SeqCst);
            let end = self.orders.end.load(SeqCst);
            lines.take(&mut spare, |lines| {
                self.write(lines);
                lines.clear();
            });
            if reopen {
                self.reopen();
            }
            if end {
                return;
            }
        }
    }

    fn write(&mut self, lines: &[u8]) {
        if self.torn {
            self.torn = self.sink.write(b"\n").0 == 0;
        }
        let (written, failed) = self.sink.write(lines);
        if let Some(&last) = lines[..written].last() {
            self.torn = last != b'\n';
        }
        if let Some(error) = failed {
            for _ in 0..lost(lines, written) {
                self.counters.met(Bound::AccessLog);
            }
            self.complaint.line(format_args!(
                "access log: {error}; lines are lost until that is mended"
            ));
        }
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

/// Lines that are not in the file whole when so many bytes of them are.
fn lost(lines: &[u8], written: usize) -> usize {
    memchr::memchr_iter(b'\n', &lines[written..]).count()
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
        ] {
            assert_eq!(
                lost(batch.as_bytes(), written),
                lines,
                "{batch:?} {written}"
            );
        }
    }
}
