//! What becomes of the bytes of a client.

use std::fmt::Write;

use hyperfleet_proxy::answer::{self, Answer, Shape};
use hyperfleet_proxy::forward::{self, Peer, Target};
use hyperfleet_proxy::http::chunked::{self, Decoder, Step};
use hyperfleet_proxy::http::fields::Name;
use hyperfleet_proxy::http::request::{self, RequestHead};
use hyperfleet_proxy::http::{Asked, Framing, Progress, Version};
use hyperfleet_proxy::limits::Limits;
use hyperfleet_proxy::route::{self, Destination, Known, Resolved, Site};

use crate::format::{self, Case};

/// Feeds the pieces and tells the outcome.
pub fn outcome(case: &Case, pieces: &[&[u8]]) -> String {
    let mut client = Client::new(case);
    for piece in pieces {
        client.feed(piece);
    }
    client.end()
}

/// One client's connection, its machine played by a Vec.
struct Client {
    site: Site,
    peer: Peer,
    host: Option<String>,
    strip_prefix: bool,
    limits: Limits,
    buffer: Vec<u8>,
    head: RequestHead,
    state: State,
    /// What the machine gets of the current request; chunk data kept apart until it is whole.
    sent: Vec<u8>,
    data: Vec<u8>,
    /// The current request goes to a machine.
    forwarded: bool,
    keep: bool,
    outcome: String,
}

enum State {
    Head,
    Length(u64),
    Chunked(Decoder),
    Upgrade,
    Closed,
}

impl Client {
    fn new(case: &Case) -> Self {
        let (mut prefix, mut suffix) = ("/proxy", Some(".local.dev"));
        let (mut peer, mut host, mut limits) = ("203.0.113.9", None, Limits::default());
        let mut strip_prefix = true;
        for (key, value) in &case.settings {
            match key.as_str() {
                "prefix" => prefix = value,
                "suffix" => suffix = Some(value.as_str()).filter(|suffix| *suffix != "none"),
                "peer" => peer = value,
                "host" => host = Some(value.clone()),
                "strip" => strip_prefix = value.parse().unwrap(),
                "body" => limits.body = Some(value.parse().unwrap()),
                _ => panic!("{}: unknown setting {key}", case.name),
            }
        }
        let trusted = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
        let site = Site::new(prefix, suffix, trusted.to_vec()).unwrap();
        let address = peer.parse().unwrap();
        Self {
            peer: Peer {
                address,
                trusted: site.trusts(address),
            },
            site,
            host,
            strip_prefix,
            limits,
            buffer: Vec::new(),
            head: RequestHead::new(),
            state: State::Head,
            sent: Vec::new(),
            data: Vec::new(),
            forwarded: false,
            keep: true,
            outcome: String::new(),
        }
    }

    fn feed(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
        while self.step() {}
    }

    /// Does what the buffer allows; false when it needs more.
    fn step(&mut self) -> bool {
        match &mut self.state {
            State::Closed | State::Upgrade => false,
            State::Head if self.buffer.is_empty() => false,
            State::Head => match request::parse(&self.buffer, &self.limits, &mut self.head) {
                Ok(Progress::Partial) => false,
                Ok(Progress::Whole(length)) => {
                    self.decide();
                    self.buffer.drain(..length);
                    true
                }
                Err(reject) => {
                    self.answer('=', reject.into());
                    false
                }
            },
            State::Length(0) => {
                self.finish(None);
                true
            }
            State::Length(left) => {
                let take = self.buffer.len().min(*left as usize);
                *left -= take as u64;
                self.sent.extend(self.buffer.drain(..take));
                take > 0
            }
            State::Chunked(decoder) => match decoder.next(&self.buffer, &self.limits) {
                Ok(Step::More) => {
                    self.buffer.clear();
                    false
                }
                Ok(Step::Data(range)) => {
                    self.data.extend_from_slice(&self.buffer[range.clone()]);
                    self.buffer.drain(..range.end);
                    true
                }
                Ok(Step::End(taken)) => {
                    let trailers = decoder.trailers().to_vec();
                    self.buffer.drain(..taken);
                    self.finish(Some(&trailers));
                    true
                }
                Err(reject) => {
                    self.flush();
                    self.answer('!', reject.into());
                    false
                }
            },
        }
    }

    /// Routes the head and writes what comes of it.
    fn decide(&mut self) {
        let asked = self.head.asked();
        self.keep = asked.keep_alive;
        self.state = match self.head.framing {
            Framing::None => State::Length(0),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Decoder::request(&self.limits)),
            Framing::UntilClose => unreachable!("no request is delimited so"),
        };
        self.forwarded = false;
        match self.site.resolve(&self.head, &self.buffer) {
            Resolved::NotFound => self.answer('=', Answer::NotFound),
            Resolved::Redirect { rest } => self.redirect(rest),
            Resolved::To(destination) => match look_up(&destination) {
                Err(answer) => self.answer('=', answer),
                Ok(machine_id) => {
                    let target = Target {
                        destination: &destination,
                        machine_id,
                        host: self.host.as_deref(),
                        strip_prefix: self.strip_prefix,
                    };
                    forward::write(
                        &self.head,
                        &self.buffer,
                        &self.peer,
                        &target,
                        &mut self.sent,
                    );
                    check_forwarded(&self.sent, &self.head);
                    self.forwarded = true;
                    self.outcome.push_str("= forward\n");
                }
            },
        }
    }

    fn answer(&mut self, mark: char, answer: Answer) {
        let mut bytes = Vec::new();
        let asked = Asked {
            head: false,
            ..self.head.asked()
        };
        let keep = answer::write(answer, Shape::Json, &asked, false, None, &mut bytes);
        let bytes = String::from_utf8(bytes).unwrap();
        let text = bytes.split("{\"error\":\"").nth(1).unwrap();
        let text = text.strip_suffix("\"}").unwrap();
        let (status, code) = (answer.status(), answer.code());
        let keep_text = if keep { "keep" } else { "close" };
        writeln!(self.outcome, "{mark} {status} {code} {keep_text}: {text}").unwrap();
        if !keep {
            self.state = State::Closed;
        }
    }

    fn redirect(&mut self, rest: usize) {
        let mut bytes = Vec::new();
        self.keep = answer::write_redirect(&self.head, &self.buffer, rest, false, None, &mut bytes);
        let bytes = String::from_utf8(bytes).unwrap();
        let location = bytes.split("Location: ").nth(1).unwrap();
        let location = location.split("\r\n").next().unwrap();
        writeln!(self.outcome, "= 308 {location}").unwrap();
    }

    /// Moves the data of chunks into what the machine gets.
    fn send_data(&mut self) {
        if !self.data.is_empty() {
            chunked::write_size(self.data.len(), &mut self.sent);
            self.sent.append(&mut self.data);
            self.sent.extend_from_slice(chunked::CHUNK_END);
        }
    }

    /// Shows what the machine got of the current request so far.
    fn flush(&mut self) {
        self.send_data();
        if self.forwarded {
            format::show(&self.sent, &mut self.outcome);
        }
        self.sent.clear();
    }

    /// The request's body has ended, with trailers if it was chunked.
    fn finish(&mut self, trailers: Option<&[u8]>) {
        if let Some(trailers) = trailers {
            self.send_data();
            chunked::write_end(trailers, &mut self.sent);
        }
        self.flush();
        self.state = if self.forwarded && self.head.upgrade {
            State::Upgrade
        } else if self.keep {
            State::Head
        } else {
            State::Closed
        };
    }

    /// The client has sent all.
    fn end(mut self) -> String {
        match self.state {
            State::Head if !self.buffer.is_empty() => self.outcome.push_str("= partial\n"),
            State::Length(_) | State::Chunked(_) => {
                self.flush();
                self.outcome.push_str("! unfinished\n");
            }
            State::Upgrade if !self.buffer.is_empty() => {
                let count = self.buffer.len();
                writeln!(self.outcome, "! {count} bytes after the upgrade").unwrap();
            }
            _ => {}
        }
        self.outcome
    }
}

/// What is sent to a machine is itself a request of the strictest kind, framed as it came: nobody
/// behind the proxy can read another one in it.
fn check_forwarded(sent: &[u8], head: &RequestHead) {
    let limits = Limits {
        head: usize::MAX,
        fields: usize::MAX,
        ..Limits::default()
    };
    let mut again = RequestHead::new();
    let parsed = request::parse(sent, &limits, &mut again);
    let text = String::from_utf8_lossy(sent);
    assert_eq!(parsed, Ok(Progress::Whole(sent.len())), "{text}");
    assert_eq!(again.framing, head.framing, "{text}");
    assert_eq!(again.upgrade, head.upgrade, "{text}");
    assert_eq!(again.version, Version::Http11, "{text}");
    let count = |known| again.fields.iter().filter(|f| f.known == known).count();
    for known in [Name::Host, Name::XMachineId, Name::XForwardedFor] {
        assert_eq!(count(known), 1, "{known:?} in {text}");
    }
    assert_eq!(count(Name::Alias), 0, "{text}");
}

/// The table of the README: the machine's id if the request may go there.
fn look_up(destination: &Destination) -> Result<&'static str, Answer> {
    let (id, running, ports): (_, _, &[u16]) = match destination.machine.as_str() {
        "abc123def456" | "web" => ("abc123def456", true, &[80, 8080]),
        "stopped00000" | "my-box" => ("stopped00000", false, &[80]),
        _ => return route::check(None, destination.port),
    };
    let known = Known {
        running,
        port: ports.contains(&destination.port).then_some(id),
    };
    route::check(Some(known), destination.port)
}
