//! What a request leads to besides its answer, as far as it is known before a machine is found for it.

use crate::access::{self, Mode, Pending};
use crate::client::Client;
use crate::http::request::RequestHead;
use crate::measure::Measure;
use crate::moment::Moment;
use crate::route::{Destination, Place, Resolved};
use crate::server_timing::Timing;
use crate::worker::Worker;

/// What is told of a request elsewhere than to its client. Empty when nobody wants it.
#[derive(Default)]
pub struct Account {
    /// When its first byte came.
    pub began: Option<Moment>,
    /// The same, when the client is told how long the answer took.
    timed: Option<Moment>,
    /// Its line in the access log.
    line: Option<Box<Pending>>,
}

impl Account {
    /// Of a request of `client` that began then; `None`: now.
    pub fn begin(client: &Client, began: Option<Moment>) -> Account {
        let worker = &client.worker;
        let timed = worker.settings.server_timing;
        if worker.access.is_none() && !timed {
            return Account::default();
        }
        let began = began.unwrap_or_else(Moment::now);
        let begin = |access| Pending::begin(access, client.peer.address, began);
        Account {
            began: Some(began),
            timed: timed.then_some(began),
            line: worker.access.as_ref().map(begin),
        }
    }

    /// Of a request whose line is its measure's.
    pub fn of_measured(client: &Client, measure: &Measure) -> Account {
        let timed = client.worker.settings.server_timing;
        Account {
            timed: timed.then_some(measure.began),
            ..Account::default()
        }
    }

    /// What the client is told with an answer of the proxy's own.
    pub fn timing(&self) -> Option<Timing> {
        self.timed.map(|began| Timing {
            hyperfleet_us: Moment::now().us_since(began),
            upstream_us: None,
        })
    }

    /// So many bytes of it have come.
    pub fn with_bytes(mut self, count: usize) -> Account {
        if let Some(line) = &mut self.line {
            line.entry.bytes_in = count as u64;
        }
        self
    }

    /// Its head, and what that led to, are known.
    pub fn understand(&mut self, head: &RequestHead, bytes: &[u8], resolved: &Resolved) {
        let Some(line) = &mut self.line else { return };
        let entry = &mut line.entry;
        entry.asked(head, bytes);
        match resolved {
            Resolved::To(destination) => {
                entry.mode = Some(match destination.place {
                    Place::Path { .. } => Mode::Path,
                    Place::Host => Mode::Host,
                });
                let machine = String::from_utf8_lossy(destination.machine.as_bytes());
                entry.machine = Some(machine.into_owned());
                entry.port = Some(destination.port);
            }
            Resolved::Redirect { .. } => entry.mode = Some(Mode::Path),
            Resolved::NotFound => {}
        }
    }

    /// The machine is known by its id, whatever the request calls it.
    pub fn identify(&mut self, worker: &Worker, destination: &Destination) {
        let Some(line) = &mut self.line else { return };
        if let Some(row) = worker.table.borrow().find(destination.machine.as_bytes()) {
            line.entry.machine = Some(row.record.id.clone().into());
        }
    }

    /// The same, where the machine was found anyway.
    pub fn is_of(&mut self, id: &str) {
        if let Some(line) = &mut self.line {
            line.entry.machine = Some(id.to_owned());
        }
    }

    /// For the measure of a request that goes to a machine, which counts its bytes by itself.
    pub fn into_line(self) -> Option<Box<Pending>> {
        self.with_bytes(0).line
    }

    /// The request was answered by the proxy itself, with so many bytes.
    pub fn write(self, sent: u64, finish: impl FnOnce(&mut access::Entry)) {
        if let Some(mut line) = self.line {
            line.entry.bytes_out = sent;
            finish(&mut line.entry);
            line.write();
        }
    }
}
