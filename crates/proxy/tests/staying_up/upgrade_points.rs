//! Machines that misbehave at every byte of their answer to an upgrade, and of what follows it.
//! Before the 101 is whole it is an answer like any other; from there on the client gets what the
//! machine sent, to the byte, and the connection is never anybody else's.

use crate::every_point::{
    asked, body_of, expect_dropped, expect_next_served, invalid, late, one_server, Act, Seen,
    Tally, NOISE,
};
use crate::support::{field, figure, Peer};

const UPGRADE: &str = "GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n";
/// The 101 and two frames of a server, in letters as they may be: a text and a close (RFC 6455
/// section 5.2).
const GRANTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: eA==\r\n\r\n\u{1}\u{5}hello\u{8}\u{0}";

/// What the client has of the answer's head: an error of ours, or that it is a tunnel.
fn answered(client: &mut Peer) -> Option<Seen> {
    let Some(head) = client.try_head() else {
        return Some(Seen::Broken);
    };
    if head.starts_with("HTTP/1.1 101 ") {
        assert_eq!(field(&head, "Upgrade"), Some("websocket"), "{head}");
        return None;
    }
    let length = field(&head, "Content-Length").unwrap().parse().unwrap();
    client.bytes(length);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let code = field(&head, "X-Hyperfleet-Error").expect("an error of ours");
    Some(Seen::Ours(status, code.to_owned()))
}

fn walk(act: Act) -> Tally {
    let (server, proxy) = one_server(&[]);
    let mut tally = Tally::default();
    for point in 0..=GRANTED.len() {
        let place = format!("{act:?} at {point} of {GRANTED:?}");
        let (mut client, guest) = asked(&server, &proxy, UPGRADE);
        let mut sent = GRANTED[..point].to_owned();
        let open = act.by(guest, &sent);
        if let Act::Garbage(garbage) = act {
            sent.push_str(garbage);
        }
        let error = answered(&mut client);
        // A reset may overtake what was sent before it.
        let overtaken = act == Act::Reset && error.is_some();
        if let Some(seen) = error {
            assert_eq!(seen, invalid(), "{place}");
            assert!(point < body_of(GRANTED) || overtaken, "{place}: {seen:?}");
            tally.count(&seen);
        } else {
            assert!(point >= body_of(GRANTED), "{place}: a tunnel");
            tally.count(&Seen::Broken);
            let wanted = &sent[body_of(GRANTED)..];
            if open.is_some() {
                client.expect(wanted);
            } else {
                let (got, _) = client.rest_and_reset();
                let whole = got == wanted || act == Act::Reset && wanted.starts_with(&got);
                assert!(whole, "{place}: {got:?}, not {wanted:?}");
            }
        }
        drop(client);
        if let Some(guest) = open {
            expect_dropped(guest, &place);
        }
        expect_next_served(&server, &proxy, None);
    }
    tally
}

#[test]
fn an_upgrade_whose_machine_fails_at_any_byte() {
    for (what, act) in [
        ("reset", Act::Reset),
        ("closed", Act::Close),
        ("noise", Act::Garbage(NOISE)),
    ] {
        figure(
            &format!("upgrade {what} at every byte, tunnels as broken"),
            walk(act),
        );
    }
}

#[test]
fn an_upgrade_whose_machine_stalls_at_any_byte() {
    let (server, proxy) = one_server(&["--response-timeout-ms", "700"]);
    let stalled: Vec<_> = (0..=GRANTED.len())
        .map(|point| {
            let (client, mut guest) = asked(&server, &proxy, UPGRADE);
            guest.send(&GRANTED[..point]);
            (point, client, guest)
        })
        .collect();
    let mut tally = Tally::default();
    for (point, mut client, mut guest) in stalled {
        let place = format!("stalls at {point} of {GRANTED:?}");
        let error = answered(&mut client);
        if point < body_of(GRANTED) {
            let seen = error.expect("no tunnel");
            assert_eq!(seen, late(), "{place}");
            tally.count(&seen);
            expect_dropped(guest, &place);
        } else {
            // That limit is not a tunnel's: it goes on both ways.
            assert_eq!(error, None, "{place}");
            client.expect(&GRANTED[body_of(GRANTED)..point]);
            client.send("on");
            guest.expect("on");
        }
    }
    expect_next_served(&server, &proxy, None);
    figure("upgrade stalled at every byte of its head", tally);
}
