//! Peers that misbehave in the middle of bodies that pass through pipes, around the sizes at which
//! their way changes: what arrives is what was sent, as far as it was; what is not whole is seen to be
//! so; and the connection is never used again.

use std::thread;

use crate::every_point::{
    asked, expect_dropped, expect_next_served, one_server, Act, Seen, Tally, ANOTHER, NEW, OLD,
};
use crate::strict;
use crate::support::{figure, Peer};

/// As in splice.rs: from so many bytes on a rest goes through a pipe, which holds so many.
const LEAST: usize = 64 << 10;
const PIPE: usize = 256 << 10;
const LENGTH: usize = 3 * PIPE;

/// Where a body breaks off, its end among them.
const POINTS: [usize; 14] = [
    0,
    1,
    LEAST - 1,
    LEAST,
    LEAST + 1,
    PIPE - 1,
    PIPE,
    PIPE + 1,
    2 * PIPE,
    LENGTH - LEAST - 1,
    LENGTH - LEAST,
    LENGTH - LEAST + 1,
    LENGTH - 1,
    LENGTH,
];

/// Letters of which no two pipefuls are alike.
fn body() -> String {
    (0..LENGTH)
        .map(|at| char::from(b'a' + ((at + at / PIPE) % 23) as u8))
        .collect()
}

/// The client's answer, and whether it ended with a reset.
fn answer(client: &mut Peer) -> (String, String, bool) {
    let head = client.try_head().unwrap_or_default();
    let (rest, reset) = client.rest_and_reset();
    (head, rest, reset)
}

/// A response that breaks off at each point.
fn walk_responses(request: &str, act: Act) -> Tally {
    let body = body();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
    let (server, proxy) = one_server(&[]);
    let mut tally = Tally::default();
    for point in POINTS {
        let place = format!("{act:?} at {point} of a body that answers {request:?}");
        let (mut client, guest) = asked(&server, &proxy, request);
        let sent = [&head, &body[..point]].concat();
        let acting = thread::spawn(move || act.by(guest, &sent));
        let (got_head, got, reset) = answer(&mut client);
        assert!(acting.join().unwrap().is_none());
        let seen = match strict::read(&[got_head.as_str(), &got].concat(), !reset) {
            Some(message) if message.error.is_none() => Seen::Whole(message),
            // Before the client had a byte of it.
            Some(message) => Seen::Ours(message.status, message.error.unwrap_or_default()),
            None => Seen::Broken,
        };
        tally.count(&seen);
        let whole = point == LENGTH;
        match seen {
            Seen::Whole(_) => assert!(whole && got == body, "{place}: taken for whole"),
            Seen::Ours(502, _) if act == Act::Reset => {}
            Seen::Ours(status, code) => panic!("{place}: {status} {code}"),
            // A reset may overtake what was sent before it.
            Seen::Broken => {
                assert!(!whole || act == Act::Reset, "{place}: {} came", got.len());
                let all = act == Act::Reset || got.len() == point;
                assert!(all && body[..point].starts_with(&got), "{place}");
            }
        }
        expect_next_served(&server, &proxy, None);
    }
    tally
}

#[test]
fn a_spliced_response_that_breaks_off() {
    for (what, act) in [("reset", Act::Reset), ("closed", Act::Close)] {
        for (version, request) in [("1.1", NEW), ("1.0", OLD)] {
            figure(
                &format!("spliced response to HTTP/{version} {what} around the pipe's sizes"),
                walk_responses(request, act),
            );
        }
    }
}

#[test]
fn what_follows_a_spliced_response_is_nobodys() {
    let body = body();
    let (server, proxy) = one_server(&[]);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
    for garbage in ["", "x", ANOTHER] {
        let (mut client, guest) = asked(&server, &proxy, NEW);
        let sent = [&head, body.as_str()].concat();
        let acting = thread::spawn(move || Act::Garbage(garbage).by(guest, &sent));
        let (_, got, reset) = answer(&mut client);
        assert!(got == body && !reset, "{} bytes, {garbage:?}", got.len());
        let guest = acting.join().unwrap().expect("it is open");
        if garbage.is_empty() {
            expect_next_served(&server, &proxy, Some(guest));
        } else {
            expect_dropped(guest, garbage);
            expect_next_served(&server, &proxy, None);
        }
    }
}

#[test]
fn a_spliced_response_that_stalls() {
    let body = body();
    let (server, proxy) = one_server(&["--body-timeout-ms", "700"]);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
    let stalled: Vec<_> = [1, LEAST, PIPE, PIPE + 1, LENGTH - LEAST + 1, LENGTH - 1]
        .into_iter()
        .map(|point| {
            let (mut client, mut guest) = asked(&server, &proxy, NEW);
            let sent = [&head, &body[..point]].concat();
            let sending = thread::spawn(move || {
                guest.send(sent);
                guest
            });
            client.head();
            client.expect(&body[..point]);
            (point, client, sending.join().unwrap())
        })
        .collect();
    for (point, mut client, guest) in stalled {
        assert_eq!(client.rest_and_reset().0, "", "{point}");
        expect_dropped(guest, &format!("stalls at {point}"));
    }
    expect_next_served(&server, &proxy, None);
}

#[test]
fn a_spliced_request_whose_client_breaks_off() {
    let body = body();
    let head =
        format!("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: {LENGTH}\r\n\r\n");
    for act in [Act::Reset, Act::Close] {
        let (server, proxy) = one_server(&[]);
        for point in &POINTS[..POINTS.len() - 1] {
            let (client, mut guest) = asked(&server, &proxy, &head);
            let sent = body[..*point].to_owned();
            let acting = thread::spawn(move || act.by(client, &sent));
            let (got, _) = guest.rest_and_reset();
            acting.join().unwrap();
            let all = act == Act::Reset || got.len() == *point;
            assert!(
                all && body[..*point].starts_with(&got),
                "{act:?} at {point}: {} came",
                got.len()
            );
            expect_next_served(&server, &proxy, None);
        }
    }
}

#[test]
fn a_spliced_request_whose_machine_fails() {
    let body = body();
    let head = format!(
        "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {LENGTH}\r\n\r\n"
    );
    for act in [Act::Reset, Act::Close] {
        let (server, proxy) = one_server(&[]);
        for point in &POINTS[..POINTS.len() - 1] {
            let (mut client, mut guest) = asked(&server, &proxy, &head);
            let sending = {
                let mut client = Peer::new(client.stream.try_clone().unwrap());
                let sent = body.clone();
                // What nobody reads any more may be refused.
                thread::spawn(move || {
                    let _ = client.try_send(sent);
                })
            };
            guest.expect(&body[..*point]);
            act.by(guest, "");
            let (got_head, _, _) = answer(&mut client);
            sending.join().unwrap();
            // The answer may be lost with a connection on which the client was sending still.
            let told = got_head.is_empty() || got_head.starts_with("HTTP/1.1 502 ");
            assert!(told, "{act:?} at {point}: {got_head:?}");
            expect_next_served(&server, &proxy, None);
        }
    }
}
