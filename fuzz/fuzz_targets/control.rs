//! The control socket: the first byte is who speaks, the rest the stream of frames.
#![no_main]

use hyperfleet_fuzz::memory::Counting;
use hyperfleet_fuzz::messages::check;
use hyperfleet_wire::control::{FromProxy, ToProxy};
use hyperfleet_wire::{length, WireError};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fuzz_target!(|input: &[u8]| {
    let Some((&speaker, stream)) = input.split_first() else {
        return;
    };
    let mut rest = stream;
    loop {
        match length::read(rest) {
            Ok(Some((payload, taken))) => {
                assert_eq!(taken, payload.len() + 4);
                let mut frame = Vec::new();
                length::write(payload, &mut frame).expect("it was read");
                assert_eq!(frame, rest[..taken]);
                message(speaker, payload);
                rest = &rest[taken..];
            }
            Ok(None) => break,
            Err(error) => {
                assert_eq!(error, WireError::TooLarge(length::MAX_PAYLOAD));
                break;
            }
        }
    }
    // Any bytes may also come as a frame.
    message(speaker, stream);
});

fn message(speaker: u8, payload: &[u8]) {
    if speaker & 1 == 0 {
        check::<ToProxy>(payload);
    } else {
        check::<FromProxy>(payload);
    }
}
