//! The clients: one thread, any number of connections, one request at a time on each.
//!
//! First every connection is opened and has one answer ([`Load::open`]); then the load runs
//! ([`Load::run`]). In between whoever started this can look at the proxy.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::content;
use crate::job::{Job, Message};
use crate::poller::{Happened, Poller};
use crate::reply::{Fault, Reply};
use crate::schedule::{Pace, Schedule};
use crate::summary::Tally;

/// Connections that are being opened at the same time: less than any server's backlog.
const OPENING: usize = 128;
/// After so many faults the load gives up.
const MOST_FAULTS: u64 = 100;
/// Bytes read at once.
const READ: usize = 256 * 1024;
/// No answer for so long: the load gives up.
const STALL: Duration = Duration::from_secs(10);

pub struct Load {
    target: SocketAddr,
    job: Job,
    poller: Poller,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    tally: Tally,
}

#[derive(Default)]
struct Client {
    stream: Option<TcpStream>,
    /// The job's opening was answered, if it has one.
    opened: bool,
    /// When the answer that it waits for was due to be asked for.
    asked: Option<Instant>,
    /// Bytes of the message that were sent.
    sent: u64,
    reply: Reply,
    /// The answer has come, and the server is to close.
    closing: bool,
}

/// Where a client stands after it was driven.
enum State {
    Waits,
    Answered,
}

impl Load {
    /// # Errors
    /// The system's.
    pub fn new(target: SocketAddr, job: Job, connections: usize) -> io::Result<Load> {
        Ok(Load {
            target,
            job,
            poller: Poller::new()?,
            clients: std::iter::repeat_with(Client::default)
                .take(connections)
                .collect(),
            buffer: vec![0; READ],
            tally: Tally::new().map_err(io::Error::other)?,
        })
    }

    /// Opens every connection and gets one answer on each; none when each answer has its own.
    ///
    /// # Errors
    /// The system's, and answers that are wrong or do not come.
    pub fn open(&mut self) -> io::Result<()> {
        if self.job.connect {
            return Ok(());
        }
        let (mut begun, mut answered) = (0, 0);
        let mut happened = Vec::new();
        while answered < self.clients.len() {
            while begun < self.clients.len() && begun - answered < OPENING {
                self.ask(begun, Instant::now())?;
                begun += 1;
            }
            self.wait(&mut happened, STALL)?;
            for event in happened.drain(..) {
                match self.drive(event) {
                    Ok(State::Waits) => {}
                    Ok(State::Answered) => answered += 1,
                    Err(fault) => {
                        return Err(io::Error::other(format!("opening connections: {fault:?}")))
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs the load for `length`; what is under way then is finished and counted.
    ///
    /// # Errors
    /// The system's, too many faults, or no answer for a long time.
    pub fn run(&mut self, length: Duration, pace: Pace) -> io::Result<Duration> {
        let began = Instant::now();
        let mut schedule = Schedule::new(began, length, pace);
        let mut free: Vec<usize> = (0..self.clients.len()).rev().collect();
        let mut happened = Vec::new();
        let mut last = began;
        loop {
            let now = Instant::now();
            while let Some(client) = free.pop() {
                let Some(due) = schedule.next(now) else {
                    free.push(client);
                    break;
                };
                self.ask(client, due)?;
            }
            if free.len() == self.clients.len() && schedule.over(now) {
                return Ok(last - began);
            }
            let patience = match schedule.wait(now) {
                Some(until_due) if !free.is_empty() => until_due,
                _ => STALL,
            };
            self.wait(&mut happened, patience)?;
            if happened.is_empty() && last.elapsed() > STALL.max(length) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            for event in happened.drain(..) {
                let Some(due) = self.clients[event.key].asked else {
                    self.look(event);
                    continue;
                };
                match self.drive(event) {
                    Ok(State::Waits) => continue,
                    Ok(State::Answered) => {
                        last = Instant::now();
                        self.tally.right(last - due, self.job.bytes);
                    }
                    Err(fault) => {
                        self.tally.wrong(fault);
                        self.clients[event.key] = Client::default();
                    }
                }
                free.push(event.key);
            }
            if self.tally.faults() > MOST_FAULTS {
                return Ok(began.elapsed());
            }
        }
    }

    /// Notes which of the idle connections have ended meanwhile.
    ///
    /// # Errors
    /// The system's.
    pub fn look_at_idle(&mut self) -> io::Result<()> {
        let mut happened = Vec::new();
        loop {
            self.wait(&mut happened, Duration::ZERO)?;
            if happened.is_empty() {
                return Ok(());
            }
            for event in happened.drain(..) {
                self.look(event);
            }
        }
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn wait(&mut self, happened: &mut Vec<Happened>, patience: Duration) -> io::Result<()> {
        self.poller.wake_after(patience)?;
        self.poller.wait(happened)
    }

    /// A client that waits for nothing has heard something.
    fn look(&mut self, event: Happened) {
        if event.ended && self.clients[event.key].stream.is_some() {
            self.tally.wrong(Fault::Closed);
            self.clients[event.key] = Client::default();
        }
    }

    /// Begins a client's next message, on a new connection if it has none.
    fn ask(&mut self, key: usize, due: Instant) -> io::Result<()> {
        let client = &mut self.clients[key];
        client.asked = Some(due);
        client.sent = 0;
        client.reply = Reply::default();
        if let Some(stream) = &client.stream {
            let message = message(&self.job, client.opened);
            // An error shows at the read that follows.
            let _ = send(stream, message, &mut client.sent);
            return Ok(());
        }
        client.opened = self.job.opening.is_none();
        client.closing = false;
        let socket = Socket::new(
            Domain::for_address(self.target),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.target.into()) {
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            result => result?,
        }
        let stream = TcpStream::from(socket);
        self.poller.add(&stream, key)?;
        client.stream = Some(stream);
        Ok(())
    }

    /// Sends and reads what can be.
    fn drive(&mut self, event: Happened) -> Result<State, Fault> {
        let client = &mut self.clients[event.key];
        let (Some(stream), Some(_)) = (&client.stream, client.asked) else {
            return Ok(State::Waits);
        };
        loop {
            let message = message(&self.job, client.opened);
            let sent = send(stream, message, &mut client.sent);
            if sent.is_err() && client.sent == 0 {
                return Err(Fault::Connect);
            }
            let count = match (&*stream).read(&mut self.buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(State::Waits);
                }
                Err(_) => return Err(Fault::Closed),
            };
            if client.closing {
                if count > 0 {
                    return Err(Fault::Excess);
                }
                *client = Client::default();
                return Ok(State::Answered);
            }
            if count == 0 {
                return Err(Fault::Closed);
            }
            let whole = client
                .reply
                .take(&self.buffer[..count], &message.expected)?;
            if whole && !client.opened {
                client.opened = true;
                client.sent = 0;
                client.reply = Reply::default();
            } else if whole && self.job.connect {
                client.closing = true;
            } else if whole {
                client.asked = None;
                return Ok(State::Answered);
            } else if count < self.buffer.len() && !event.ended {
                // The next edge tells when there is more (epoll(7)).
                return Ok(State::Waits);
            }
        }
    }
}

fn message(job: &Job, opened: bool) -> &Message {
    match &job.opening {
        Some(opening) if !opened => opening,
        _ => &job.message,
    }
}

/// Sends what the socket takes of the rest of `message`, of which `sent` bytes are gone.
fn send(mut stream: &TcpStream, message: &Message, sent: &mut u64) -> io::Result<()> {
    let head = message.head.len() as u64;
    while *sent < head + message.body {
        let rest = message.head.get(*sent as usize..).unwrap_or_default();
        let body = content::from(sent.saturating_sub(head), message.body);
        match stream.write_vectored(&[IoSlice::new(rest), IoSlice::new(body)]) {
            Ok(count) => *sent += count as u64,
            Err(error) if would_wait(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Full, or not connected yet.
fn would_wait(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}
