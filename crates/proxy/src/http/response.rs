//! Response heads of machines (RFC 9112 sections 4 and 6). A machine is hostile: whatever could
//! be read in two ways is refused.

use super::connection::{BadOption, Options};
use super::fields::{self, Field, Name};
use super::framing::{self, Coding};
use super::lines::{Found, Lines};
use super::{Asked, Framing, Invalid, Progress, Version};
use crate::limits::Limits;

/// The head is over [`Limits::response_head`].
pub const HEAD_TOO_LARGE: Invalid = Invalid("the head is too large");
/// The head has over [`Limits::response_fields`] fields.
pub const TOO_MANY_FIELDS: Invalid = Invalid("the head has too many fields");

/// A response head, as offsets into the bytes it was parsed from. Made to be used again.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    pub version: Version,
    /// 100 to 599.
    pub status: u16,
    /// The reason phrase as sent; may be empty.
    pub reason: fields::Span,
    /// How the body is delimited, the request's method taken into account.
    pub framing: Framing,
    /// The machine lets the connection be used again after this response.
    pub keep_alive: bool,
    /// The field lines, in order.
    pub fields: Vec<Field>,

    // Where parsing goes on after Partial.
    stage: Stage,
    lines: Lines,
    coding: Coding,
    length: Option<u64>,
    /// A Content-Length that is invalid or repeated; matters only without Transfer-Encoding.
    bad_length: bool,
    options: Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Line,
    Fields,
    Done,
}

/// Parses the response head at the start of `bytes`, the answer to `asked`.
///
/// Called as [`super::request::parse`] is. A head with an interim status
/// ([`ResponseHead::is_interim`]) is followed by another head.
///
/// # Errors
/// [`Invalid`] when the response cannot be passed on; the same however the bytes were cut.
pub fn parse(
    bytes: &[u8],
    limits: &Limits,
    asked: &Asked,
    head: &mut ResponseHead,
) -> Result<Progress, Invalid> {
    if head.stage == Stage::Done {
        head.clear();
    }
    let outcome = head.advance(bytes, limits, asked);
    if !matches!(outcome, Ok(Progress::Partial)) {
        head.stage = Stage::Done;
    }
    outcome
}

impl ResponseHead {
    /// An empty head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything but the room of the fields.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    /// Another response follows this one: 1xx, but for 101, which ends HTTP on the connection.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Transfer-Encoding is there, so that Content-Length means nothing.
    pub fn is_coded(&self) -> bool {
        self.coding != Coding::Absent
    }

    /// It speaks of a body that it must not have: the answer to HEAD, or a 304.
    pub fn withholds_body(&self) -> bool {
        self.framing == Framing::None && self.is_framed()
    }

    fn is_framed(&self) -> bool {
        self.is_coded() || self.length.is_some_and(|length| length > 0)
    }

    fn advance(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        asked: &Asked,
    ) -> Result<Progress, Invalid> {
        loop {
            let (start, end, ending) = match self.lines.next(bytes, limits.response_head) {
                Found::Line { start, end, crlf } => (start, end, if crlf { 2 } else { 1 }),
                Found::Partial => return Ok(Progress::Partial),
                Found::TooLong => return Err(HEAD_TOO_LARGE),
            };
            match self.stage {
                Stage::Line => {
                    self.status_line(bytes, start, end)?;
                    self.stage = Stage::Fields;
                }
                _ if start == end => {
                    self.finish(bytes, asked)?;
                    return Ok(Progress::Whole(self.lines.start));
                }
                _ => self.field_line(bytes, start, end, ending, limits)?,
            }
        }
    }

    fn status_line(&mut self, bytes: &[u8], start: usize, end: usize) -> Result<(), Invalid> {
        let malformed = Invalid("the status line is malformed");
        let line = bytes.get(start..end).unwrap_or_default();
        let (version, rest) = line.split_at_checked(9).ok_or(malformed)?;
        self.version = match version {
            b"HTTP/1.1 " => Version::Http11,
            b"HTTP/1.0 " => Version::Http10,
            _ => return Err(malformed),
        };
        // The space before an empty reason is often left out.
        let (digits, reason) = match rest {
            [a, b, c] => ([a, b, c], &[][..]),
            [a, b, c, b' ', reason @ ..] => ([a, b, c], reason),
            _ => return Err(malformed),
        };
        if !digits.iter().all(|digit| digit.is_ascii_digit()) || !fields::is_value(reason) {
            return Err(malformed);
        }
        self.status = digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
        if !(100..=599).contains(&self.status) {
            return Err(Invalid("the status is unknown"));
        }
        self.reason = fields::Span::new(end - reason.len(), end);
        Ok(())
    }

    fn field_line(
        &mut self,
        bytes: &[u8],
        start: usize,
        end: usize,
        ending: usize,
        limits: &Limits,
    ) -> Result<(), Invalid> {
        if self.fields.len() >= limits.response_fields {
            return Err(TOO_MANY_FIELDS);
        }
        let field = fields::parse(bytes, start, end, ending, true).map_err(|bad| Invalid(bad.0))?;
        let value = field.value.of(bytes);
        match field.known {
            Name::ContentLength => {
                self.bad_length |= self.length.is_some();
                self.length = framing::length(value);
                self.bad_length |= self.length.is_none();
            }
            Name::TransferEncoding => self.coding = self.coding.add(value),
            Name::Connection => match self.options.add(value) {
                Ok(()) => {}
                Err(BadOption::TooMany) => return Err(Invalid("Connection is too long")),
                // The client gets a Connection of our own making; but who writes such a thing
                // is not trusted to keep the next response apart.
                Err(_) => self.options.close = true,
            },
            _ => {}
        }
        self.fields.push(field);
        Ok(())
    }

    fn finish(&mut self, bytes: &[u8], asked: &Asked) -> Result<(), Invalid> {
        if self.status == 101 && !asked.upgrade {
            return Err(Invalid("101 was not asked for"));
        }
        let framing = match self.coding {
            Coding::Chunked if self.version == Version::Http11 => Framing::Chunked,
            Coding::Absent if self.bad_length => return Err(Invalid("Content-Length is invalid")),
            Coding::Absent => match self.length {
                Some(length) => Framing::Length(length),
                None => Framing::UntilClose,
            },
            // On HTTP/1.0 the framing is faulty (RFC 9112 section 6.1).
            _ => return Err(Invalid("Transfer-Encoding is invalid")),
        };
        let bodiless = asked.head || self.status < 200 || matches!(self.status, 204 | 304);
        self.framing = if bodiless { Framing::None } else { framing };
        self.options.mark(bytes, &mut self.fields);
        let lasting = self.version == Version::Http11 || self.options.keep_alive;
        // A 204 that frames a body (RFC 9112 section 6.1 forbids it) will be followed by one.
        let faulty = self.status == 204 && self.is_framed();
        self.keep_alive =
            lasting && !faulty && !self.options.close && self.framing != Framing::UntilClose;
        Ok(())
    }
}
