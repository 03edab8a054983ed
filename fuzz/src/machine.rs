//! One machine's connection through the proxy's core: what its answer becomes for the client, and
//! whether a strict reader there reads in it what the machine said.

use hyperfleet_proxy::body::Body;
use hyperfleet_proxy::http::response::{self, ResponseHead};
use hyperfleet_proxy::http::{Asked, Framing, Progress, Version};
use hyperfleet_proxy::limits::Limits;
use hyperfleet_proxy::reply::{self, Reply};

use crate::chunks::{self, Bounds, Read};
use crate::reader::{self, Expect, Message};

/// What was asked and how the proxy stands; an input's first byte says it.
#[derive(Debug, Clone, Copy)]
pub struct Setting(pub u8);

impl Setting {
    /// What the answer answers.
    pub fn asked(self) -> Asked {
        let old = self.0 & 2 != 0;
        Asked {
            version: if old {
                Version::Http10
            } else {
                Version::Http11
            },
            head: self.0 & 1 != 0,
            keep_alive: self.0 & 4 == 0,
            upgrade: self.0 & 8 != 0 && !old,
        }
    }

    fn drain(self) -> bool {
        self.0 & 16 != 0
    }

    fn limits(self) -> Limits {
        let limits = Limits::default();
        if self.0 & 32 == 0 {
            return limits;
        }
        Limits {
            response_head: 256,
            response_fields: 6,
            chunk_line: 24,
            head: 128,
            fields: 4,
            ..limits
        }
    }
}

/// What became of one response head and its body, after which the machine closed.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Interim(Option<Message>),
    Final {
        message: Message,
        keep_alive: bool,
        /// The machine's connection may be used again.
        reuse: bool,
        /// Bytes behind the response.
        left: usize,
    },
    Tunnel {
        message: Message,
        websocket: bool,
        /// Bytes of the machine after its head.
        after: usize,
    },
    Invalid(&'static str),
    Partial,
}

/// Feeds `pieces` as they would come from a socket, then closes, and tells all outcomes.
pub fn outcomes(setting: Setting, pieces: &[&[u8]]) -> Vec<Outcome> {
    let mut machine = Machine {
        setting,
        asked: setting.asked(),
        limits: setting.limits(),
        buffer: Vec::new(),
        head: ResponseHead::new(),
        state: State::Head,
        source: Vec::new(),
        sent: Vec::new(),
        outcomes: Vec::new(),
    };
    for piece in pieces {
        machine.buffer.extend_from_slice(piece);
        while machine.step() {}
    }
    machine.end()
}

struct Machine {
    setting: Setting,
    asked: Asked,
    limits: Limits,
    buffer: Vec<u8>,
    head: ResponseHead,
    state: State,
    /// The final response's body as it came, framing included.
    source: Vec<u8>,
    /// What the client gets.
    sent: Vec<u8>,
    outcomes: Vec<Outcome>,
}

enum State {
    Head,
    Body {
        body: Body,
        out: reply::Body,
        keep_alive: bool,
        broken: bool,
    },
    Tunnel {
        message: Message,
        websocket: bool,
    },
    Over,
}

impl Machine {
    /// Does what the buffer allows; false when it needs more.
    fn step(&mut self) -> bool {
        match &mut self.state {
            State::Over | State::Tunnel { .. } => false,
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
                        self.outcomes.push(Outcome::Invalid(invalid.0));
                        self.state = State::Over;
                        false
                    }
                }
            }
            State::Body { body, broken, .. } => {
                if body.ended() || *broken || self.buffer.is_empty() {
                    return false;
                }
                match body.pass(&self.buffer, &self.limits, &mut self.sent) {
                    Ok(taken) => {
                        self.source.extend(self.buffer.drain(..taken));
                        taken > 0
                    }
                    Err(_) => {
                        self.source.append(&mut self.buffer);
                        *broken = true;
                        false
                    }
                }
            }
        }
    }

    fn reply(&mut self) {
        let drain = self.setting.drain();
        let reply = reply::write(
            &self.head,
            &self.buffer,
            &self.asked,
            drain,
            None,
            &mut self.sent,
        );
        if reply == Reply::Interim && self.asked.version == Version::Http10 {
            assert!(self.sent.is_empty(), "HTTP/1.0 knows no interim responses");
            self.outcomes.push(Outcome::Interim(None));
            return;
        }
        let (message, taken) = reader::message(&self.sent, Expect::NoBody).expect("a strict head");
        assert_eq!(taken, self.sent.len(), "more than a head was written");
        self.check_head(&message, reply);
        match reply {
            Reply::Interim => {
                self.sent.clear();
                self.outcomes.push(Outcome::Interim(Some(message)));
            }
            Reply::Tunnel { websocket } => self.state = State::Tunnel { message, websocket },
            Reply::Final { body, keep_alive } => {
                self.state = State::Body {
                    body: Body::response(self.head.framing, body == reply::Body::Chunked),
                    out: body,
                    keep_alive,
                    broken: false,
                };
            }
        }
    }

    /// What was written for the client is the machine's head, made for the client's hop.
    fn check_head(&self, seen: &Message, reply: Reply) {
        let (head, bytes) = (&self.head, &self.buffer);
        let line = format!("HTTP/1.1 {:03} ", head.status).into_bytes();
        assert_eq!(seen.start, [&line, head.reason.of(bytes)].concat());
        for name in [
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "proxy-authenticate",
            "te",
            "x-hyperfleet-error",
        ] {
            assert!(seen.one(name).is_none(), "{name} went through");
        }
        let upgrade = seen.all("upgrade").next().is_some();
        assert!(!upgrade || matches!(head.status, 101 | 426));
        let connection = seen.one("connection");
        let old = self.asked.version == Version::Http10;
        match reply {
            Reply::Interim => assert_eq!(connection, None),
            Reply::Tunnel { .. } => {
                assert_eq!(connection, Some(&b"upgrade"[..]));
                assert!(self.asked.upgrade && head.status == 101);
            }
            Reply::Final { keep_alive, body } => {
                let says = |wanted: &[u8]| {
                    let mut all = connection.unwrap_or_default().split(|&byte| byte == b',');
                    all.any(|option| option.trim_ascii() == wanted)
                };
                assert_eq!(says(b"close"), !keep_alive);
                assert!(!old || !keep_alive || upgrade || says(b"keep-alive"));
                assert!(!keep_alive || self.asked.keep_alive && !self.setting.drain());
                let bodiless = self.asked.head || matches!(head.status, 204 | 304);
                assert_eq!(bodiless, body == reply::Body::None);
                let framing = match body {
                    reply::Body::None => return self.check_bodiless(seen),
                    reply::Body::Length(length) => reader::Framing::Length(length),
                    reply::Body::Chunked => reader::Framing::Chunked,
                    reply::Body::UntilClose => reader::Framing::None,
                };
                assert_eq!(seen.framing, framing);
                assert!(!old || framing != reader::Framing::Chunked);
                assert!(!keep_alive || framing != reader::Framing::None);
            }
        }
    }

    /// RFC 9110 section 8.6, RFC 9112 section 6.1.
    fn check_bodiless(&self, seen: &Message) {
        assert_ne!(seen.framing, reader::Framing::Chunked);
        assert!(self.head.status != 204 || seen.framing == reader::Framing::None);
    }

    /// The machine closes.
    fn end(mut self) -> Vec<Outcome> {
        let state = std::mem::replace(&mut self.state, State::Over);
        match state {
            State::Head => self.outcomes.push(Outcome::Partial),
            State::Over => {}
            State::Tunnel { message, websocket } => self.outcomes.push(Outcome::Tunnel {
                message,
                websocket,
                after: self.buffer.len(),
            }),
            State::Body {
                mut body,
                out,
                keep_alive,
                broken,
            } => {
                let whole = body.close(&mut self.sent);
                assert!(!(whole && broken));
                let message = self.check_body(out, whole);
                self.outcomes.push(Outcome::Final {
                    message,
                    keep_alive,
                    reuse: self.head.keep_alive,
                    // What comes after a body that is broken off is nobody's.
                    left: if broken { 0 } else { self.buffer.len() },
                });
            }
        }
        self.outcomes
    }

    /// The client reads the body that a plain reader finds in what the machine sent.
    fn check_body(&self, out: reply::Body, whole: bool) -> Message {
        let expect = match out {
            reply::Body::None => Expect::NoBody,
            reply::Body::UntilClose => Expect::UntilClose,
            reply::Body::Length(_) | reply::Body::Chunked => Expect::Framed,
        };
        let (message, taken) = reader::message(&self.sent, expect).expect("a strict response");
        assert_eq!(taken, self.sent.len(), "more than a response was written");
        let framed = matches!(out, reply::Body::Length(_) | reply::Body::Chunked);
        assert!(
            !framed || message.whole == whole,
            "a body cut short seems whole"
        );
        let bounds = Bounds {
            line: self.limits.chunk_line,
            trailer_bytes: self.limits.head,
            trailer_lines: self.limits.fields,
            body: None,
        };
        match self.head.framing {
            Framing::None => assert!(whole && message.body.is_empty()),
            Framing::Length(length) => {
                assert_eq!(message.body, self.source);
                assert_eq!(whole, self.source.len() as u64 == length);
            }
            Framing::UntilClose => assert_eq!(message.body, self.source),
            Framing::Chunked => match chunks::read(&self.source, &bounds) {
                Read::Whole { data, taken, .. } => {
                    assert!(whole && taken == self.source.len());
                    assert_eq!(message.body, data);
                }
                Read::Partial { data } => {
                    assert!(!whole && data == message.body);
                }
                Read::Bad => assert!(!whole),
            },
        }
        message
    }
}
