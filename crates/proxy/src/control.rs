//! The data plane's side of the control socket (`hyperfleet_wire::control`).
//!
//! Whoever says hello last is the control plane; a connection that never says it disturbs nobody.
//! What can't be understood is refused and closed, and serving goes on with the table as it is.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyperfleet_wire::control::{Counters, FromProxy, ToProxy, PROTOCOL};
use hyperfleet_wire::{encode, length};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::log;
use crate::metering;
use crate::probe::{Ask, Probes};
use crate::record::Record;
use crate::routes::Routes;
use crate::socket::Socket;

/// How long a new connection may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Most bytes that wait for a control plane that does not read.
const OUTPUT_LIMIT: usize = 4 << 20;
/// Bytes read at least at once.
const READ: usize = 64 * 1024;
/// Most machines in one snapshot.
const MACHINES_LIMIT: usize = 1_000_000;

/// What a [`Link`] needs from the process.
pub struct Process {
    pub routes: Routes,
    /// The workers' questions.
    pub asks: mpsc::UnboundedReceiver<Ask>,
    /// [`FromProxy::Hello::arguments`](FromProxy).
    pub arguments: Vec<(String, String)>,
    pub counters: Box<dyn Fn() -> Counters>,
}

/// The link to the control plane, whichever is connected.
pub struct Link {
    process: Process,
    session: Option<Session>,
    /// Connections that have said hello.
    arrivals: (mpsc::Sender<Session>, mpsc::Receiver<Session>),
}

impl Link {
    pub fn new(process: Process) -> Link {
        Link {
            process,
            session: None,
            arrivals: mpsc::channel(4),
        }
    }

    /// Serves control planes until one asks to drain; returns within which time. Safe to cancel.
    pub async fn run(&mut self, socket: &Socket) -> Duration {
        loop {
            tokio::select! {
                accepted = socket.listener.accept() => match accepted {
                    Ok((stream, _)) => greet(self.hello(stream), self.arrivals.0.clone()),
                    // Out of descriptors: the connection waits in the kernel meanwhile.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(session) = self.arrivals.1.recv() => {
                    self.session = Some(session);
                    // Messages may have come with the hello.
                    if let Some(limit) = self.take() {
                        return limit;
                    }
                }
                Some(ask) = self.process.asks.recv() => {
                    if let Some(session) = &mut self.session {
                        if let Some(message) = session.probes.ask(ask, Instant::now()) {
                            session.send(&message);
                        }
                        if session.is_clogged() {
                            log::line("the control plane does not read: its session is ended");
                            self.session = None;
                        }
                    }
                },
                event = next(&mut self.session) => match event {
                    Event::Bytes => {
                        if let Some(limit) = self.take() {
                            return limit;
                        }
                    }
                    Event::Applied(number) => {
                        if let Some(session) = &mut self.session {
                            session.send(&FromProxy::Applied { number });
                        }
                    }
                    Event::Gone => self.session = None,
                },
            }
        }
    }

    /// Ends the session; what is left is the workers' routes.
    pub fn into_routes(self) -> Routes {
        self.process.routes
    }

    /// The workers' routes.
    pub fn routes(&mut self) -> &mut Routes {
        &mut self.process.routes
    }

    /// A session that begins with our hello: neither side waits for the other's.
    fn hello(&self, stream: UnixStream) -> Session {
        let mut session = Session::new(stream);
        session.send(&FromProxy::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            arguments: self.process.arguments.clone(),
        });
        session
    }

    /// Handles all whole messages that have come; a drain's limit ends it.
    fn take(&mut self) -> Option<Duration> {
        let mut drain = None;
        if let Some(session) = &mut self.session {
            let ended = loop {
                match session.message() {
                    Ok(None) => break None,
                    Ok(Some(ToProxy::Drain { timeout_ms })) => {
                        drain = Some(Duration::from_millis(timeout_ms.into()));
                        break None;
                    }
                    Ok(Some(message)) => {
                        if let Err(why) = session.handle(message, &mut self.process) {
                            break Some(why);
                        }
                    }
                    Err(why) => break Some(why),
                }
            };
            if let Some(why) = ended {
                session.refuse(why);
                self.session = None;
            }
        }
        drain
    }
}

enum Event {
    /// Bytes have come.
    Bytes,
    /// The workers decide by this number.
    Applied(u64),
    Gone,
}

/// The session's next event; waits for ever without one. Safe to cancel.
async fn next(session: &mut Option<Session>) -> Event {
    let Some(session) = session else {
        return pending().await;
    };
    let Session {
        stream,
        input,
        output,
        unapplied,
        ..
    } = session;
    loop {
        let applied = async {
            match unapplied.front_mut() {
                // A closed channel is the good news: every worker has dropped its end.
                Some((number, workers)) => {
                    let _ = workers.await;
                    *number
                }
                None => pending().await,
            }
        };
        tokio::select! {
            number = applied => {
                unapplied.pop_front();
                return Event::Applied(number);
            }
            moved = transfer(stream, input, output) => match moved {
                Ok(0) => {}
                Ok(_) => return Event::Bytes,
                Err(_) => return Event::Gone,
            },
        }
    }
}

/// Waits for the stream, then reads and writes what is possible; the bytes read. Safe to cancel.
async fn transfer(
    stream: &UnixStream,
    input: &mut Vec<u8>,
    output: &mut Vec<u8>,
) -> io::Result<usize> {
    let interest = if output.is_empty() {
        Interest::READABLE
    } else {
        Interest::READABLE | Interest::WRITABLE
    };
    let ready = stream.ready(interest).await?;
    if ready.is_writable() && !output.is_empty() {
        match stream.try_write(output) {
            Ok(count) => drop(output.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if ready.is_readable() {
        input.reserve(READ);
        return match stream.try_read_buf(input) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        };
    }
    Ok(0)
}

/// Reads a new connection's hello, aside from the link, and hands it over as a session.
fn greet(mut session: Session, greeted: mpsc::Sender<Session>) {
    tokio::spawn(async move {
        let hello = async {
            loop {
                match session.message()? {
                    Some(ToProxy::Hello { protocol: PROTOCOL }) => return Ok(()),
                    Some(ToProxy::Hello { protocol }) => {
                        return Err(format!(
                            "protocol {protocol} is not spoken here, {PROTOCOL} is"
                        ));
                    }
                    Some(_) => return Err("the first message must be hello".to_owned()),
                    None => {}
                }
                transfer(&session.stream, &mut session.input, &mut session.output)
                    .await
                    .map_err(|error| error.to_string())?;
            }
        };
        match tokio::time::timeout(HELLO_LIMIT, hello).await {
            Ok(Ok(())) => drop(greeted.send(session).await),
            Ok(Err(why)) => session.refuse(why),
            Err(_) => session.refuse(format!("no hello within {HELLO_LIMIT:?}")),
        }
    });
}

/// One control plane's connection.
struct Session {
    stream: UnixStream,
    input: Vec<u8>,
    /// Bytes of `input` that were handled.
    taken: usize,
    output: Vec<u8>,
    /// The number of the table; none before the first snapshot.
    have: Option<u64>,
    /// A resync was asked for: changes are ignored until the snapshot comes.
    resync: bool,
    /// The parts so far of a snapshot, with its number.
    snapshot: Option<(u64, Vec<Arc<Record>>)>,
    unapplied: VecDeque<(u64, oneshot::Receiver<()>)>,
    probes: Probes,
}

impl Session {
    fn new(stream: UnixStream) -> Session {
        Session {
            stream,
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            have: None,
            resync: false,
            snapshot: None,
            unapplied: VecDeque::new(),
            probes: Probes::default(),
        }
    }

    /// The next whole message that has come.
    fn message(&mut self) -> Result<Option<ToProxy>, String> {
        let rest = &self.input[self.taken..];
        let Some((payload, taken)) = length::read(rest).map_err(|e| e.to_string())? else {
            // Once for all messages of a read, not once each.
            self.input.drain(..self.taken);
            self.taken = 0;
            if self.input.is_empty() {
                self.input.shrink_to(READ);
            }
            return Ok(None);
        };
        let message = ToProxy::decode(payload).map_err(|e| e.to_string())?;
        self.taken += taken;
        Ok(Some(message))
    }

    fn handle(&mut self, message: ToProxy, process: &mut Process) -> Result<(), String> {
        match message {
            ToProxy::Hello { .. } => return Err("hello was said already".to_owned()),
            ToProxy::SnapshotBegin { number } => self.snapshot = Some((number, Vec::new())),
            ToProxy::SnapshotPart { machines } => {
                let Some((_, known)) = &mut self.snapshot else {
                    return Err("a snapshot's part without its beginning".to_owned());
                };
                if known.len() + machines.len() > MACHINES_LIMIT {
                    return Err(format!("over {MACHINES_LIMIT} machines"));
                }
                // Checked as they come: what the whole message took is free before the next.
                for machine in &machines {
                    known.push(process.routes.record(machine)?);
                }
                std::thread::yield_now();
            }
            ToProxy::SnapshotEnd { number } => {
                let records = match self.snapshot.take() {
                    Some((begun, records)) if begun == number => records,
                    _ => {
                        return Err(format!(
                            "the end of snapshot {number} without its beginning"
                        ))
                    }
                };
                let applied = process.routes.replace(records)?;
                self.unapplied.push_back((number, applied));
                self.have = Some(number);
                self.resync = false;
            }
            ToProxy::Change {
                number,
                upsert,
                remove,
            } => {
                if self.snapshot.is_some() {
                    return Err(format!("change {number} within a snapshot"));
                }
                if self.resync {
                    return Ok(());
                }
                if self.have.and_then(|have| have.checked_add(1)) != Some(number) {
                    self.resync = true;
                    let have = self.have.unwrap_or(0);
                    self.send(&FromProxy::Resync { have });
                    return Ok(());
                }
                let upsert = upsert.iter().map(|machine| process.routes.record(machine));
                let upsert = upsert.collect::<Result<Vec<_>, _>>()?;
                let applied = process.routes.change(&upsert, &remove);
                self.unapplied.push_back((number, applied));
                self.have = Some(number);
            }
            ToProxy::ProbeResult { id, outcome } => self.probes.answer(id, &outcome),
            ToProxy::CountersRequest => {
                let mut counters = (process.counters)();
                counters.in_flight = metering::in_flight(&process.routes);
                self.send(&FromProxy::Counters { counters });
            }
            ToProxy::MetersRequest { machine, after } => {
                self.send(&metering::part(&process.routes, machine.as_deref(), after));
            }
            // The link's own business: it ends it.
            ToProxy::Drain { .. } => {}
        }
        if self.is_clogged() {
            return Err("its answers are not read".to_owned());
        }
        Ok(())
    }

    /// It does not read what it is told.
    fn is_clogged(&self) -> bool {
        self.output.len() > OUTPUT_LIMIT
    }

    fn send(&mut self, message: &FromProxy) {
        // All of our messages are small: a frame can't be over its bound.
        let _ = length::write(&encode(message), &mut self.output);
    }

    /// Says why as far as the socket takes it at once, and is then to be dropped.
    fn refuse(&mut self, why: String) {
        self.send(&FromProxy::Refused { message: why });
        let _ = self.stream.try_write(&self.output);
    }
}
