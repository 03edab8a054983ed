//! What becomes of the bytes of a machine.

use std::fmt::Write;

use hyperfleet_proxy::http::chunked::{self, Decoder, Step};
use hyperfleet_proxy::http::response::{self, ResponseHead};
use hyperfleet_proxy::http::{Asked, Framing, Progress, Version};
use hyperfleet_proxy::limits::Limits;
use hyperfleet_proxy::reply::{self, Body, Reply};

use crate::format::{self, Case};

/// Feeds the pieces, ends the connection, and tells the outcome.
pub fn outcome(case: &Case, pieces: &[&[u8]]) -> String {
    let mut machine = Machine::new(case);
    for piece in pieces {
        machine.buffer.extend_from_slice(piece);
        while machine.step() {}
    }
    machine.end()
}

/// One machine's connection, its client played by a Vec.
struct Machine {
    asked: Asked,
    drain: bool,
    limits: Limits,
    buffer: Vec<u8>,
    head: ResponseHead,
    state: State,
    body: Body,
    /// What the client gets; data that goes out in chunks is kept apart until it is whole.
    sent: Vec<u8>,
    data: Vec<u8>,
    outcome: String,
}

enum State {
    Head,
    Length(u64),
    Chunked(Decoder),
    UntilClose,
    Done,
    /// Whatever comes now is nobody's business.
    Over,
}

impl Machine {
    fn new(case: &Case) -> Self {
        let mut asked = Asked {
            keep_alive: true,
            ..Asked::NOTHING
        };
        let mut drain = false;
        for (key, value) in &case.settings {
            match (key.as_str(), value.as_str()) {
                ("method", "HEAD") => asked.head = true,
                ("version", "1.0") => {
                    asked.version = Version::Http10;
                    asked.keep_alive = false;
                }
                ("client", "close") => asked.keep_alive = false,
                ("client", "keep") => asked.keep_alive = true,
                ("upgrade", _) => asked.upgrade = true,
                ("drain", _) => drain = true,
                _ => panic!("{}: unknown setting {key} {value}", case.name),
            }
        }
        Self {
            asked,
            drain,
            limits: Limits::default(),
            buffer: Vec::new(),
            head: ResponseHead::new(),
            state: State::Head,
            body: Body::None,
            sent: Vec::new(),
            data: Vec::new(),
            outcome: String::new(),
        }
    }

    /// Does what the buffer allows; false when it needs more.
    fn step(&mut self) -> bool {
        match &mut self.state {
            State::Done | State::Over => false,
            State::Head if self.buffer.is_empty() => false,
            State::Head => {
                let parsed =
                    response::parse(&self.buffer, &self.limits, &self.asked, &mut self.head);
                match parsed {
                    Ok(Progress::Partial) => false,
                    Ok(Progress::Whole(length)) => {
                        self.reply();
                        self.buffer.drain(..length);
                        true
                    }
                    Err(invalid) => {
                        writeln!(self.outcome, "= invalid {}", invalid.0).unwrap();
                        self.state = State::Over;
                        false
                    }
                }
            }
            State::Length(0) => {
                self.finish(&[]);
                true
            }
            State::Length(left) => {
                let take = self.buffer.len().min(*left as usize);
                *left -= take as u64;
                self.data.extend(self.buffer.drain(..take));
                take > 0
            }
            State::UntilClose => {
                self.data.append(&mut self.buffer);
                false
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
                    self.finish(&trailers);
                    true
                }
                Err(why) => {
                    self.flush();
                    writeln!(self.outcome, "! broken: {why:?}").unwrap();
                    self.state = State::Over;
                    false
                }
            },
        }
    }

    fn reply(&mut self) {
        let reply = reply::write(
            &self.head,
            &self.buffer,
            &self.asked,
            self.drain,
            None,
            &mut self.sent,
        );
        let text = match reply {
            Reply::Interim => "= interim".to_owned(),
            Reply::Tunnel { websocket: true } => "= tunnel websocket".to_owned(),
            Reply::Tunnel { websocket: false } => "= tunnel".to_owned(),
            Reply::Final { body, keep_alive } => {
                self.body = body;
                let body = match body {
                    Body::None => "none".to_owned(),
                    Body::Length(length) => format!("length {length}"),
                    Body::Chunked => "chunked".to_owned(),
                    Body::UntilClose => "until-close".to_owned(),
                };
                let client = if keep_alive { "keep" } else { "close" };
                let machine = if self.head.keep_alive {
                    "reuse"
                } else {
                    "once"
                };
                format!("= final {body} {client} {machine}")
            }
        };
        check_reply(&self.sent, reply, &self.asked);
        self.outcome.push_str(&text);
        self.outcome.push('\n');
        self.state = match (reply, self.head.framing) {
            (Reply::Interim, _) => State::Head,
            (Reply::Tunnel { .. }, _) => State::Done,
            (_, Framing::None) => State::Length(0),
            (_, Framing::Length(length)) => State::Length(length),
            (_, Framing::Chunked) => State::Chunked(Decoder::response()),
            (_, Framing::UntilClose) => State::UntilClose,
        };
        if !matches!(reply, Reply::Final { .. }) {
            self.flush();
        }
    }

    /// Moves the data into what the client gets.
    fn send_data(&mut self) {
        let chunked = self.body == Body::Chunked && !self.data.is_empty();
        if chunked {
            chunked::write_size(self.data.len(), &mut self.sent);
        }
        self.sent.append(&mut self.data);
        if chunked {
            self.sent.extend_from_slice(chunked::CHUNK_END);
        }
    }

    /// Shows what the client got so far.
    fn flush(&mut self) {
        self.send_data();
        format::show(&self.sent, &mut self.outcome);
        self.sent.clear();
    }

    /// The body has ended.
    fn finish(&mut self, trailers: &[u8]) {
        self.send_data();
        if self.body == Body::Chunked {
            chunked::write_end(trailers, &mut self.sent);
        }
        self.flush();
        self.state = State::Done;
    }

    /// The machine closes.
    fn end(mut self) -> String {
        match self.state {
            State::Head => self.outcome.push_str("= partial\n"),
            State::UntilClose => self.finish(&[]),
            State::Length(_) | State::Chunked(_) => {
                self.flush();
                self.outcome.push_str("! cut short\n");
            }
            State::Done if !self.buffer.is_empty() => {
                let count = self.buffer.len();
                writeln!(self.outcome, "! {count} bytes left").unwrap();
            }
            _ => {}
        }
        self.outcome
    }
}

/// What is sent to a client is itself a response without doubt, framed as it is told.
fn check_reply(sent: &[u8], reply: Reply, asked: &Asked) {
    let text = String::from_utf8_lossy(sent);
    let mut head = ResponseHead::new();
    if reply == Reply::Interim && asked.version == Version::Http10 {
        assert!(sent.is_empty(), "{text}");
        return;
    }
    let limits = Limits {
        response_head: usize::MAX,
        response_fields: usize::MAX,
        ..Limits::default()
    };
    let parsed = response::parse(sent, &limits, asked, &mut head);
    assert_eq!(parsed, Ok(Progress::Whole(sent.len())), "{text}");
    assert!(!sent
        .windows(2)
        .any(|pair| pair[1] == b'\n' && pair[0] != b'\r'));
    if let Reply::Final { body, keep_alive } = reply {
        let framing = match body {
            Body::None => Framing::None,
            Body::Length(length) => Framing::Length(length),
            Body::Chunked => Framing::Chunked,
            Body::UntilClose => Framing::UntilClose,
        };
        assert_eq!(head.framing, framing, "{text}");
        assert!(!keep_alive || head.keep_alive, "{text}");
    }
}
