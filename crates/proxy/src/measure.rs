//! The measuring of one request, from its first byte to its response's last.

use std::rc::Rc;
use std::sync::Arc;

use crate::answer::Answer;
use crate::client::Client;
use crate::histogram::Sample;
use crate::meter::Meter;
use crate::moment::Moment;
use crate::worker::Worker;

/// A request that is measured. It is in flight until this is dropped.
pub struct Measure {
    meter: Arc<Meter>,
    began: Moment,
    /// The time, once somebody has asked for it in this turn.
    now: Option<Moment>,
    heard: bool,
    /// Of the last head that was passed on.
    status: u16,
    /// Bytes of the client's that are counted already.
    bytes_in: u64,
    bytes_out: u64,
}

impl Measure {
    /// `began` is the time of the request's first byte, `before` the bytes that the client has
    /// sent before it.
    pub fn begin(client: &Client, meter: Arc<Meter>, began: Moment, before: u64) -> Measure {
        meter.requests.add(1);
        meter.in_flight.add(1);
        Measure {
            meter,
            began,
            now: None,
            heard: false,
            status: 0,
            bytes_in: before,
            bytes_out: client.bytes_out,
        }
    }

    /// A turn begins, or time has passed in this one: the clock is read anew when it is needed.
    /// What a turn finds in its sockets has one time.
    pub fn turn(&mut self) {
        self.now = None;
    }

    /// A byte of the machine's has come.
    pub fn hear(&mut self, worker: &Worker) {
        if !std::mem::replace(&mut self.heard, true) {
            let sample = self.sample();
            self.meter.first_byte.count(sample);
            worker.counters.first_byte.count(sample);
        }
    }

    /// A response's head is passed on.
    pub fn head(&mut self, status: u16) {
        self.status = status;
    }

    /// Bytes have moved between the client and the machine.
    pub fn flow(&mut self, client: &Client) {
        let (bytes_in, bytes_out) = (client.taken(), client.bytes_out);
        let meter = &self.meter;
        meter.touch(client.worker.clock.now());
        meter.bytes_in.add(bytes_in.wrapping_sub(self.bytes_in));
        meter.bytes_out.add(bytes_out.wrapping_sub(self.bytes_out));
        (self.bytes_in, self.bytes_out) = (bytes_in, bytes_out);
    }

    /// The response was passed on whole.
    pub fn whole(&mut self, worker: &Worker) {
        let sample = self.sample();
        self.meter.duration.count(sample);
        worker.counters.duration.count(sample);
    }

    /// The proxy answers in place of the machine.
    pub fn answered(&mut self, answer: Answer) {
        // What the machine may have said before was not passed on.
        self.status = 0;
        self.meter.answered(answer);
    }

    /// It is over, whatever came of it.
    pub fn end(&mut self, client: &Client) {
        self.flow(client);
        if self.status != 0 {
            self.meter.responses.count(self.status);
        }
    }

    fn sample(&mut self) -> Sample {
        let now = *self.now.get_or_insert_with(Moment::now);
        Sample::new(now.us_since(self.began))
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        self.meter.in_flight.sub(1);
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
