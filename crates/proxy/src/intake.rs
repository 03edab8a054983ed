//! From a client's bytes to what is to be done: one request's head, its route, its admission.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use crate::account::Account;
use crate::answer::{self, Answer, Shape};
use crate::body::Body;
use crate::bounds::Bound;
use crate::buffers::FIRST;
use crate::client::{Client, READ_AWAY};
use crate::forward::{self, Target};
use crate::http::request::{self, RequestHead};
use crate::http::{Asked, Framing, Progress, Reject};
use crate::limits::Limits;
use crate::measure::Measure;
use crate::meter::Meter;
use crate::moment::Moment;
use crate::record::{Port, Usage};
use crate::route::{self, Destination, Known, Resolved};
use crate::table::Entry;

/// Seconds after which a client may try again.
pub const RETRY_AFTER: u32 = 1;

/// How long a connection may take to its next request when the process is ending.
const LAST_CALL: Duration = Duration::from_secs(1);

/// What a client's bytes lead to.
pub enum Turn {
    /// Boxed: every connection has room for a turn, and most wait for one.
    Forward(Box<Request>),
    /// The proxy's own answer is on its way. Is the connection kept, `unread` has to be read.
    Answered { keep: bool, unread: Body },
    /// The table is not known yet; the request is still in the client's input.
    NoTable,
    /// The client has nothing more to ask.
    Gone,
}

/// A request that may go to a machine.
pub struct Request {
    pub admitted: Admitted,
    pub measure: Measure,
    pub destination: Destination,
    pub target: Port,
    pub asked: Asked,
    /// A browser's navigation: errors are pages.
    pub page: bool,
    /// The client may wait with its body for a 100.
    pub expects_continue: bool,
    /// May be sent a second time (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// Its client has said that it sends nothing more (RFC 9112 section 9.6), and it has no body, after
    /// which some send a line end all the same (section 2.2).
    pub last: bool,
    /// The head for the machine, then what was read of the body, framed.
    pub buffer: Vec<u8>,
    /// Bytes of `buffer` that are the head.
    pub head: usize,
    /// What is still to be read of the body.
    pub body: Body,
}

impl Request {
    /// Whether it may be sent a second time, when a kept connection has died.
    pub fn repeatable(&self) -> bool {
        self.idempotent && !self.body_begun()
    }

    /// Whether its client's next bytes may be the body or the next request: it waits for a 100,
    /// and a final answer lets it do either (RFC 9110 section 10.1.1).
    pub fn is_ambiguous(&self) -> bool {
        self.expects_continue && !self.body.ended() && !self.body_begun()
    }

    /// Bytes of its body were read with the head.
    pub fn body_begun(&self) -> bool {
        self.buffer.len() > self.head
    }
}

/// One of a machine's requests in flight.
pub struct Admitted(pub Entry);

impl Admitted {
    fn new(entry: Entry, most: u32) -> Option<Admitted> {
        Usage::take(&entry.record.usage.requests, most).then(|| Admitted(entry))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.record.usage.requests.fetch_sub(1, Relaxed);
    }
}

/// The reading of a client's requests.
#[derive(Default)]
pub struct Intake {
    /// The parser of a head of which a part has come.
    partial: Option<Box<RequestHead>>,
    /// Bytes of the client's input that the parser has seen.
    seen: usize,
    /// When the first of them came, if the head did not come whole with it.
    began: Option<Moment>,
    /// They are more than the empty line that may precede a request.
    begun: bool,
    /// The connection has served a request before.
    pub again: bool,
    /// The process is ending, and the connection was given its last moment.
    hurried: bool,
    /// The table was waited for and did not come.
    pub no_table: bool,
}

impl Intake {
    /// The client's next turn. The timer is set when the wait begins ([`Intake::begin`]).
    pub fn poll(&mut self, client: &mut Client, cx: &mut Context<'_>) -> Poll<Turn> {
        let worker = client.worker.clone();
        loop {
            if client.input.len() > self.seen {
                let input = std::mem::take(&mut client.input);
                let parsed = self.parse(client, cx, &input);
                client.input = input;
                match parsed {
                    Some((turn, used)) => {
                        client.consume(used);
                        return Poll::Ready(turn);
                    }
                    None => self.wait_for_head(client),
                }
            }
            if client.timer.expired() {
                if !self.begun {
                    return Poll::Ready(Turn::Gone);
                }
                let (answer, asked) = (Answer::RequestTimeout, &Asked::NOTHING);
                let account = Account::begin(client, self.began).with_bytes(client.input.len());
                let turn = respond(client, cx, answer, asked, Shape::Json, true, account);
                return Poll::Ready(turn);
            }
            // What was on its way when the drain began is still answered, with `Connection: close`.
            if worker.hurries() && !self.begun && !std::mem::replace(&mut self.hurried, true) {
                client.timer.set(LAST_CALL);
            }
            let mut buffer = worker.buffers.read.borrow_mut();
            let count = match ready!(client.poll_read(cx, &mut buffer[..FIRST])) {
                Ok(count) if count > 0 => count,
                _ => return Poll::Ready(Turn::Gone),
            };
            let bytes = &buffer[..count];
            if !client.input.is_empty() {
                client.input.extend_from_slice(bytes);
                continue;
            }
            // The usual case: a whole head in one read, never copied.
            match self.parse(client, cx, bytes) {
                Some((turn, used)) => {
                    client.input.extend_from_slice(&bytes[used..]);
                    return Poll::Ready(turn);
                }
                None => {
                    client.input.extend_from_slice(bytes);
                    self.wait_for_head(client);
                }
            }
        }
    }

    /// The next request is waited for.
    pub fn begin(&mut self, client: &Client) {
        self.partial = None;
        self.seen = 0;
        self.begun = false;
        self.began = None;
        let times = &client.worker.settings.times;
        client
            .timer
            .set(if self.again { times.idle } else { times.head });
    }

    fn wait_for_head(&mut self, client: &Client) {
        // Some clients end a body with a CRLF that is not its own (RFC 9112 section 2.2): a
        // connection that is idle after it is as idle as any.
        if !self.begun && !matches!(client.input.as_slice(), b"\r" | b"\r\n") {
            self.begun = true;
            self.began = Some(Moment::now());
            client.timer.set(client.worker.settings.times.head);
        }
        self.seen = client.input.len();
    }

    /// The turn that `bytes` make and how many of them it took; `None` while the head is partial.
    fn parse(
        &mut self,
        client: &mut Client,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Option<(Turn, usize)> {
        let worker = client.worker.clone();
        let limits = &worker.settings.limits;
        let mut shared = worker.buffers.request.borrow_mut();
        let mut partial = self.partial.take();
        let head = partial.as_deref_mut().unwrap_or(&mut shared);
        match request::parse(bytes, limits, head) {
            Ok(Progress::Partial) => {
                self.partial = partial.or_else(|| Some(Box::new(std::mem::take(&mut shared))));
                None
            }
            Ok(Progress::Whole(length)) => Some(self.decide(client, cx, head, bytes, length)),
            Err(reject) => {
                worker.counters.requests.add(1);
                let account = Account::begin(client, self.began);
                Some(reject_all(client, cx, reject, head, bytes, account))
            }
        }
    }

    fn decide(
        &self,
        client: &mut Client,
        cx: &mut Context<'_>,
        head: &RequestHead,
        bytes: &[u8],
        length: usize,
    ) -> (Turn, usize) {
        let worker = client.worker.clone();
        let settings = &worker.settings;
        let resolved = settings.site.resolve(head, bytes);
        if matches!(resolved, Resolved::To(_)) && !worker.knows() && !self.no_table {
            return (Turn::NoTable, 0);
        }
        worker.counters.requests.add(1);
        let mut account = Account::begin(client, self.began).with_bytes(length);
        account.understand(head, bytes, &resolved);
        let destination = match resolved {
            Resolved::To(destination) => destination,
            Resolved::Redirect { rest } => {
                let close = worker.draining() || !readable_away(head);
                let mut out = worker.buffers.out();
                let keep =
                    answer::write_redirect(head, bytes, rest, close, account.timing(), &mut out);
                worker.counters.responses.count(308);
                let before = client.bytes_out;
                let keep = client.send(cx, &out).is_ok() && keep;
                account.write(client.bytes_out - before, |entry| entry.status = Some(308));
                return (answered(head, &settings.limits, keep), length);
            }
            Resolved::NotFound => {
                let turn = deny(client, cx, Answer::NotFound, head, bytes, None, account);
                return (turn, length);
            }
        };
        let admitted = if worker.knows() {
            admit(client, &destination)
        } else {
            Err(Answer::NoRoutes {
                retry_after: RETRY_AFTER,
            })
        };
        let (admitted, target, meter) = match admitted {
            Ok(admitted) => admitted,
            Err(answer) => {
                account.identify(&worker, &destination);
                let turn = deny(client, cx, answer, head, bytes, Some(&destination), account);
                return (turn, length);
            }
        };
        account.is_of(&admitted.0.record.id);
        let mut buffer = worker.buffers.lend();
        let to = Target {
            destination: &destination,
            machine_id: &admitted.0.record.id,
            host: admitted.0.record.host(target.port),
            strip_prefix: target.strip_prefix,
        };
        forward::write(head, bytes, &client.peer, &to, &mut buffer);
        let head_length = buffer.len();
        let mut body = Body::request(head.framing, &settings.limits);
        match body.pass(&bytes[length..], &settings.limits, &mut buffer) {
            Ok(taken) => {
                let before = client.bytes_in - bytes.len() as u64;
                let began = account.began.or(self.began).unwrap_or_else(Moment::now);
                let line = account.into_line();
                let request = Request {
                    admitted,
                    measure: Measure::begin(client, meter, began, before, line),
                    destination,
                    target,
                    asked: head.asked(),
                    page: answer::wants_page(head, bytes),
                    expects_continue: head.expects_continue,
                    idempotent: head.method.is_idempotent(),
                    last: !head.keep_alive && head.framing == Framing::None,
                    buffer,
                    head: head_length,
                    body,
                };
                (Turn::Forward(Box::new(request)), length + taken)
            }
            Err(reject) => {
                worker.buffers.give_back(buffer);
                reject_all(client, cx, reject, head, bytes, account)
            }
        }
    }
}

/// The answer to a request that breaks a rule; all of `bytes` is taken with it, and nothing follows.
fn reject_all(
    client: &mut Client,
    cx: &mut Context<'_>,
    reject: Reject,
    head: &RequestHead,
    bytes: &[u8],
    account: Account,
) -> (Turn, usize) {
    let account = account.with_bytes(bytes.len());
    let (answer, asked) = (reject.into(), head.asked());
    let turn = respond(client, cx, answer, &asked, Shape::Json, true, account);
    (turn, bytes.len())
}

/// The machine's entry, port and meter, if the request may go there now; if not, the meter of an
/// exposed port has counted why.
fn admit(
    client: &Client,
    destination: &Destination,
) -> Result<(Admitted, Port, Arc<Meter>), Answer> {
    let worker = &client.worker;
    let table = worker.table.borrow();
    let row = table.find(destination.machine.as_bytes());
    let port = row.and_then(|row| row.record.port(destination.port));
    let known = row.map(|row| Known {
        running: row.record.running,
        port: port.map(|port| (row, port)),
    });
    let now = worker.clock.now();
    let meter = |entry: &Entry| {
        let ledger = &entry.record.usage.ledger;
        entry.life.meters.of(destination.port, ledger, now)
    };
    match route::check(known, destination.port) {
        Ok((row, port)) => {
            let entry = table.enter(row);
            let meter = meter(&entry);
            let most = worker.settings.max_machine_requests;
            if let Some(admitted) = Admitted::new(entry, most) {
                return Ok((admitted, port, meter));
            }
            worker.counters.met(Bound::MachineRequests);
            let answer = Answer::OverCapacity {
                retry_after: RETRY_AFTER,
            };
            meter.refused(answer, now);
            Err(answer)
        }
        Err(answer) => {
            if let (Some(row), Some(_)) = (row, port) {
                meter(&table.enter(row)).refused(answer, now);
            }
            Err(answer)
        }
    }
}

/// The proxy's own answer to a request that was understood.
fn deny(
    client: &mut Client,
    cx: &mut Context<'_>,
    answer: Answer,
    head: &RequestHead,
    bytes: &[u8],
    destination: Option<&Destination>,
    account: Account,
) -> Turn {
    let shape = if answer::wants_page(head, bytes) {
        Shape::Page(destination)
    } else {
        Shape::Json
    };
    let asked = head.asked();
    let close = !readable_away(head);
    match respond(client, cx, answer, &asked, shape, close, account) {
        Turn::Answered { keep, .. } => answered(head, &client.worker.settings.limits, keep),
        turn => turn,
    }
}

/// Whether the body of a request that is not forwarded can be read away: a longer one, or one
/// that may never come (RFC 9110 section 10.1.1), ends the connection.
fn readable_away(head: &RequestHead) -> bool {
    match head.framing {
        Framing::None | Framing::Length(0) => true,
        _ if head.expects_continue => false,
        Framing::Length(length) => length <= READ_AWAY,
        Framing::Chunked | Framing::UntilClose => true,
    }
}

fn answered(head: &RequestHead, limits: &Limits, keep: bool) -> Turn {
    Turn::Answered {
        keep,
        unread: Body::request(head.framing, limits),
    }
}

/// Sends an answer of the proxy's own; `close` ends the connection after it.
pub fn respond(
    client: &mut Client,
    cx: &mut Context<'_>,
    answer: Answer,
    asked: &Asked,
    shape: Shape<'_>,
    close: bool,
    account: Account,
) -> Turn {
    let worker = client.worker.clone();
    let mut out = worker.buffers.out();
    let close = close || worker.draining();
    let keep = answer::write(answer, shape, asked, close, account.timing(), &mut out);
    worker.counters.responses.count(answer.status());
    worker.counters.errors.count(answer.code());
    if let Some(bound) = Bound::of(answer) {
        worker.counters.met(bound);
    }
    let before = client.bytes_out;
    let keep = client.send(cx, &out).is_ok() && keep;
    account.write(client.bytes_out - before, |entry| entry.answered(answer));
    Turn::Answered {
        keep,
        unread: Body::request(Framing::None, &worker.settings.limits),
    }
}
