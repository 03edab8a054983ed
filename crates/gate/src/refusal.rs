//! Saying no to the guest, so that its programs fail at once and do not wait.
//!
//! A reset for TCP (RFC 9293, 3.5.2), ICMP's "communication administratively prohibited" for UDP
//! (RFC 1812, 5.2.7.1).

use crate::frame::{ETHERNET, ICMP, IPV4, TCP, UDP};

const HEADER: usize = 20;
const TTL: u8 = 64;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// Destination unreachable; communication administratively prohibited.
const PROHIBITED: [u8; 2] = [3, 13];

/// The answer to a frame that does not pass; none to what is no whole packet of IPv4 with a port, or
/// is itself an answer of this kind.
pub fn of(frame: &[u8]) -> Option<Vec<u8>> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET)?;
    let header: &[u8; HEADER] = packet.first_chunk()?;
    let length = usize::from(header[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let payload = packet.get(..total)?.get(length..)?;
    if ethernet[12..] != IPV4 || header[0] >> 4 != 4 || length < HEADER {
        return None;
    }
    let (protocol, body) = match header[9] {
        TCP => (TCP, reset(header, payload)?),
        UDP => (ICMP, prohibited(packet.get(..length + 8)?)),
        _ => return None,
    };
    let mut answer = Vec::with_capacity(ETHERNET + HEADER + body.len());
    answer.extend(&ethernet[6..12]);
    answer.extend(&ethernet[..6]);
    answer.extend(IPV4);
    let at = answer.len();
    answer.extend([0x45, 0]);
    answer.extend(((HEADER + body.len()) as u16).to_be_bytes());
    answer.extend([0, 0, 0x40, 0, TTL, protocol, 0, 0]);
    // As from whom it was for.
    answer.extend(&header[16..20]);
    answer.extend(&header[12..16]);
    let sum = checksum(&[&answer[at..]]);
    answer[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    answer.extend(body);
    Some(answer)
}

/// passt of 2023 refuses connections by resets that say what they acknowledge, but not that they do:
/// no guest believes those, and waits. This one says it.
pub fn mend(frame: &mut [u8]) {
    let is_tcp = frame.get(12..14) == Some(&IPV4) && frame.get(23) == Some(&TCP);
    let length = usize::from(frame.get(ETHERNET).copied().unwrap_or(0) & 15) * 4;
    let Some(segment) = frame.get_mut(ETHERNET + length..) else {
        return;
    };
    if !is_tcp || segment.len() < HEADER {
        return;
    }
    let acknowledges = segment[8..12] != [0; 4];
    if segment[13] & (RST | ACK) == RST && acknowledges {
        segment[13] |= ACK;
        // RFC 1624, [Eqn. 3], for one word that grew by a bit.
        let old = u16::from_be_bytes([segment[16], segment[17]]);
        let sum = u32::from(!old) + u32::from(ACK);
        let new = !(((sum & 0xffff) + (sum >> 16)) as u16);
        segment[16..18].copy_from_slice(&new.to_be_bytes());
    }
}

/// The reset of a connection by which `segment` has come, with its checksum.
fn reset(header: &[u8; HEADER], segment: &[u8]) -> Option<Vec<u8>> {
    let fixed: &[u8; HEADER] = segment.first_chunk()?;
    let flags = fixed[13];
    if flags & RST != 0 {
        return None;
    }
    let word =
        |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let data = segment
        .len()
        .saturating_sub(usize::from(fixed[12] >> 4) * 4) as u32;
    let taken = data + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let (sequence, acknowledged, flags) = if flags & ACK != 0 {
        (word(8), 0, RST)
    } else {
        (0, word(4).wrapping_add(taken), RST | ACK)
    };
    let mut made = Vec::with_capacity(HEADER);
    made.extend(&fixed[2..4]);
    made.extend(&fixed[..2]);
    made.extend(sequence.to_be_bytes());
    made.extend(acknowledged.to_be_bytes());
    made.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    let pseudo = [0, TCP, 0, HEADER as u8];
    let sum = checksum(&[&header[12..20], &pseudo, &made]);
    made[16..18].copy_from_slice(&sum.to_be_bytes());
    Some(made)
}

/// With the header and eight bytes of what was sent (RFC 792).
fn prohibited(sent: &[u8]) -> Vec<u8> {
    let mut made = Vec::with_capacity(8 + sent.len());
    made.extend(PROHIBITED);
    made.extend([0; 6]);
    made.extend(sent);
    let sum = checksum(&[&made]);
    made[2..4].copy_from_slice(&sum.to_be_bytes());
    made
}

/// RFC 1071; each part has an even number of bytes.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment or datagram from 10.213.77.15 to 127.0.0.1, port 0x8000 to 80.
    fn sent(protocol: u8, rest: &[u8]) -> Vec<u8> {
        let total = (HEADER + 4 + rest.len()) as u8;
        let packet = [
            &[
                0x45, 0, 0, total, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 213, 77, 15, 127, 0, 0, 1,
            ],
            &[0x80, 0, 0, 80][..],
            rest,
        ]
        .concat();
        [&[1; 6][..], &[2; 6], &IPV4, &packet].concat()
    }

    fn segment(flags: u8, data: &[u8]) -> Vec<u8> {
        let head = [0, 0, 0x10, 0, 0, 0, 0x20, 0, 0x50, flags, 1, 0, 0, 0, 0, 0];
        sent(TCP, &[&head[..], data].concat())
    }

    /// Ports, addresses and checksums are right; what follows TCP's ports.
    fn of_tcp(answer: &[u8]) -> (u32, u32, u8) {
        assert_eq!(answer[..14], [&[2; 6][..], &[1; 6], &IPV4].concat());
        let (header, segment) = answer[14..].split_at(HEADER);
        assert_eq!(checksum(&[header]), 0);
        assert_eq!(header[12..], [127, 0, 0, 1, 10, 213, 77, 15]);
        assert_eq!(usize::from(header[3]), header.len() + segment.len());
        assert_eq!(checksum(&[&header[12..], &[0, TCP, 0, 20], segment]), 0);
        assert_eq!(segment[..4], [0, 80, 0x80, 0]);
        let word = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
        (word(4), word(8), segment[13])
    }

    #[test]
    fn a_connection_is_reset_as_its_peer_would() {
        let answer = of(&segment(SYN, b"")).unwrap();
        assert_eq!(of_tcp(&answer), (0, 0x1001, RST | ACK));
        let answer = of(&segment(FIN, b"four")).unwrap();
        assert_eq!(of_tcp(&answer), (0, 0x1005, RST | ACK));
        let answer = of(&segment(ACK, b"four")).unwrap();
        assert_eq!(of_tcp(&answer), (0x2000, 0, RST));
        assert_eq!(of(&segment(RST, b"")), None);
    }

    #[test]
    fn a_datagram_is_told_to_be_prohibited() {
        let datagram = sent(UDP, &[0, 12, 0, 0, 1, 2, 3, 4]);
        let answer = of(&datagram).unwrap();
        let (header, message) = answer[14..].split_at(HEADER);
        assert_eq!(
            (header[9], checksum(&[header]), checksum(&[message])),
            (ICMP, 0, 0)
        );
        assert_eq!(message[..2], PROHIBITED);
        assert_eq!(message[8..], datagram[14..14 + 28]);
    }

    #[test]
    fn nothing_is_said_to_what_is_not_whole() {
        for frame in [segment(SYN, b""), sent(UDP, &[0, 8, 0, 0])] {
            for length in 0..frame.len() {
                assert_eq!(of(&frame[..length]), None, "{length}");
            }
        }
        let mut wrong = segment(SYN, b"");
        wrong[12] = 0x86;
        assert_eq!(of(&wrong), None);
        assert_eq!(of(&sent(ICMP, &[0; 8])), None);
    }

    #[test]
    fn a_reset_is_mended_and_all_else_left() {
        let sum = |frame: &[u8]| {
            checksum(&[
                &frame[26..34],
                &[0, TCP, 0, (frame.len() - 34) as u8],
                &frame[34..],
            ])
        };
        let mut reset = segment(RST, b"");
        let right = sum(&reset);
        reset[50..52].copy_from_slice(&right.to_be_bytes());
        assert_eq!(sum(&reset), 0);
        mend(&mut reset);
        assert_eq!((reset[47], sum(&reset)), (RST | ACK, 0));
        let mut nothing = segment(RST, b"");
        nothing[42..46].fill(0);
        for frame in [
            reset,
            nothing,
            segment(SYN, b""),
            sent(UDP, &[4; 30]),
            vec![4; 30],
            vec![],
        ] {
            let mut mended = frame.clone();
            mend(&mut mended);
            assert_eq!(mended, frame);
        }
    }
}
