//! Cuts of an input into pieces. A function of the input, so that a crash comes again.

/// `input` in pieces at places that its own bytes decide, a few or many.
pub fn some(input: &[u8]) -> Vec<&[u8]> {
    let mut state = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Mean length of the pieces: 2, 8, 32 or 128 bytes.
    let mask = (1 << (1 + 2 * (state >> 62))) * 2 - 1;
    let (mut pieces, mut rest) = (Vec::new(), input);
    while !rest.is_empty() {
        // xorshift64: any sequence does that does not repeat soon.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let length = (1 + (state >> 32 & mask) as usize).min(rest.len());
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Every byte by itself.
pub fn bytes(input: &[u8]) -> Vec<&[u8]> {
    input.chunks(1).collect()
}
