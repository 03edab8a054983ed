//! The little of WebSocket (RFC 6455) that ending a tunnel politely takes.

/// A Close frame of a server with status 1001, going away (sections 5.5.1 and 7.4.1).
pub const CLOSE_GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// Longest frame header: 2 bytes, 8 of length, 4 of mask (section 5.2).
const MAX_HEADER: usize = 14;
/// Opcode of a Close frame.
const CLOSE: u8 = 0x8;

/// Watches the bytes from server to client and knows whether they stand between two frames,
/// where a Close frame may be put in. Looks at headers only.
#[derive(Debug, Clone, Default)]
pub struct FrameWalk {
    header: [u8; MAX_HEADER],
    /// Bytes of the current header seen so far.
    seen: u8,
    /// Bytes of the current frame's payload still to come.
    left: u64,
    closed: bool,
}

impl FrameWalk {
    /// A walk that starts right after the head of the 101.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            if self.left > 0 {
                let there = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.left -= there as u64;
                bytes = bytes.get(there..).unwrap_or_default();
            }
            let Some((&byte, rest)) = bytes.split_first() else {
                return;
            };
            bytes = rest;
            if let Some(place) = self.header.get_mut(usize::from(self.seen)) {
                *place = byte;
            }
            self.seen += 1;
            if let Some(length) = self.payload() {
                self.closed |= self.header[0] & 0x0f == CLOSE;
                self.left = length;
                self.seen = 0;
            }
        }
    }

    /// Whether [`CLOSE_GOING_AWAY`] may be written now: the stream stands between frames and the
    /// server has not closed it already.
    pub fn may_close(&self) -> bool {
        self.seen == 0 && self.left == 0 && !self.closed
    }

    /// The payload's length, once the header is whole.
    fn payload(&self) -> Option<u64> {
        let [_, second, a, b, c, d, e, f, g, h, ..] = self.header;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (size, length) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes([a, b]))),
            127 => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
            short => (2, u64::from(short)),
        };
        (self.seen >= 2 && self.seen >= size + mask).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, mask: bool) -> Vec<u8> {
        let bit = if mask { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..=125 => bytes.push(bit | length as u8),
            126..=65535 => {
                bytes.push(bit | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(bit | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(0x88, length + if mask { 4 } else { 0 }));
        bytes
    }

    #[test]
    fn only_the_ends_of_frames_are_between_frames() {
        for mask in [false, true] {
            for length in [0, 1, 125, 126, 300, 65536] {
                let bytes = frame(2, length, mask);
                let mut walk = FrameWalk::new();
                assert!(walk.may_close());
                for (at, byte) in bytes.iter().enumerate() {
                    walk.feed(&[*byte]);
                    assert_eq!(walk.may_close(), at + 1 == bytes.len(), "{length} at {at}");
                }
                let mut walk = FrameWalk::new();
                let twice = [bytes.as_slice(), bytes.as_slice()].concat();
                walk.feed(&twice);
                assert!(walk.may_close());
                walk.feed(&twice[..bytes.len() - 1]);
                assert!(!walk.may_close() || bytes.len() == 1);
            }
        }
    }

    #[test]
    fn nothing_is_sent_after_a_close() {
        let mut walk = FrameWalk::new();
        walk.feed(&CLOSE_GOING_AWAY);
        assert!(!walk.may_close());
    }

    #[test]
    fn the_longest_length_does_not_overflow() {
        let mut walk = FrameWalk::new();
        walk.feed(&[
            0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4,
        ]);
        walk.feed(&[0; 1000]);
        assert!(!walk.may_close());
    }
}
