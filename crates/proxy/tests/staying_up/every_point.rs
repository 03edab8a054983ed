//! Machines that misbehave at every byte of a message. The client must get the right answer whole,
//! an error of ours, or what is visibly not whole; the next request is served, and never over a
//! connection that is in doubt.

use std::fmt;
use std::net::Shutdown;

use crate::strict::{self, Message};
use crate::support::{figure, text, Peer, Proxy, Server};

pub const NEW: &str = "GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
pub const OLD: &str = "GET /proxy/web/80/ HTTP/1.0\r\n\r\n";

const RESPONSES: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n\
     3\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n",
    UNTIL_CLOSE,
];
const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello";

/// Of their bodies only the data are small letters, so that these can be counted.
const REQUESTS: [&str; 2] = [
    "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 8\r\n\r\n\
     helloyou",
    "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
     Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n",
];

/// No part of any message; and what would be a message by itself.
pub const NOISE: &str = "\0\u{1}\0\u{1}\0\u{1}\0\u{1}\r\n\r\n";
pub const ANOTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

const EARLY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const EARLY_LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// What the machine does at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Reset,
    Close,
    /// Sends this from there on.
    Garbage(&'static str),
}

impl Act {
    /// Does it after `before` was sent; the connection, if it is still open.
    pub fn by(self, mut guest: Peer, before: &str) -> Option<Peer> {
        if let Act::Garbage(garbage) = self {
            // At once, so that what follows a message comes with it.
            guest.send([before, garbage].concat());
            return Some(guest);
        }
        guest.send(before);
        if self == Act::Reset {
            guest.reset();
        }
        None
    }
}

/// What a client has of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    Whole(Message),
    Ours(u16, String),
    Broken,
}

/// Reads what there is to the end, strictly: nothing may follow a message.
pub fn seen(client: &mut Peer) -> Seen {
    let (answer, reset) = client.rest_and_reset();
    match strict::read(&answer, !reset) {
        None => Seen::Broken,
        Some(message) => {
            assert_eq!(message.left, 0, "{answer:?}");
            match message.error {
                Some(code) => Seen::Ours(message.status, code),
                None => Seen::Whole(message),
            }
        }
    }
}

/// The points walked, and what came of them.
#[derive(Default)]
pub struct Tally {
    whole: u32,
    ours: u32,
    broken: u32,
}

impl Tally {
    pub fn count(&mut self, seen: &Seen) {
        *match seen {
            Seen::Whole(_) => &mut self.whole,
            Seen::Ours(..) => &mut self.ours,
            Seen::Broken => &mut self.broken,
        } += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            whole,
            ours,
            broken,
        } = self;
        let points = whole + ours + broken;
        write!(
            f,
            "{points} points: {whole} whole, {ours} errors of ours, {broken} visibly broken"
        )
    }
}

pub fn one_server(arguments: &[&str]) -> (Server, Proxy) {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], arguments);
    (server, proxy)
}

pub fn invalid() -> Seen {
    Seen::Ours(502, "upstream_invalid_response".into())
}

pub fn late() -> Seen {
    Seen::Ours(504, "upstream_timeout".into())
}

/// Where the body begins.
pub fn body_of(message: &str) -> usize {
    message.find("\r\n\r\n").unwrap() + 4
}

/// The next request is served, over `kept` or else over a connection of its own.
#[track_caller]
pub fn expect_next_served(server: &Server, proxy: &Proxy, kept: Option<Peer>) {
    let mut client = proxy.connect();
    client.send(NEW);
    let mut guest = kept.unwrap_or_else(|| server.accept());
    assert!(guest.head().starts_with("GET / HTTP/1.1\r\n"));
    guest.send(EARLY_LAST);
    match seen(&mut client) {
        Seen::Whole(message) => assert_eq!(message.body, "ok"),
        other => panic!("{other:?}"),
    }
}

/// The proxy has closed the connection, and sent nothing more over it.
#[track_caller]
pub fn expect_dropped(mut guest: Peer, place: &str) {
    assert_eq!(guest.rest_and_reset().0, "", "{place}");
}

/// A client that has sent `request`, and the machine's end that has read its head.
pub fn asked(server: &Server, proxy: &Proxy, request: &str) -> (Peer, Peer) {
    let mut client = proxy.connect();
    client.send(request);
    let mut guest = server.accept();
    guest.head();
    (client, guest)
}

fn walk_responses(act: Act) -> Tally {
    let (server, proxy) = one_server(&[]);
    let mut tally = Tally::default();
    for (request, response) in [NEW, OLD]
        .iter()
        .flat_map(|request| RESPONSES.map(|response| (request, response)))
    {
        for point in 0..=response.len() {
            let place = format!("{act:?} at {point} of {response:?} to {request:?}");
            let (mut client, guest) = asked(&server, &proxy, request);
            let (mut sent, mut ends) = (response[..point].to_owned(), act == Act::Close);
            let open = act.by(guest, &sent);
            if let (Act::Garbage(garbage), Some(guest)) = (act, &open) {
                sent.push_str(garbage);
                ends = response == UNTIL_CLOSE;
                if ends {
                    // The proxy may have had enough already.
                    let _ = guest.stream.shutdown(Shutdown::Write);
                }
            }
            let got = seen(&mut client);
            tally.count(&got);
            let meant = strict::read(&sent, ends);
            // Whole, with nothing after it and no end: the connection is good for more.
            let clean = !ends && meant.as_ref().is_some_and(|message| message.left == 0);
            let wanted = match meant {
                Some(message) => Seen::Whole(Message {
                    left: 0,
                    // HTTP/1.0 has no place for it.
                    trailer: message.trailer.filter(|_| *request == NEW),
                    ..message
                }),
                None if point < body_of(response) => invalid(),
                None => Seen::Broken,
            };
            // A reset may overtake what was sent before it.
            let overtaken = act == Act::Reset && (got == invalid() || got == Seen::Broken);
            assert!(
                got == wanted || overtaken,
                "{place}: {got:?}, not {wanted:?}"
            );
            let kept = open.and_then(|guest| {
                if clean {
                    return Some(guest);
                }
                expect_dropped(guest, &place);
                None
            });
            expect_next_served(&server, &proxy, kept);
        }
    }
    tally
}

#[test]
fn a_response_that_is_reset_at_any_byte() {
    figure("response reset at every byte", walk_responses(Act::Reset));
}

#[test]
fn a_response_that_ends_at_any_byte() {
    figure("response closed at every byte", walk_responses(Act::Close));
}

#[test]
fn a_response_that_is_garbage_from_any_byte_on() {
    figure(
        "response noise from every byte on",
        walk_responses(Act::Garbage(NOISE)),
    );
    figure(
        "response another response from every byte on",
        walk_responses(Act::Garbage(ANOTHER)),
    );
}

/// A client that has sent the first `point` bytes of `request`, and the machine's end that has
/// read all that can be passed on of them.
pub fn asked_in_part(server: &Server, proxy: &Proxy, request: &str, point: usize) -> (Peer, Peer) {
    let (client, mut guest) = asked(server, proxy, &request[..point]);
    let data = letters(&request[body_of(request)..point]);
    let mut read = String::new();
    while letters(&read) < data {
        read.push_str(&text(&guest.bytes(1)));
    }
    (client, guest)
}

fn letters(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_lowercase).count()
}

/// Before its head's end a request has no machine that could do anything.
fn request_points() -> impl Iterator<Item = (&'static str, usize)> {
    REQUESTS
        .into_iter()
        .flat_map(|request| (body_of(request)..=request.len()).map(move |point| (request, point)))
}

#[test]
fn a_request_whose_machine_fails_at_any_byte() {
    for act in [Act::Reset, Act::Close, Act::Garbage(NOISE)] {
        let (server, proxy) = one_server(&[]);
        let mut tally = Tally::default();
        for (request, point) in request_points() {
            let place = format!("{act:?} at {point} of {request:?}");
            let (mut client, guest) = asked_in_part(&server, &proxy, request, point);
            let open = act.by(guest, "");
            client.try_send(&request[point..]);
            let got = seen(&mut client);
            tally.count(&got);
            assert_eq!(got, invalid(), "{place}");
            if let Some(mut guest) = open {
                // More of the body may have come.
                guest.rest_and_reset();
            }
            expect_next_served(&server, &proxy, None);
        }
        let what = match act {
            Act::Reset => "reset",
            Act::Close => "close",
            Act::Garbage(_) => "noise",
        };
        figure(&format!("{what} at every byte of a request"), tally);
    }
}

#[test]
fn a_request_that_is_answered_at_any_byte() {
    let (server, proxy) = one_server(&[]);
    let mut tally = Tally::default();
    for (request, point) in request_points() {
        for answer in [EARLY, EARLY_LAST] {
            let place = format!("{answer:?} at {point} of {request:?}");
            let (mut client, mut guest) = asked_in_part(&server, &proxy, request, point);
            guest.send(answer);
            let kept = (answer == EARLY).then_some(guest);
            client.try_send(&request[point..]);
            let got = seen(&mut client);
            tally.count(&got);
            assert_eq!(
                got,
                Seen::Whole(strict::read(EARLY, false).unwrap()),
                "{place}"
            );
            let kept = kept.map(|mut guest| {
                // All of the body has come, so the connection is in no doubt.
                let data = letters(&request[point..]);
                let mut read = String::new();
                let end = if request.contains("chunked") {
                    "0\r\n\r\n"
                } else {
                    ""
                };
                while letters(&read) < data || !read.ends_with(end) {
                    read.push_str(&text(&guest.bytes(1)));
                }
                guest
            });
            expect_next_served(&server, &proxy, kept);
        }
    }
    figure("answered at every byte of a request", tally);
}

#[test]
fn a_machine_that_stalls_at_any_byte() {
    const LIMIT: &str = "700";
    let (server, proxy) = one_server(&[
        "--response-timeout-ms",
        LIMIT,
        "--body-timeout-ms",
        LIMIT,
        "--max-machine-requests",
        "1000",
        "--max-machine-connections",
        "1000",
    ]);
    let mut tally = Tally::default();
    for response in RESPONSES {
        // One that came whole and has its end is not stalled.
        let points = response.len() + usize::from(response == UNTIL_CLOSE);
        let stalled: Vec<_> = [NEW, OLD]
            .into_iter()
            .flat_map(|request| (0..points).map(move |point| (request, point)))
            .map(|(request, point)| {
                let (client, mut guest) = asked(&server, &proxy, request);
                guest.send(&response[..point]);
                (request, point, client, guest)
            })
            .collect();
        for (request, point, mut client, guest) in stalled {
            let place = format!("stalls at {point} of {response:?} to {request:?}");
            let got = seen(&mut client);
            tally.count(&got);
            let head = point < body_of(response);
            let wanted = if head { late() } else { Seen::Broken };
            assert_eq!(got, wanted, "{place}");
            expect_dropped(guest, &place);
        }
        expect_next_served(&server, &proxy, None);
    }
    figure("response stalled at every byte", tally);
    let mut tally = Tally::default();
    let stalled: Vec<_> = request_points()
        .map(|(request, point)| {
            let (mut client, guest) = asked_in_part(&server, &proxy, request, point);
            client.send(&request[point..]);
            (request, point, client, guest)
        })
        .collect();
    for (request, point, mut client, mut guest) in stalled {
        let got = seen(&mut client);
        tally.count(&got);
        assert_eq!(got, late(), "stalls at {point} of {request:?}");
        guest.rest_and_reset();
    }
    expect_next_served(&server, &proxy, None);
    figure("stalled at every byte of a request", tally);
}
