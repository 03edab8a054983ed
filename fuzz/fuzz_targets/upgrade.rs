//! An upgraded connection: setting, request head, response head, then frames of the machine. The
//! walk knows exactly where a plain reader stands between two frames.
#![no_main]

use hyperfleet_fuzz::machine::Outcome;
use hyperfleet_fuzz::{client, cuts, machine, reader};
use hyperfleet_proxy::websocket::FrameWalk;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&setting, bytes)) = input.split_first() else {
        return;
    };
    let Some((request, answer)) = after_head(bytes) else {
        return;
    };
    if client::asked_upgrade(client::Setting(setting), request).is_none() {
        return;
    }
    let sent = client::outcomes(client::Setting(setting), &[request]);
    assert!(matches!(
        sent.as_slice(),
        [client::Outcome::Upgrade { after: 0, .. }]
    ));

    // HTTP/1.1, an upgrade asked for.
    let outcomes = machine::outcomes(machine::Setting(8), &[answer]);
    if let Some(Outcome::Tunnel {
        message,
        websocket,
        after,
    }) = outcomes.last()
    {
        let names: Vec<u8> = message.all("upgrade").collect::<Vec<_>>().join(&b","[..]);
        let names = names.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        let mut protocols = names.filter(|name| name.eq_ignore_ascii_case(b"websocket"));
        assert_eq!(protocols.next().is_some(), *websocket);
        walk(&answer[answer.len() - after..]);
    }
});

fn after_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    Some(bytes.split_at(reader::position(bytes, b"\r\n\r\n")? + 4))
}

fn walk(stream: &[u8]) {
    let may_close = places(stream);
    let mut walk = FrameWalk::new();
    assert!(walk.may_close());
    let mut at = 0;
    for piece in cuts::some(stream) {
        walk.feed(piece);
        at += piece.len();
        assert_eq!(walk.may_close(), may_close[at], "after {at} bytes");
    }
    let mut walk = FrameWalk::new();
    for (at, byte) in stream.iter().enumerate() {
        walk.feed(&[*byte]);
        assert_eq!(
            walk.may_close(),
            may_close[at + 1],
            "after {} bytes",
            at + 1
        );
    }
}

/// For each number of bytes whether they end with a frame and none was a Close
/// (RFC 6455 section 5.2).
fn places(stream: &[u8]) -> Vec<bool> {
    let mut places = vec![false; stream.len() + 1];
    let (mut at, mut closed) = (0_u128, false);
    while let Some(place) = usize::try_from(at).ok().and_then(|at| places.get_mut(at)) {
        *place = !closed;
        let frame = &stream[at as usize..];
        let [first, second, ..] = *frame else { break };
        let (size, length) = match (second & 0x7f, frame) {
            (126, [_, _, a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [_, _, a, b, c, d, e, f, g, h, ..]) => {
                (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
            }
            (126 | 127, _) => break,
            (short, _) => (2, u64::from(short)),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if frame.len() < size + mask {
            break;
        }
        closed |= first & 0x0f == 8;
        at += (size + mask) as u128 + u128::from(length);
    }
    places
}
