//! Frames and messages of both sockets: control plane ↔ data plane ([`control`])
//! and host ↔ guest ([`guest`]).
//!
//! Two framings, because the two sockets fail differently:
//!
//! * [`length`]: a Unix stream socket loses nothing within a connection, and a new
//!   connection starts clean. A 4-byte big-endian length before each message is enough.
//! * [`slip`]: a virtio-serial port is one endless stream for all clients that come and
//!   go. Half a frame of the last client may stand before the first of the next, and a
//!   write in flight may vanish. Frames are therefore delimited in-band and carry a checksum.
//!
//! The payload of both is one MessagePack map with a `type` key and named fields. Python's
//! side is `hyperfleet.wire`; the vectors in
//! `crates/wire/vectors/` hold both languages to the same bytes.

pub mod control;
pub mod files;
pub mod guest;
pub mod length;
pub mod slip;

use serde::{de::DeserializeOwned, Serialize};

/// What a peer sent that this side does not take.
#[derive(Debug, PartialEq, Eq)]
pub enum WireError {
    /// A frame larger than the bound of its socket; carries the bound in bytes.
    TooLarge(usize),
    /// The frame's checksum or shape is wrong.
    Corrupt(&'static str),
    /// The frame is whole, its message is not one this side knows; carries the decoder's words.
    Unknown(String),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WireError::TooLarge(bound) => write!(f, "frame is larger than {bound} bytes"),
            WireError::Corrupt(what) => write!(f, "corrupt frame: {what}"),
            WireError::Unknown(what) => write!(f, "message not understood: {what}"),
        }
    }
}

impl std::error::Error for WireError {}

/// Encodes a message as a MessagePack map with field names.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut payload = Vec::new();
    encode_into(message, &mut payload);
    payload
}

/// As [`encode`], in place of what `payload` holds: its memory is used again.
pub fn encode_into<T: Serialize>(message: &T, payload: &mut Vec<u8>) {
    payload.clear();
    // Serialising plain structs into a Vec has no failing path: no I/O, no unsized sequences.
    rmp_serde::encode::write_named(payload, message).expect("messages are plain data");
}

/// Deepest nesting of a payload. Messages nest four deep (a map, its fields, a list, its maps);
/// without a bound a few kilobytes of nesting would overflow the stack.
const MAX_DEPTH: usize = 16;

/// Decodes one whole payload.
///
/// # Errors
/// [`WireError::Unknown`] for another shape or type, [`WireError::Corrupt`] for bytes left over.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, WireError> {
    // Borrowed from the slice: a reader that copies makes byte strings grow by doubling.
    let mut decoder = rmp_serde::Deserializer::from_read_ref(payload);
    decoder.set_max_depth(MAX_DEPTH);
    let message = T::deserialize(&mut decoder).map_err(|e| WireError::Unknown(e.to_string()))?;
    // The decoder does not tell where it stands. One value more has no first byte only at the end;
    // a bool, since it never looks into what it refuses.
    match <bool as serde::Deserialize>::deserialize(&mut decoder) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(message),
        _ => Err(WireError::Corrupt("bytes are left after the message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_after_a_message_is_found() {
        let message = guest::ToGuest::Ping { id: 7 };
        let whole = encode(&message);
        assert_eq!(decode(&whole), Ok(message));
        for byte in 0..=255 {
            for tail in [&[byte][..], &[byte, 0], &[byte, 0xC0, 0xC0, 0xC0]] {
                let longer = [&whole[..], tail].concat();
                let decoded = decode::<guest::ToGuest>(&longer);
                assert!(matches!(decoded, Err(WireError::Corrupt(_))), "{tail:x?}");
            }
        }
    }
}
