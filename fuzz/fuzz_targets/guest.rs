//! The guest's port: the first byte is who speaks and whether the rest is the stream itself or
//! payloads to be framed (a checksum is hard to guess).
#![no_main]

use hyperfleet_fuzz::cuts;
use hyperfleet_fuzz::memory::{self, Counting};
use hyperfleet_fuzz::messages::check;
use hyperfleet_wire::guest::{FromGuest, ToGuest};
use hyperfleet_wire::{slip, WireError};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const END: u8 = 0xC0;

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else {
        return;
    };
    let stream = if kind & 2 == 0 {
        bytes.to_vec()
    } else {
        framed(bytes)
    };
    let (seen, peak) = memory::peak(|| read(&[&stream]));
    let frame = 2 * (slip::MAX_PAYLOAD + 5);
    assert!(
        peak <= frame + 128 * stream.len() + 4096,
        "{peak} bytes were held"
    );
    assert_eq!(read(&cuts::some(&stream)), seen);
    assert_eq!(read(&cuts::bytes(&stream)), seen);
    assert_eq!(plainly(&stream), seen);
    for payload in seen.iter().flatten() {
        if kind & 1 == 0 {
            check::<ToGuest>(payload);
        } else {
            check::<FromGuest>(payload);
        }
    }
    // Whatever came before, the next frame is heard.
    let mut longer = stream;
    slip::write(bytes, &mut longer).expect("inputs are smaller than a payload may be");
    assert_eq!(read(&[&longer]).last(), Some(&Ok(bytes.to_vec())));
});

/// The payloads in `bytes`, each behind a byte of length, as frames.
fn framed(mut bytes: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (payload, after) = rest.split_at(usize::from(length).min(rest.len()));
        slip::write(payload, &mut stream).expect("it is short");
        bytes = after;
    }
    stream
}

fn read(pieces: &[&[u8]]) -> Vec<Result<Vec<u8>, WireError>> {
    let (mut reader, mut seen) = (slip::Reader::new(), Vec::new());
    for piece in pieces {
        reader.feed(piece, |frame| seen.push(frame.map(<[u8]>::to_vec)));
    }
    seen
}

/// RFC 1055, and the checksum of `version | payload` behind it.
fn plainly(stream: &[u8]) -> Vec<Result<Vec<u8>, WireError>> {
    let mut parts: Vec<&[u8]> = stream.split(|&byte| byte == END).collect();
    // What no END has ended yet.
    parts.pop();
    let whole = parts.into_iter().filter(|part| !part.is_empty());
    whole.map(frame).collect()
}

fn frame(part: &[u8]) -> Result<Vec<u8>, WireError> {
    let (mut plain, mut escaped) = (Vec::new(), false);
    for &byte in part {
        match (escaped, byte) {
            (false, 0xDB) => {}
            (true, 0xDC) => plain.push(END),
            (true, 0xDD) => plain.push(0xDB),
            _ => plain.push(byte),
        }
        escaped = !escaped && byte == 0xDB;
    }
    if plain.len() > slip::MAX_PAYLOAD + 5 {
        return Err(WireError::TooLarge(slip::MAX_PAYLOAD));
    }
    if escaped {
        return Err(WireError::Corrupt("it ends within an escape"));
    }
    if plain.len() < 5 {
        return Err(WireError::Corrupt("it is too short"));
    }
    let (body, sum) = plain.split_at(plain.len() - 4);
    if crc32fast::hash(body).to_be_bytes() != sum {
        return Err(WireError::Corrupt("its checksum does not match"));
    }
    match body.split_first() {
        Some((1, payload)) => Ok(payload.to_vec()),
        Some((version, _)) => Err(WireError::Unknown(format!(
            "framing version {version}, this side speaks 1"
        ))),
        None => unreachable!("five bytes at least"),
    }
}
