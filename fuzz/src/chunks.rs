//! The chunked coding, read from a whole buffer, after the grammar of RFC 9112 section 7.1.

use crate::reader::{is_token, is_value, value_of};

/// The bounds that the proxy's decoder has.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub line: usize,
    pub trailer_bytes: usize,
    pub trailer_lines: usize,
    pub body: Option<u64>,
}

/// What a buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A whole body, its trailer lines as they came, and the bytes that it took.
    Whole {
        data: Vec<u8>,
        trailers: Vec<Vec<u8>>,
        taken: usize,
    },
    /// More has to come; so much data was there.
    Partial { data: Vec<u8> },
    /// It is not to be read, whatever comes.
    Bad,
}

/// Reads the body at the start of `bytes`.
pub fn read(bytes: &[u8], bounds: &Bounds) -> Read {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = next_line(bytes, &mut at) else {
            return Read::Partial { data };
        };
        let Some(size) = line.and_then(|line| size_line(line, bounds)) else {
            return Read::Bad;
        };
        if size == 0 {
            break;
        }
        if bounds
            .body
            .is_some_and(|most| size > most - data.len() as u64)
        {
            return Read::Bad;
        }
        let rest = &bytes[at..];
        let there = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        data.extend_from_slice(&rest[..there]);
        match &rest[there..] {
            [b'\r', b'\n', ..] => at += there + 2,
            [] | [b'\r'] => return Read::Partial { data },
            _ => return Read::Bad,
        }
    }
    let (start, mut trailers) = (at, Vec::new());
    loop {
        let Some(line) = next_line(bytes, &mut at) else {
            return Read::Partial { data };
        };
        let Some(line) = line.filter(|_| at - start <= bounds.trailer_bytes) else {
            return Read::Bad;
        };
        if line.is_empty() {
            return Read::Whole {
                data,
                trailers,
                taken: at,
            };
        }
        if trailers.len() == bounds.trailer_lines || value_of(line).is_none() {
            return Read::Bad;
        }
        trailers.push(line.to_vec());
    }
}

/// The line at `at`, which moves behind it: `None` if it has not ended, `Some(None)` if it ends
/// without CR.
fn next_line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Option<&'a [u8]>> {
    let rest = &bytes[*at..];
    let length = rest.iter().position(|&byte| byte == b'\n')?;
    *at += length + 1;
    Some(rest[..length].strip_suffix(b"\r"))
}

/// `1*HEXDIG [chunk-ext]`, at most 16 digits.
fn size_line(line: &[u8], bounds: &Bounds) -> Option<u64> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    if line.len() > bounds.line || !(1..=16).contains(&digits) {
        return None;
    }
    let (size, extensions) = line.split_at(digits);
    are_extensions(extensions).then_some(())?;
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, and no blank at the very end but after a blank
/// that a `;` follows.
fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(after) = trimmed(rest).strip_prefix(b";") else {
            return false;
        };
        let after = trimmed(after);
        let (name, after) = after.split_at(token_length(after));
        if !is_token(name) {
            return false;
        }
        rest = match trimmed(after).strip_prefix(b"=").map(trimmed) {
            None => after,
            Some(value @ [b'"', ..]) => match quoted_length(value) {
                Some(length) => &value[length..],
                None => return false,
            },
            Some(value) => match token_length(value) {
                0 => return false,
                length => &value[length..],
            },
        };
    }
    true
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let blanks = bytes
        .iter()
        .take_while(|byte| b" \t".contains(byte))
        .count();
    &bytes[blanks..]
}

fn token_length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .take_while(|byte| is_token(std::slice::from_ref(byte)))
        .count()
}

/// The length of the quoted string at the start, its quotes included.
fn quoted_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => {
                is_value(bytes.get(at + 1..at + 2)?).then_some(())?;
                at += 2;
            }
            byte => {
                is_value(&[*byte]).then_some(())?;
                at += 1;
            }
        }
    }
}
