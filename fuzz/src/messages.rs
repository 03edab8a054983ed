//! What holds for every message of both wires.

use hyperfleet_wire::{decode, encode};
use serde::{de::DeserializeOwned, Serialize};

use crate::memory;

/// What lists may reserve before their elements come: serde takes their word up to 1 MiB for each
/// that is open, and no more than 16 are.
const RESERVED: usize = 17 << 20;
/// What one byte of a payload may become.
const PER_BYTE: usize = 128;

/// Decodes `payload`: what is understood is said again and understood the same, and a lie costs no
/// more than its own bytes and what lists reserve. The caller's allocator is
/// [`memory::Counting`].
///
/// # Panics
/// It is not so.
pub fn check<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(payload: &[u8]) {
    let (decoded, peak) = memory::peak(|| decode::<T>(payload));
    assert!(
        peak <= RESERVED + PER_BYTE * payload.len(),
        "{peak} bytes were held"
    );
    if let Ok(message) = decoded {
        let encoded = encode(&message);
        assert_eq!(decode::<T>(&encoded), Ok(message));
    }
}
