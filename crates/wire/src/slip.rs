//! Self-delimiting frames for the virtio-serial port: SLIP (RFC 1055) around
//! `version | payload | crc32`.
//!
//! END (0xC0) stands before and after each frame and nowhere else, so whoever starts in the
//! middle is in step again at the next END; what was cut fails its checksum and is dropped.

use crate::WireError;

/// Version of the framing, the first byte of each frame.
pub const VERSION: u8 = 1;
/// Bound of one payload, bytes, before escaping.
pub const MAX_PAYLOAD: usize = 256 * 1024;

const END: u8 = 0xC0;
const ESC: u8 = 0xDB;
const ESC_END: u8 = 0xDC;
const ESC_ESC: u8 = 0xDD;

/// Appends one frame to `out`, an END before and after it.
///
/// # Errors
/// [`WireError::TooLarge`] when `payload` is over [`MAX_PAYLOAD`]; `out` is untouched.
pub fn write(payload: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(WireError::TooLarge(MAX_PAYLOAD));
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[VERSION]);
    hasher.update(payload);
    out.reserve(payload.len() + payload.len() / 32 + 12);
    out.push(END);
    escape(&[VERSION], out);
    escape(payload, out);
    escape(&hasher.finalize().to_be_bytes(), out);
    out.push(END);
    Ok(())
}

fn escape(mut bytes: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr::memchr2(END, ESC, bytes) {
        out.extend_from_slice(&bytes[..at]);
        out.extend_from_slice(&[ESC, if bytes[at] == END { ESC_END } else { ESC_ESC }]);
        bytes = &bytes[at + 1..];
    }
    out.extend_from_slice(bytes);
}

/// Takes bytes as they come and gives whole payloads. Holds at most one bounded frame.
#[derive(Default)]
pub struct Reader {
    frame: Vec<u8>,
    escaped: bool,
    /// The frame being read has outgrown the bound; its bytes are dropped up to the next END.
    overlong: bool,
}

impl Reader {
    /// A reader that starts between frames.
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds `input` and calls `each` with every payload, or with what was wrong with a frame.
    /// After an error the reader goes on at the next END.
    pub fn feed(&mut self, mut input: &[u8], mut each: impl FnMut(Result<&[u8], WireError>)) {
        while !input.is_empty() {
            let end = memchr::memchr(END, input);
            self.take(&input[..end.unwrap_or(input.len())]);
            let Some(end) = end else { return };
            input = &input[end + 1..];
            let overlong = std::mem::take(&mut self.overlong);
            let dangling = std::mem::take(&mut self.escaped);
            if overlong {
                each(Err(WireError::TooLarge(MAX_PAYLOAD)));
            } else if dangling {
                each(Err(WireError::Corrupt("it ends within an escape")));
            } else if !self.frame.is_empty() {
                each(check(&self.frame));
            }
            self.frame.clear();
        }
    }

    /// Unescapes what stands between two ENDs, or a piece of it.
    fn take(&mut self, mut bytes: &[u8]) {
        while let (false, Some(&first)) = (self.overlong, bytes.first()) {
            if std::mem::take(&mut self.escaped) {
                // Any other byte after ESC is kept as it is: the checksum tells.
                self.keep(&[match first {
                    ESC_END => END,
                    ESC_ESC => ESC,
                    other => other,
                }]);
                bytes = &bytes[1..];
                continue;
            }
            let plain = memchr::memchr(ESC, bytes).unwrap_or(bytes.len());
            self.keep(&bytes[..plain]);
            self.escaped = plain < bytes.len();
            bytes = &bytes[(plain + 1).min(bytes.len())..];
        }
    }

    fn keep(&mut self, plain: &[u8]) {
        if self.frame.len() + plain.len() > MAX_PAYLOAD + 5 {
            self.overlong = true;
            self.frame.clear();
        } else {
            self.frame.extend_from_slice(plain);
        }
    }
}

fn check(frame: &[u8]) -> Result<&[u8], WireError> {
    let Some((body, crc)) = frame.split_last_chunk::<4>() else {
        return Err(WireError::Corrupt("it is too short"));
    };
    let Some((&version, payload)) = body.split_first() else {
        return Err(WireError::Corrupt("it is too short"));
    };
    if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
        return Err(WireError::Corrupt("its checksum does not match"));
    }
    if version != VERSION {
        return Err(WireError::Unknown(format!(
            "framing version {version}, this side speaks {VERSION}"
        )));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(reader: &mut Reader, bytes: &[u8]) -> Vec<Result<Vec<u8>, WireError>> {
        let mut seen = Vec::new();
        reader.feed(bytes, |frame| seen.push(frame.map(<[u8]>::to_vec)));
        seen
    }

    #[test]
    fn any_bytes_pass_whole_or_one_at_a_time() {
        let payload: Vec<u8> = (0..=255).chain([END, ESC, ESC_END, ESC_ESC]).collect();
        let mut bytes = Vec::new();
        write(&payload, &mut bytes).unwrap();
        write(b"", &mut bytes).unwrap();
        let expected = vec![Ok(payload), Ok(vec![])];
        assert_eq!(read_all(&mut Reader::new(), &bytes), expected);
        let mut reader = Reader::new();
        let mut seen = Vec::new();
        for byte in bytes {
            seen.extend(read_all(&mut reader, &[byte]));
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn half_a_frame_of_the_last_client_costs_that_frame_only() {
        let mut whole = Vec::new();
        write(b"old old old", &mut whole).unwrap();
        let mut next = Vec::new();
        write(b"hello", &mut next).unwrap();
        for cut in 0..whole.len() {
            let mut bytes = whole[..cut].to_vec();
            bytes.extend_from_slice(&next);
            let seen = read_all(&mut Reader::new(), &bytes);
            assert_eq!(seen.last(), Some(&Ok(b"hello".to_vec())), "cut at {cut}");
            assert!(seen.len() <= 2);
        }
    }

    #[test]
    fn a_frame_without_end_holds_no_more_than_the_bound() {
        let mut reader = Reader::new();
        for _ in 0..64 {
            assert!(read_all(&mut reader, &[b'x'; 65536]).is_empty());
            assert!(reader.frame.len() <= MAX_PAYLOAD + 5);
        }
        let mut next = vec![END];
        write(b"hello", &mut next).unwrap();
        assert_eq!(
            read_all(&mut reader, &next),
            vec![Err(WireError::TooLarge(MAX_PAYLOAD)), Ok(b"hello".to_vec())]
        );
    }

    #[test]
    fn another_framing_version_is_named() {
        let mut body = vec![9, b'x'];
        body.extend_from_slice(&crc32fast::hash(&[9, b'x']).to_be_bytes());
        let mut bytes = vec![END];
        escape(&body, &mut bytes);
        bytes.push(END);
        let seen = read_all(&mut Reader::new(), &bytes);
        assert!(matches!(&seen[..], [Err(WireError::Unknown(why))] if why.contains("version 9")));
    }
}
