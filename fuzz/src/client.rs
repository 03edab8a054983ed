//! One client's connection through the proxy's core: what each request becomes, and whether a
//! strict reader behind the proxy reads the very same in it.

use std::net::IpAddr;

use hyperfleet_proxy::body::Body;
use hyperfleet_proxy::forward::{self, Peer, Target};
use hyperfleet_proxy::http::request::{self, Form, RequestHead};
use hyperfleet_proxy::http::{Asked, Framing, Progress, Reject};
use hyperfleet_proxy::limits::Limits;
use hyperfleet_proxy::route::{Place, Resolved, Site};

use crate::reader::{self, Expect, Message};

const MACHINE_ID: &str = "abc123def456";

/// How the proxy and its route are set; an input's first byte says it.
#[derive(Debug, Clone, Copy)]
pub struct Setting(pub u8);

impl Setting {
    fn trusted(self) -> bool {
        self.0 & 1 != 0
    }

    fn host(self) -> Option<&'static str> {
        (self.0 & 2 != 0).then_some("inside.internal")
    }

    fn site(self) -> Site {
        let prefix = if self.0 & 4 != 0 { "/" } else { "/proxy" };
        let suffix = (self.0 & 8 == 0).then_some(".local.dev");
        Site::new(prefix, suffix, Vec::new()).expect("both are valid")
    }

    fn strips_prefix(self) -> bool {
        self.0 & 32 == 0
    }

    fn limits(self) -> Limits {
        let limits = Limits::default();
        if self.0 & 16 == 0 {
            return limits;
        }
        // So small that a short input meets them.
        Limits {
            head: 256,
            fields: 6,
            target: 64,
            body: Some(64),
            chunk_line: 24,
            ..limits
        }
    }
}

/// What became of one request, or of the bytes behind the last.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A machine got it; `broken` says why not to its end.
    Forwarded {
        message: Message,
        broken: Option<Reject>,
    },
    /// Read, and answered by the proxy.
    Answered {
        redirect: bool,
        whole: bool,
    },
    Rejected(Reject),
    /// An upgrade was forwarded; so many bytes came after it.
    Upgrade {
        message: Message,
        after: usize,
    },
    /// The head is not whole.
    Partial,
}

/// Feeds `pieces` as they would come from a socket and tells all outcomes, in order.
pub fn outcomes(setting: Setting, pieces: &[&[u8]]) -> Vec<Outcome> {
    let mut client = Client::new(setting);
    for piece in pieces {
        client.buffer.extend_from_slice(piece);
        while client.step() {}
    }
    client.end()
}

struct Client {
    setting: Setting,
    site: Site,
    limits: Limits,
    buffer: Vec<u8>,
    head: RequestHead,
    state: State,
    /// What the machine gets of the current request.
    sent: Vec<u8>,
    outcomes: Vec<Outcome>,
}

enum State {
    Head,
    Body { body: Body, to: To },
    Upgrade(Message),
    Closed,
}

#[derive(Clone, Copy)]
enum To {
    Machine,
    Nobody { redirect: bool },
}

impl Client {
    fn new(setting: Setting) -> Client {
        Client {
            setting,
            site: setting.site(),
            limits: setting.limits(),
            buffer: Vec::new(),
            head: RequestHead::new(),
            state: State::Head,
            sent: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// Does what the buffer allows; false when it needs more.
    fn step(&mut self) -> bool {
        match &mut self.state {
            State::Upgrade(_) | State::Closed => false,
            State::Head if self.buffer.is_empty() => false,
            State::Head => match request::parse(&self.buffer, &self.limits, &mut self.head) {
                Ok(Progress::Partial) => false,
                Ok(Progress::Whole(length)) => {
                    let to = self.forward();
                    self.buffer.drain(..length);
                    let body = Body::request(self.head.framing, &self.limits);
                    self.state = State::Body { body, to };
                    true
                }
                Err(reject) => {
                    self.outcomes.push(Outcome::Rejected(reject));
                    self.state = State::Closed;
                    false
                }
            },
            State::Body { body, .. } if body.ended() => {
                self.finish(None);
                true
            }
            State::Body { body, .. } => {
                match body.pass(&self.buffer, &self.limits, &mut self.sent) {
                    Ok(taken) => {
                        self.buffer.drain(..taken);
                        body.ended()
                    }
                    Err(reject) => {
                        self.finish(Some(reject));
                        self.state = State::Closed;
                        false
                    }
                }
            }
        }
    }

    fn forward(&mut self) -> To {
        let destination = match self.site.resolve(&self.head, &self.buffer) {
            Resolved::To(destination) => destination,
            Resolved::Redirect { rest } => {
                let path = self.head.path.of(&self.buffer);
                assert!(path.get(rest).is_none_or(|&byte| byte == b'?'));
                return To::Nobody { redirect: true };
            }
            Resolved::NotFound => return To::Nobody { redirect: false },
        };
        let address = IpAddr::from([203, 0, 113, 9]);
        let peer = Peer {
            address,
            trusted: self.setting.trusted(),
        };
        let target = Target {
            destination: &destination,
            machine_id: MACHINE_ID,
            host: self.setting.host(),
            strip_prefix: self.setting.strips_prefix(),
        };
        forward::write(&self.head, &self.buffer, &peer, &target, &mut self.sent);
        self.check_head(destination.place);
        To::Machine
    }

    /// What was written for the machine is the client's request and nothing else.
    fn check_head(&self, place: Place) {
        let (head, bytes) = (&self.head, &self.buffer);
        let (seen, taken) = reader::message(&self.sent, Expect::NoBody).expect("a strict head");
        assert_eq!(taken, self.sent.len(), "more than a head was written");
        let path = head.path.of(bytes);
        let (path, prefix) = match place {
            Place::Path { rest } if self.setting.strips_prefix() => {
                (&path[rest..], Some(&path[..rest]))
            }
            Place::Host | Place::Path { .. } => (path, None),
        };
        let options = head.method_text.of(bytes) == b"OPTIONS";
        let path = match path.first() {
            Some(b'/') => path.to_vec(),
            Some(b'*') if options && head.form == Form::Asterisk => b"*".to_vec(),
            None if options && prefix.is_none() => b"*".to_vec(),
            _ => [b"/", path].concat(),
        };
        let line = [head.method_text.of(bytes), b" ", &path, b" HTTP/1.1"].concat();
        assert_eq!(seen.start, line);
        assert!(reader::is_token(head.method_text.of(bytes)));
        let plain = |byte: &u8| matches!(byte, 0x21..=0x7e) && *byte != b'#';
        assert!(path.iter().all(plain), "the path would be read otherwise");

        let framing = match head.framing {
            Framing::None => reader::Framing::None,
            Framing::Length(length) => reader::Framing::Length(length),
            Framing::Chunked => reader::Framing::Chunked,
            Framing::UntilClose => unreachable!("no request is framed so"),
        };
        assert_eq!(seen.framing, framing);

        let host = match (self.setting.host(), head.authority) {
            (Some(host), _) => host.as_bytes(),
            (None, Some(authority)) => authority.of(bytes),
            (None, None) => MACHINE_ID.as_bytes(),
        };
        assert_eq!(seen.one("host"), Some(host));
        self.check_origin(&seen, prefix);
        self.check_hop(&seen);
    }

    /// Where it came from is told by the proxy, whatever the client claims.
    fn check_origin(&self, seen: &Message, prefix: Option<&[u8]>) {
        let address = "203.0.113.9";
        assert_eq!(seen.one("x-machine-id"), Some(MACHINE_ID.as_bytes()));
        assert_eq!(seen.one("x-forwarded-prefix"), prefix);
        let chain = seen.one("x-forwarded-for").expect("it is always there");
        let alone = !self.setting.trusted();
        assert!(chain.ends_with(address.as_bytes()));
        assert!(
            !alone || chain == address.as_bytes(),
            "a stranger's word is passed on"
        );
        if alone {
            assert_eq!(seen.one("x-forwarded-proto"), Some(&b"http"[..]));
            let authority = self.head.authority.map(|span| span.of(&self.buffer));
            assert_eq!(seen.one("x-forwarded-host"), authority);
            assert!(seen.one("forwarded").is_none() && seen.one("x-real-ip").is_none());
        }
        const ORIGINS: [&str; 6] = [
            "x-machine-id",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-prefix",
            "x-real-ip",
        ];
        for (name, _) in &seen.fields {
            let read = String::from_utf8_lossy(name).replace('_', "-");
            let alias = name.contains(&b'_') && ORIGINS.contains(&read.as_str());
            assert!(!alias, "CGI would read {read} in another field");
        }
    }

    /// Nothing of the client's hop goes on to the machine's.
    fn check_hop(&self, seen: &Message) {
        for name in [
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "proxy-authenticate",
        ] {
            assert!(seen.one(name).is_none(), "{name} went through");
        }
        let connection: Vec<_> = seen.all("connection").collect();
        let upgrade = self.head.upgrade;
        let te = seen.one("te").is_some();
        let expected: &[&[u8]] = match (upgrade, te) {
            (true, true) => &[b"upgrade, TE"],
            (true, false) => &[b"upgrade"],
            (false, true) => &[b"TE"],
            (false, false) => &[],
        };
        assert_eq!(connection, expected);
        assert!(seen.one("te").is_none_or(|value| value == b"trailers"));
        assert_eq!(seen.all("upgrade").next().is_some(), upgrade);
        for value in seen.all("upgrade") {
            let h2c = |name: &[u8]| name.trim_ascii().eq_ignore_ascii_case(b"h2c");
            assert!(
                !value.split(|&byte| byte == b',').any(h2c),
                "h2c went through"
            );
        }
        // Fields that the client's Connection names. The request was taken, so it may name them.
        let head = &self.buffer;
        for field in &self.head.fields {
            if !field.name.of(head).eq_ignore_ascii_case(b"connection") {
                continue;
            }
            for option in field.value.of(head).split(|&byte| byte == b',') {
                let option = option.trim_ascii().to_ascii_lowercase();
                let ours: [&[u8]; 4] = [b"te", b"upgrade", b"connection", b"expect"];
                let named = seen.fields.iter().any(|(name, _)| *name == option);
                assert!(
                    !named || ours.contains(&option.as_slice()),
                    "{option:?} went through"
                );
            }
        }
    }

    /// The request's body has ended, or broken off.
    fn finish(&mut self, broken: Option<Reject>) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        let State::Body { body, to } = state else {
            return;
        };
        let whole = body.ended();
        let sent = std::mem::take(&mut self.sent);
        if let To::Nobody { redirect } = to {
            self.outcomes.push(match broken {
                Some(reject) => Outcome::Rejected(reject),
                None => Outcome::Answered { redirect, whole },
            });
        } else {
            let (message, taken) =
                reader::message(&sent, Expect::Framed).expect("a strict request");
            assert_eq!(
                taken,
                sent.len(),
                "a second request may be read in the first"
            );
            assert_eq!(
                message.whole, whole,
                "it seems whole and is not, or the other way round"
            );
            if whole && self.head.upgrade {
                self.state = State::Upgrade(message);
                return;
            }
            self.outcomes.push(Outcome::Forwarded { message, broken });
        }
        if whole && self.head.keep_alive {
            self.state = State::Head;
        }
    }

    /// The client has sent all.
    fn end(mut self) -> Vec<Outcome> {
        if matches!(self.state, State::Body { .. }) {
            self.finish(None);
        }
        match self.state {
            State::Head if !self.buffer.is_empty() => self.outcomes.push(Outcome::Partial),
            State::Upgrade(message) => self.outcomes.push(Outcome::Upgrade {
                message,
                after: self.buffer.len(),
            }),
            _ => {}
        }
        self.outcomes
    }
}

/// What the last request asks for, if it is an upgrade that was forwarded.
pub fn asked_upgrade(setting: Setting, request: &[u8]) -> Option<Asked> {
    let mut head = RequestHead::new();
    let parsed = request::parse(request, &setting.limits(), &mut head);
    let forwarded = matches!(
        setting.site().resolve(&head, request),
        Resolved::To(_) if parsed == Ok(Progress::Whole(request.len()))
    );
    (forwarded && head.upgrade && head.framing == Framing::None).then(|| head.asked())
}
