//! The bytes of bodies. Both ends know them by their place, so nothing is copied or kept to compare.

use std::sync::LazyLock;

/// The sequence repeats after so many bytes: a prime, so that no block of a proxy's buffers lies
/// on the same bytes as the one before it.
const PERIOD: usize = 65_521;
/// Longest run that one slice gives.
const RUN: usize = 1 << 20;

static SEQUENCE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    // A linear congruential generator (Knuth's MMIX constants); its high bits have no short cycle.
    let mut state = 1_u64;
    let period: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(PERIOD)
    .collect();
    period.iter().copied().cycle().take(RUN + PERIOD).collect()
});

/// Bytes from `offset` of a body of `length`; fewer than are left when many are, none at its end.
pub fn from(offset: u64, length: u64) -> &'static [u8] {
    let begin = (offset % PERIOD as u64) as usize;
    let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(RUN);
    &SEQUENCE[begin..begin + left.min(RUN)]
}

/// Whether `bytes` are those that stand at `offset`.
pub fn is_at(mut offset: u64, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let known = from(offset, u64::MAX);
        let count = known.len().min(bytes.len());
        if known[..count] != bytes[..count] {
            return false;
        }
        offset += count as u64;
        bytes = &bytes[count..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let length = 3 * RUN as u64 + 5;
        let mut whole = Vec::new();
        while (whole.len() as u64) < length {
            whole.extend_from_slice(from(whole.len() as u64, length));
        }
        assert_eq!(whole.len() as u64, length);
        assert!(from(length, length).is_empty());
        for begin in [0, 1, PERIOD, RUN - 1, 2 * RUN + 77] {
            assert!(is_at(begin as u64, &whole[begin..]));
        }
    }

    #[test]
    fn a_byte_that_is_lost_doubled_or_changed_is_seen() {
        let body = from(0, 1000).to_vec();
        let lost = [&body[..500], &body[501..]].concat();
        let doubled = [&body[..500], &body[499..]].concat();
        let mut changed = body.clone();
        changed[700] ^= 1;
        assert!(is_at(0, &body) && !is_at(1, &body));
        assert!(!is_at(0, &lost) && !is_at(0, &doubled) && !is_at(0, &changed));
    }
}
