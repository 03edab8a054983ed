//! As much of RFC 6455 as an echo of whole, short, binary messages needs.

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use sha1::{Digest, Sha1};

/// What an accept key is made with (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// FIN and the opcode of a binary message (section 5.2).
const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
/// A length that says: the next two bytes tell.
const LENGTH_16: u8 = 126;
/// Longest payload that a frame here can have.
pub const LONGEST: usize = u16::MAX as usize;

/// `Sec-WebSocket-Accept` for a client's `Sec-WebSocket-Key`.
pub fn accept(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Appends a message of `payload`. A client's is masked (section 5.3), with a mask of zeros: the
/// bytes that a proxy carries are as many, and the ends have less to do.
pub fn write(payload: &[u8], masked: bool, out: &mut Vec<u8>) {
    let mask = if masked { MASKED } else { 0 };
    out.push(BINARY);
    if payload.len() < usize::from(LENGTH_16) {
        out.push(mask | payload.len() as u8);
    } else {
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        out.push(mask | LENGTH_16);
        out.extend_from_slice(&length.to_be_bytes());
    }
    if masked {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(payload);
}

/// The payload of the client's message at the start of `bytes`, and how long the whole is.
/// `Ok(None)`: more bytes are needed.
///
/// # Errors
/// It is not what [`write`] writes for a client.
pub fn read(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, &'static str> {
    let (length, head) = match bytes {
        [] | [_] => return Ok(None),
        [BINARY, second, ..] if second & MASKED == 0 => return Err("a frame without a mask"),
        [BINARY, second, rest @ ..] => match (second & !MASKED, rest) {
            (LENGTH_16, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 8),
            (LENGTH_16, _) => return Ok(None),
            (127, _) => return Err("a frame that is too long"),
            (length, _) => (usize::from(length), 6),
        },
        _ => return Err("not a binary message"),
    };
    if bytes.len() < head + length {
        return Ok(None);
    }
    if bytes[head - 4..head] != [0; 4] {
        return Err("a mask that nobody sends");
    }
    Ok(Some((&bytes[head..head + length], head + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_the_one_of_the_rfc() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn a_message_is_read_as_it_was_written_and_never_early() {
        for length in [0, 64, 125, 126, 1000, LONGEST] {
            let payload = vec![7; length];
            let mut frame = Vec::new();
            write(&payload, true, &mut frame);
            for cut in [1, 2, 3, 7, frame.len() - 1] {
                let cut = cut.min(frame.len() - 1);
                assert_eq!(read(&frame[..cut]), Ok(None), "{length} cut at {cut}");
            }
            let whole = frame.len();
            frame.push(BINARY);
            assert_eq!(read(&frame), Ok(Some((&payload[..], whole))));
        }
    }

    #[test]
    fn what_a_server_would_send_is_refused() {
        let mut frame = Vec::new();
        write(b"hello", false, &mut frame);
        assert!(read(&frame).is_err());
        assert!(read(&[0x81, 0x80]).is_err());
    }
}
