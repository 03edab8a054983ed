//! The chunked coding (RFC 9112 section 7.1), decoded over any split of the input without
//! copying data, and the pieces to write it anew.

use std::ops::Range;

use super::fields::{self, Name};
use super::{Part, Reject};
use crate::limits::Limits;

/// A chunk's line is over [`Limits::chunk_line`].
pub const LINE_TOO_LONG: Reject = Reject::Bad("a chunk extension is too long");

/// What [`Decoder::next`] found at the start of its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// All of the input was taken and held no more data; feed what comes after it.
    More,
    /// Data of the body: this range of the input, never empty. Feed on at its end.
    Data(Range<usize>),
    /// The body ended; so many bytes of the input were taken, the rest is not the body's.
    /// [`Decoder::trailers`] are whole.
    End(usize),
}

/// Reads one chunked body. Small: a connection can hold it.
///
/// ```
/// use hyperfleet_proxy::http::chunked::{Decoder, Step};
/// use hyperfleet_proxy::limits::Limits;
///
/// let limits = Limits::default();
/// let mut decoder = Decoder::request(&limits);
/// let input = b"5\r\nhello\r\n0\r\n\r\n";
/// assert_eq!(decoder.next(input, &limits), Ok(Step::Data(3..8)));
/// assert_eq!(decoder.next(&input[8..], &limits), Ok(Step::End(7)));
/// ```
#[derive(Debug, Clone)]
pub struct Decoder {
    state: State,
    /// Bytes of the chunk that are still to come.
    left: u64,
    /// Bytes that chunks yet to be announced may have; `None`: any number.
    allowed: Option<u64>,
    /// Bytes seen of the current size line, and hex digits among them.
    line: usize,
    digits: u8,
    /// Trailer lines that are passed on, then the line that is being read.
    trailers: Vec<u8>,
    kept: usize,
    /// Bytes and lines of all trailers, the dropped ones too.
    trailer_bytes: usize,
    trailer_lines: usize,
}

/// Places in `chunk-size [chunk-ext] CRLF data CRLF … trailers CRLF`. BWS is the blank space
/// that the grammar allows around the `;` and `=` of an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    /// BWS, a `;` has to follow.
    BeforeSemicolon,
    /// BWS after `;`, a name has to follow.
    BeforeName,
    Name,
    /// BWS after a name: `=`, or `;` of the next extension.
    AfterName,
    /// BWS after `=`.
    BeforeValue,
    Value,
    Quoted,
    /// After `\` in a quoted string.
    QuotedPair,
    /// After the closing quote.
    AfterQuoted,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    Done,
    /// An error was told.
    Broken(Reject),
}

impl Decoder {
    /// A decoder at the start of a request's body, which `limits.body` bounds.
    pub fn request(limits: &Limits) -> Self {
        Self::new(limits.body)
    }

    /// A decoder at the start of a response's body, which may be of any length.
    pub fn response() -> Self {
        Self::new(None)
    }

    fn new(allowed: Option<u64>) -> Self {
        Self {
            state: State::Size,
            left: 0,
            allowed,
            line: 0,
            digits: 0,
            trailers: Vec::new(),
            kept: 0,
            trailer_bytes: 0,
            trailer_lines: 0,
        }
    }

    /// The body is read to its end.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer lines to pass on, each with its CRLF; those that frame, route or authenticate
    /// are left out. Whole after [`Step::End`].
    pub fn trailers(&self) -> &[u8] {
        self.trailers.get(..self.kept).unwrap_or_default()
    }

    /// Reads on. Each byte is looked at once, however the body is split.
    ///
    /// # Errors
    /// `Bad` (400) for invalid framing, `TooLarge` for a body over its limit or trailers over the
    /// head's limits; the same again at every further call. Of a response it means that the body
    /// is broken off.
    pub fn next(&mut self, input: &[u8], limits: &Limits) -> Result<Step, Reject> {
        let step = self.advance(input, limits);
        if let Err(reject) = step {
            self.state = State::Broken(reject);
        }
        step
    }

    fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Step, Reject> {
        let mut at = 0;
        loop {
            match self.state {
                State::Data => {
                    let there = input.len().saturating_sub(at);
                    if there == 0 {
                        return Ok(Step::More);
                    }
                    let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(there);
                    self.left -= take as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step::Data(at..at + take));
                }
                State::Trailer => {
                    let rest = input.get(at..).unwrap_or_default();
                    let Some(taken) = self.trailer(rest, limits)? else {
                        return Ok(Step::More);
                    };
                    at += taken;
                }
                State::Done => return Ok(Step::End(at)),
                State::Broken(reject) => return Err(reject),
                _ => {
                    let Some(&byte) = input.get(at) else {
                        return Ok(Step::More);
                    };
                    at += 1;
                    self.state = self.framing(byte, limits)?;
                }
            }
        }
    }

    /// One byte of a size line or of the CRLF after data.
    fn framing(&mut self, byte: u8, limits: &Limits) -> Result<State, Reject> {
        match (self.state, byte) {
            (State::DataCr, b'\r') => return Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line = 0;
                self.digits = 0;
                return Ok(State::Size);
            }
            (State::DataCr | State::DataLf, _) => {
                return Err(Reject::Bad("a chunk is not followed by CRLF"));
            }
            (State::SizeLf, b'\n') => return self.size_line(),
            (State::SizeLf, _) => return Err(Reject::Bad("a bare CR ends a chunk size")),
            _ => {}
        }
        if byte != b'\r' {
            self.line += 1;
            if self.line > limits.chunk_line {
                return Err(LINE_TOO_LONG);
            }
        }
        if self.state == State::Size {
            return self.size(byte);
        }
        extension(self.state, byte).ok_or(Reject::Bad("a chunk extension is invalid"))
    }

    fn size(&mut self, byte: u8) -> Result<State, Reject> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.digits > 0 => return Ok(State::SizeLf),
            b';' if self.digits > 0 => return Ok(State::BeforeName),
            b' ' | b'\t' if self.digits > 0 => return Ok(State::BeforeSemicolon),
            _ => return Err(Reject::Bad("a chunk size is invalid")),
        };
        self.digits += 1;
        if self.digits > 16 {
            return Err(Reject::Bad("a chunk size is too long"));
        }
        // 16 digits fill the 64 bits exactly: nothing is shifted out.
        self.left = (self.left << 4) | u64::from(digit);
        Ok(State::Size)
    }

    fn size_line(&mut self) -> Result<State, Reject> {
        if self.left == 0 {
            return Ok(State::Trailer);
        }
        if let Some(allowed) = self.allowed {
            let rest = allowed.checked_sub(self.left);
            self.allowed = Some(rest.ok_or(Reject::TooLarge(Part::Body))?);
        }
        Ok(State::Data)
    }

    /// Takes trailer bytes up to the next line's end, which may be the empty line; `None` when
    /// all of `input` was taken and no line has ended.
    fn trailer(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        let too_large = Reject::TooLarge(Part::Head);
        let lf = memchr::memchr(b'\n', input);
        let taken = lf.map_or(input.len(), |lf| lf + 1);
        self.trailer_bytes = self.trailer_bytes.saturating_add(taken);
        if self.trailer_bytes > limits.head {
            return Err(too_large);
        }
        self.trailers
            .extend_from_slice(input.get(..taken).unwrap_or_default());
        if lf.is_none() {
            return Ok(None);
        }
        let end = match self.trailers.get(self.kept..) {
            Some([line @ .., b'\r', b'\n']) => self.kept + line.len(),
            _ => return Err(Reject::Bad("a line ends without CR")),
        };
        if end == self.kept {
            self.trailers.truncate(end);
            self.state = State::Done;
            return Ok(Some(taken));
        }
        self.trailer_lines += 1;
        if self.trailer_lines > limits.fields {
            return Err(too_large);
        }
        let field = fields::parse(&self.trailers, self.kept, end, 2, false)
            .map_err(|bad| Reject::Bad(bad.0))?;
        if may_trail(field.known, field.name.of(&self.trailers)) {
            self.kept = self.trailers.len();
        } else {
            self.trailers.truncate(self.kept);
        }
        Ok(Some(taken))
    }
}

/// Where `byte` leads from a place within a chunk extension.
fn extension(state: State, byte: u8) -> Option<State> {
    let token = fields::is_token_byte(byte);
    let blank = matches!(byte, b' ' | b'\t');
    Some(match (state, byte) {
        (State::BeforeSemicolon, b';') => State::BeforeName,
        (State::BeforeSemicolon, _) if blank => State::BeforeSemicolon,
        (State::BeforeName, _) if blank => State::BeforeName,
        (State::BeforeName | State::Name, _) if token => State::Name,
        (State::Name | State::AfterName, b'=') => State::BeforeValue,
        (State::Name | State::Value | State::AfterQuoted, b'\r') => State::SizeLf,
        (State::Name | State::AfterName | State::Value | State::AfterQuoted, b';') => {
            State::BeforeName
        }
        (State::Name | State::AfterName, _) if blank => State::AfterName,
        (State::BeforeValue, _) if blank => State::BeforeValue,
        (State::BeforeValue, b'"') => State::Quoted,
        (State::BeforeValue | State::Value, _) if token => State::Value,
        (State::Value | State::AfterQuoted, _) if blank => State::BeforeSemicolon,
        (State::Quoted, b'"') => State::AfterQuoted,
        (State::Quoted, b'\\') => State::QuotedPair,
        (State::Quoted, _) if fields::is_value(&[byte]) => State::Quoted,
        (State::QuotedPair, _) if fields::is_value(&[byte]) => State::Quoted,
        _ => return None,
    })
}

/// Whether a trailer is passed on: not what frames, routes or authenticates, nor what belongs to
/// one hop or tells how the body is to be read (RFC 9110 section 6.5.1).
fn may_trail(known: Name, name: &[u8]) -> bool {
    const DROPPED: [&str; 14] = [
        "authentication-info",
        "authorization",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "location",
        "max-forwards",
        "proxy-authentication-info",
        "range",
        "set-cookie",
        "set-cookie2",
        "trailer",
        "www-authenticate",
    ];
    known == Name::Other
        && !DROPPED
            .iter()
            .any(|dropped| name.eq_ignore_ascii_case(dropped.as_bytes()))
}

/// Appends the size line of a chunk of `length` bytes, which must not be 0. The data and
/// [`CHUNK_END`] follow.
pub fn write_size(length: usize, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(HEX[(length >> (4 * place)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// What follows a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Appends the end of a chunked body with `trailers` ([`Decoder::trailers`], or none).
pub fn write_end(trailers: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data, trailers and bytes left over of `input`, fed in pieces of `size`.
    fn decode(input: &[u8], size: usize) -> Result<(Vec<u8>, Vec<u8>, usize), Reject> {
        let limits = Limits::default();
        let (mut decoder, mut data, mut taken) = (Decoder::response(), Vec::new(), 0);
        for piece in input.chunks(size) {
            let mut at = 0;
            while !decoder.is_done() {
                match decoder.next(&piece[at..], &limits)? {
                    Step::More => at = piece.len(),
                    Step::Data(range) => {
                        data.extend_from_slice(&piece[at..][range.clone()]);
                        at += range.end;
                    }
                    Step::End(end) => at += end,
                }
                if at == piece.len() {
                    break;
                }
            }
            taken += at;
        }
        assert!(decoder.is_done());
        Ok((data, decoder.trailers().to_vec(), input.len() - taken))
    }

    #[test]
    fn any_split_gives_the_same() {
        let input =
            b"3;a=\"b\\\"c\"\r\nfoo\r\n0000a\r\n0123456789\r\n0\r\nX-A: b\r\nHost: h\r\n\r\nrest";
        let expected = Ok((b"foo0123456789".to_vec(), b"X-A: b\r\n".to_vec(), 4));
        for size in 1..=input.len() {
            assert_eq!(decode(input, size), expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_error_stays() {
        let limits = Limits::default();
        let mut decoder = Decoder::response();
        let error = decoder.next(b"x", &limits);
        assert!(error.is_err());
        for _ in 0..1000 {
            assert_eq!(decoder.next(b"0\r\n\r\n", &limits), error);
        }
    }

    #[test]
    fn only_requests_are_bounded() {
        let limits = Limits {
            body: Some(4),
            ..Limits::default()
        };
        let too_large = Err(Reject::TooLarge(Part::Body));
        assert_eq!(Decoder::request(&limits).next(b"5\r\n", &limits), too_large);
        let largest = b"ffffffffffffffff\r\nx";
        assert_eq!(Decoder::request(&limits).next(largest, &limits), too_large);
        assert_eq!(
            Decoder::response().next(largest, &limits),
            Ok(Step::Data(18..19))
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for length in [1, 15, 16, 255, 256, 65536, 70000] {
            let mut out = Vec::new();
            write_size(length, &mut out);
            assert_eq!(out, format!("{length:x}\r\n").into_bytes());
            out.extend(std::iter::repeat_n(b'x', length));
            out.extend_from_slice(CHUNK_END);
            write_end(b"X-A: b\r\n", &mut out);
            let (data, trailers, left) = decode(&out, out.len()).unwrap();
            assert_eq!(
                (data.len(), &trailers[..], left),
                (length, &b"X-A: b\r\n"[..], 0)
            );
        }
        let mut out = Vec::new();
        write_size(usize::MAX, &mut out);
        assert_eq!(out, b"ffffffffffffffff\r\n");
    }
}
