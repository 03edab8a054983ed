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
    // Serialising plain structs into a Vec has no failing path: no I/O, no unsized sequences.
    rmp_serde::to_vec_named(message).expect("messages are plain data")
}

/// Deepest nesting of a payload. Messages nest four deep (a map, its fields, a list, its maps);
/// without a bound a few kilobytes of nesting would overflow the stack.
const MAX_DEPTH: usize = 16;

/// Decodes one whole payload.
///
/// # Errors
/// [`WireError::Unknown`] for another shape or type, [`WireError::Corrupt`] for bytes left over.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, WireError> {
    let mut rest = payload;
    let mut decoder = rmp_serde::Deserializer::new(&mut rest);
    decoder.set_max_depth(MAX_DEPTH);
    let message = T::deserialize(&mut decoder).map_err(|e| WireError::Unknown(e.to_string()))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(WireError::Corrupt("bytes are left after the message"))
    }
}
