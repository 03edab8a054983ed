//! The access log: one line of JSON for each request, written by a thread of its own.
//!
//! A worker appends the line to a buffer of its own, which the thread takes away now and then: at
//! most every [`GATHER`](waiting::GATHER), and no more than a wake-up for all lines of that time. The
//! worker never waits for a file: what does not fit into the buffer is dropped and counted
//! ([`Bound::AccessLog`]). Nothing of a request but its method and its path is written; its query and
//! its fields are where secrets are.

mod entry;
mod json;
mod sink;
mod waiting;
mod writer;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
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
    waiting: waiting::Waiting,
    /// The worker's.
    counters: Arc<Counters>,
    calendar: RefCell<entry::Calendar>,
    /// One of so many is written.
    sample: u32,
    /// Of these, those that were passed over since the last.
    passed: Cell<u32>,
}

impl Access {
    /// Errors of our own are always written, of the others one of `sample`.
    fn write(&self, entry: &mut Entry, began: Moment) {
        if entry.error.is_none() {
            let passed = self.passed.get();
            self.passed.set((passed + 1) % self.sample);
            if passed > 0 {
                return;
            }
        }
        let age = Moment::now().us_since(began);
        entry.duration_us.get_or_insert(age);
        let began = SystemTime::now() - Duration::from_micros(age);
        let calendar = &mut *self.calendar.borrow_mut();
        if !self
            .waiting
            .append(|lines| entry.write(began, calendar, lines))
        {
            self.counters.met(Bound::AccessLog);
        }
    }
}

/// The line of a request that is not over.
pub struct Pending {
    access: Rc<Access>,
    began: Moment,
    pub entry: Entry,
}

impl Pending {
    /// Of a request of `client` whose first byte came at `began`.
    pub fn begin(access: &Rc<Access>, client: IpAddr, began: Moment) -> Box<Pending> {
        Box::new(Pending {
            access: access.clone(),
            began,
            entry: Entry::new(client),
        })
    }

    /// The request is over.
    pub fn write(mut self) {
        self.access.write(&mut self.entry, self.began);
    }
}
