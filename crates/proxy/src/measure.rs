//! The measuring of one request, from its first byte to its response's last.

use std::rc::Rc;
use std::sync::Arc;

use crate::access::Pending;
use crate::answer::Answer;
use crate::client::Client;
use crate::histogram::Sample;
use crate::meter::Meter;
use crate::moment::Moment;
use crate::server_timing::Timing;
use crate::worker::Worker;

/// A request that is measured. It is in flight until this is dropped.
pub struct Measure {
    meter: Arc<Meter>,
    pub began: Moment,
    /// When it was sent to the machine, if the client is to be told.
    sent: Option<Moment>,
    /// The time, once somebody has asked for it in this turn.
    now: Option<Moment>,
    heard: bool,
    /// Of the last head that was passed on.
    status: u16,
    /// Bytes of the client's that are counted already.
    bytes_in: u64,
    bytes_out: u64,
    /// Its line in the access log, if one is kept.
    line: Option<Box<Pending>>,
}

impl Measure {
    /// `began` is the time of the request's first byte, `before` the bytes that the client has
    /// sent before it, `line` is what the access log will say.
    pub fn begin(
        client: &Client,
        meter: Arc<Meter>,
        began: Moment,
        before: u64,
        line: Option<Box<Pending>>,
    ) -> Measure {
        meter.requests.add(1);
        meter.in_flight.add(1);
        Measure {
            meter,
            began,
            sent: None,
            now: None,
            heard: false,
            status: 0,
            bytes_in: before,
            bytes_out: client.bytes_out,
            line,
        }
    }

    /// A turn begins, or time has passed in this one: the clock is read anew when it is needed.
    /// What a turn finds in its sockets has one time.
    pub fn turn(&mut self) {
        self.now = None;
    }

    /// It is sent to the machine now.
    pub fn send(&mut self, worker: &Worker) {
        self.sent = worker.settings.server_timing.then(Moment::now);
    }

    /// What the client is told with a head of the machine's that has come.
    pub fn timing(&mut self) -> Option<Timing> {
        let sent = self.sent?;
        let now = *self.now.get_or_insert_with(Moment::now);
        Some(Timing {
            hyperfleet_us: sent.us_since(self.began),
            upstream_us: Some(now.us_since(sent)),
        })
    }

    /// A byte of the machine's has come.
    pub fn hear(&mut self, worker: &Worker) {
        if !std::mem::replace(&mut self.heard, true) {
            let us = self.us();
            let sample = Sample::new(us);
            self.meter.first_byte.count(sample);
            worker.counters.first_byte.count(sample);
            if let Some(line) = &mut self.line {
                line.entry.first_byte_us = Some(us);
            }
        }
    }

    /// A response's head is passed on.
    pub fn head(&mut self, status: u16) {
        self.status = status;
        if let Some(line) = &mut self.line {
            line.entry.status = Some(status);
        }
    }

    /// Bytes have moved between the client and the machine.
    pub fn flow(&mut self, client: &Client) {
        let (bytes_in, bytes_out) = (client.taken(), client.bytes_out);
        let meter = &self.meter;
        meter.touch(client.worker.clock.now());
        let more_in = bytes_in.wrapping_sub(self.bytes_in);
        let more_out = bytes_out.wrapping_sub(self.bytes_out);
        meter.bytes_in.add(more_in);
        meter.bytes_out.add(more_out);
        if let Some(line) = &mut self.line {
            line.entry.bytes_in += more_in;
            line.entry.bytes_out += more_out;
        }
        (self.bytes_in, self.bytes_out) = (bytes_in, bytes_out);
    }

    /// The response was passed on whole.
    pub fn whole(&mut self, worker: &Worker) {
        let us = self.us();
        let sample = Sample::new(us);
        self.meter.duration.count(sample);
        worker.counters.duration.count(sample);
        if let Some(line) = &mut self.line {
            line.entry.duration_us = Some(us);
        }
    }

    /// The proxy answers in place of the machine.
    pub fn answered(&mut self, answer: Answer) {
        // What the machine may have said before was not passed on.
        self.status = 0;
        self.meter.answered(answer);
        if let Some(line) = &mut self.line {
            line.entry.answered(answer);
        }
    }

    /// It is over, whatever came of it.
    pub fn end(&mut self, client: &Client) {
        self.flow(client);
        if self.status != 0 {
            self.meter.responses.count(self.status);
        }
    }

    /// It is a WebSocket from here on.
    pub fn becomes_websocket(&mut self) {
        if let Some(line) = &mut self.line {
            line.entry.websocket = true;
        }
    }

    /// Microseconds since it began.
    fn us(&mut self) -> u64 {
        let now = *self.now.get_or_insert_with(Moment::now);
        now.us_since(self.began)
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        self.meter.in_flight.sub(1);
        // Here, so that a request that a fault or the process' end cuts off has its line too.
        if let Some(line) = self.line.take() {
            line.write();
        }
    }
}

/// A tunnel's place in the counts.
pub struct Tunnelling(Rc<Worker>, Arc<Meter>);

impl Tunnelling {
    pub fn new(worker: &Rc<Worker>, measure: &Measure) -> Tunnelling {
        let (worker, meter) = (worker.clone(), measure.meter.clone());
        worker.counters.tunnels.add(1);
        meter.tunnels.add(1);
        Tunnelling(worker, meter)
    }
}

impl Drop for Tunnelling {
    fn drop(&mut self) {
        self.0.counters.tunnels.sub(1);
        self.1.tunnels.sub(1);
    }
}
