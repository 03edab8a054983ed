//! A strict reader of messages, as the one behind the proxy that is the hardest to please: what it
//! takes can be understood in one way only.

use crate::chunks::{self, Bounds, Read};

/// One message. Lines are as they stand, without CRLF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub start: Vec<u8>,
    /// Names in lower case, and values.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Vec<Vec<u8>>,
    /// The body is there to its end.
    pub whole: bool,
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// What a body is read by, where the message alone does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A request, or a response that frames its body.
    Framed,
    /// None, whatever the fields say: answers to HEAD, 1xx, 204, 304.
    NoBody,
    /// A response; without framing, all up to the end.
    UntilClose,
}

impl Message {
    /// The values of the field `name`, which is in lower case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |(other, _)| other == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    }

    /// The value of a field that is there once.
    ///
    /// # Panics
    /// It is there twice.
    pub fn one<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        let mut all = self.all(name);
        let first = all.next();
        assert!(all.next().is_none(), "{name} is there twice");
        first
    }
}

/// Reads the message at the start of `bytes`, whose head must be whole; gives it and the bytes
/// that it took.
///
/// # Errors
/// What in it is not as it has to be.
pub fn message(bytes: &[u8], expect: Expect) -> Result<(Message, usize), &'static str> {
    let end = position(bytes, b"\r\n\r\n").ok_or("the head does not end")?;
    let mut lines = Vec::new();
    let mut rest = &bytes[..end];
    while let Some(length) = position(rest, b"\r\n") {
        lines.push(&rest[..length]);
        rest = &rest[length + 2..];
    }
    lines.push(rest);
    let (start, lines) = lines.split_first().ok_or("there is no start line")?;
    if !is_value(start) {
        return Err("the start line holds a control character");
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = value_of(line).ok_or("a field line is malformed")?;
        fields.push((name.to_ascii_lowercase(), value.to_vec()));
    }
    let mut message = Message {
        start: start.to_vec(),
        framing: framing(&fields)?,
        fields,
        body: Vec::new(),
        trailers: Vec::new(),
        whole: true,
    };
    let taken = end + 4;
    let rest = &bytes[taken..];
    let length = match (expect, message.framing) {
        (Expect::NoBody, _) | (Expect::Framed, Framing::None) => 0,
        (Expect::UntilClose, Framing::None) => rest.len(),
        (_, Framing::Length(length)) => {
            message.whole = rest.len() as u64 >= length;
            usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(rest.len())
        }
        (_, Framing::Chunked) => return chunked(message, rest).map(|(m, n)| (m, taken + n)),
    };
    message.body = rest[..length].to_vec();
    Ok((message, taken + length))
}

fn chunked(mut message: Message, rest: &[u8]) -> Result<(Message, usize), &'static str> {
    const ANY: Bounds = Bounds {
        line: 16,
        trailer_bytes: usize::MAX,
        trailer_lines: usize::MAX,
        body: None,
    };
    match chunks::read(rest, &ANY) {
        Read::Whole {
            data,
            trailers,
            taken,
        } => {
            (message.body, message.trailers) = (data, trailers);
            Ok((message, taken))
        }
        Read::Partial { data } => {
            (message.body, message.whole) = (data, false);
            Ok((message, rest.len()))
        }
        Read::Bad => Err("the chunks are malformed"),
    }
}

/// RFC 9112 section 6.3, with nothing forgiven.
fn framing(fields: &[(Vec<u8>, Vec<u8>)]) -> Result<Framing, &'static str> {
    let all = |name: &[u8]| -> Vec<&[u8]> {
        let named = fields.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| value.as_slice()).collect()
    };
    match (
        all(b"transfer-encoding").as_slice(),
        all(b"content-length").as_slice(),
    ) {
        ([], []) => Ok(Framing::None),
        ([coding], []) if *coding == b"chunked" => Ok(Framing::Chunked),
        ([], [length]) if length.iter().all(u8::is_ascii_digit) => {
            let text = std::str::from_utf8(length).map_err(|_| "no number")?;
            Ok(Framing::Length(text.parse().map_err(|_| "no length")?))
        }
        _ => Err("the framing is not plain"),
    }
}

/// Name and value of a field line; the value without blanks around it.
pub fn value_of(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let blank = |byte: &u8| b" \t".contains(byte);
    let start = value
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(start, |at| at + 1);
    (is_token(name) && is_value(value)).then_some((name, &value[start..end]))
}

/// RFC 9110 section 5.6.2.
pub fn is_token(bytes: &[u8]) -> bool {
    let tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(tchar)
}

/// RFC 9110 section 5.5: no control character but HTAB.
pub fn is_value(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|&byte| byte == b'\t' || !byte.is_ascii_control())
}

/// Where `wanted` first stands.
pub fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
