//! Length-prefixed frames for Unix sockets: `u32` big-endian length, then the payload.

use crate::WireError;

/// Bound of one payload, bytes. Larger things (a snapshot of routes) come in parts.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// Appends one frame to `out`.
///
/// # Errors
/// [`WireError::TooLarge`] when `payload` is over [`MAX_PAYLOAD`]; `out` is untouched.
pub fn write(payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(WireError::TooLarge(MAX_PAYLOAD));
    }
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

/// Looks for one frame at the start of `buffer`.
///
/// Returns the payload and how many bytes of `buffer` it took, or `None` when more must be read.
///
/// # Errors
/// [`WireError::TooLarge`] as soon as the length says so; the connection is then of no more use.
pub fn read(buffer: &[u8]) -> Result<Option<(&[u8], usize)>, WireError> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > MAX_PAYLOAD {
        return Err(WireError::TooLarge(MAX_PAYLOAD));
    }
    Ok(buffer
        .get(4..4 + length)
        .map(|payload| (payload, 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_only_when_whole() {
        let mut bytes = Vec::new();
        write(b"abc", &mut bytes).unwrap();
        write(b"", &mut bytes).unwrap();
        for cut in 0..7 {
            assert_eq!(read(&bytes[..cut]).unwrap(), None, "cut at {cut}");
        }
        assert_eq!(read(&bytes).unwrap(), Some((&b"abc"[..], 7)));
        assert_eq!(read(&bytes[7..]).unwrap(), Some((&b""[..], 4)));
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_its_bytes_come() {
        let length = (MAX_PAYLOAD as u32 + 1).to_be_bytes();
        assert_eq!(read(&length), Err(WireError::TooLarge(MAX_PAYLOAD)));
        assert!(write(&vec![0; MAX_PAYLOAD + 1], &mut Vec::new()).is_err());
    }
}
