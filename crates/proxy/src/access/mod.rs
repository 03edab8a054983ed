//! The access log: one line of JSON for each request, written by a thread of its own.
//!
//! A worker gives what it knows of a request to a bounded queue and never waits: what does not fit
//! is dropped and counted ([`Bound::AccessLog`]). Nothing of a request but its method and its path
//! is written; its query and its fields are where secrets are.

mod entry;
mod sink;
mod writer;

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::bounds::Bound;
use crate::counters::Counters;
use crate::moment::Moment;

pub use entry::{Entry, Mode};
pub use sink::Sink;
pub use writer::AccessLog;

/// One worker's way into the log.
pub struct Access {
    queue: SyncSender<writer::Note>,
    /// The worker's.
    counters: Arc<Counters>,
    /// One of so many is written.
    sample: u32,
    /// Of these, those that were passed over since the last.
    passed: Cell<u32>,
}

impl Access {
    /// Errors of our own are always written, of the others one of `sample`.
    fn write(&self, entry: Box<Entry>) {
        if entry.error.is_none() {
            let passed = self.passed.get();
            self.passed.set((passed + 1) % self.sample);
            if passed > 0 {
                return;
            }
        }
        if self.queue.try_send(writer::Note::Line(entry)).is_err() {
            self.counters.met(Bound::AccessLog);
        }
    }
}

/// The line of a request that is not over.
pub struct Pending {
    access: Rc<Access>,
    began: Moment,
    pub entry: Box<Entry>,
}

impl Pending {
    /// Of a request of `client` whose first byte came at `began`.
    pub fn begin(access: &Rc<Access>, client: IpAddr, began: Moment) -> Box<Pending> {
        let age = Duration::from_micros(Moment::now().us_since(began));
        Box::new(Pending {
            access: access.clone(),
            began,
            entry: Box::new(Entry::new(client, SystemTime::now() - age)),
        })
    }

    /// The request is over.
    pub fn write(mut self) {
        let us = || Moment::now().us_since(self.began);
        self.entry.duration_us = Some(self.entry.duration_us.unwrap_or_else(us));
        self.access.write(self.entry);
    }
}
