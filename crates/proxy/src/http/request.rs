//! Request heads (RFC 9112 sections 2, 3, 5 and 6), read strictly.

use super::connection::{BadOption, Options};
use super::fields::{self, Field, Name, Span};
use super::framing::{self, Coding};
use super::host;
use super::lines::{Found, Lines};
pub use super::method::Method;
use super::{Asked, Framing, Part, Progress, Reject, Version};
use crate::limits::Limits;

/// Forms of the request target (RFC 9112 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://authority/path?query`; the authority stands in for Host.
    Absolute,
    /// `*`, of OPTIONS only.
    Asterisk,
}

/// A request head, as offsets into the bytes it was parsed from. Made to be used again: its
/// vector keeps its room.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    pub method: Method,
    /// The method as sent.
    pub method_text: Span,
    pub version: Version,
    pub form: Form,
    /// Path and query as sent; `*` in asterisk form. In absolute form it may lack its first `/`
    /// (`http://a`, `http://a?q`), which [`crate::forward`] then writes.
    pub path: Span,
    /// The authority the client means, port included: of an absolute-form target, else of Host.
    /// `None` only on HTTP/1.0.
    pub authority: Option<Span>,
    /// The host of `authority`, without its port.
    pub host: Span,
    /// How the body is delimited: `None`, `Length` or `Chunked`.
    pub framing: Framing,
    /// The client lets the connection be used again.
    pub keep_alive: bool,
    /// The request asks for an upgrade that is forwarded (never h2c alone).
    pub upgrade: bool,
    /// `Expect: 100-continue`: the client may wait with its body, and never send it after an
    /// answer that is final. Then only a body that has begun can be read away.
    pub expects_continue: bool,
    /// The field lines, in order.
    pub fields: Vec<Field>,

    // Where parsing goes on after Partial.
    stage: Stage,
    lines: Lines,
    empty_line: bool,
    coding: Coding,
    length: Option<u64>,
    options: Options,
    has_host: bool,
    has_upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Line,
    Fields,
    Done,
}

/// Parses the head at the start of `bytes`.
///
/// After [`Progress::Partial`] call again with the same bytes and more behind them: parsing goes
/// on where it stopped. To leave a half-read head and parse other bytes, call
/// [`RequestHead::clear`] first. After any other outcome the next call starts anew by itself.
///
/// # Errors
/// [`Reject`]: the answer to give; the verdict is the same however the bytes were cut.
pub fn parse(bytes: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Progress, Reject> {
    if head.stage == Stage::Done {
        head.clear();
    }
    let outcome = head.advance(bytes, limits);
    if !matches!(outcome, Ok(Progress::Partial)) {
        head.stage = Stage::Done;
    }
    outcome
}

impl RequestHead {
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

    /// What the answer depends on. Also after a [`Reject`], as far as the head was understood:
    /// the connection is then not kept.
    pub fn asked(&self) -> Asked {
        Asked {
            version: self.version,
            head: self.method == Method::Head,
            keep_alive: self.keep_alive,
            upgrade: self.upgrade,
        }
    }

    /// The value of the first field `known`, if there is one.
    pub fn first<'a>(&self, bytes: &'a [u8], known: Name) -> Option<&'a [u8]> {
        let field = self.fields.iter().find(|field| field.known == known)?;
        Some(field.value.of(bytes))
    }

    fn advance(&mut self, bytes: &[u8], limits: &Limits) -> Result<Progress, Reject> {
        loop {
            if self.stage == Stage::Line {
                // What cannot begin a request (a TLS hello, say) is told at its first byte.
                match bytes.get(self.lines.start) {
                    Some(&byte) if !fields::is_token_byte(byte) && byte != b'\r' => {
                        return Err(Reject::Bad("the request line is malformed"));
                    }
                    _ => {}
                }
            }
            let start = self.lines.start;
            let (start, end) = match self.lines.next(bytes, limits.head) {
                Found::Line {
                    start,
                    end,
                    crlf: true,
                } => (start, end),
                Found::Line { start, end, .. } => {
                    self.unended(bytes.get(start..end).unwrap_or_default(), limits)?;
                    return Err(Reject::Bad("a line ends without CR"));
                }
                Found::Partial => {
                    let line = bytes.get(start..).unwrap_or_default();
                    // It may be half of the line's end.
                    self.unended(line.strip_suffix(b"\r").unwrap_or(line), limits)?;
                    return Ok(Progress::Partial);
                }
                Found::TooLong => {
                    if self.stage == Stage::Line {
                        unfinished(bytes.get(start..limits.head).unwrap_or_default(), limits)?;
                    }
                    return Err(Reject::TooLarge(Part::Head));
                }
            };
            match self.stage {
                Stage::Line if start == end && !self.empty_line => self.empty_line = true,
                Stage::Line => {
                    self.request_line(bytes, start, end, limits)?;
                    self.stage = Stage::Fields;
                }
                _ if start == end => {
                    self.finish(bytes, limits)?;
                    return Ok(Progress::Whole(self.lines.start));
                }
                _ => self.field_line(bytes, start, end, limits)?,
            }
        }
    }

    /// What a line without its CRLF shows by its length, also where the rest of it never comes.
    fn unended(&self, line: &[u8], limits: &Limits) -> Result<(), Reject> {
        if self.stage == Stage::Line && line.len() > limits.target {
            unfinished(line, limits)?;
        }
        Ok(())
    }

    fn request_line(
        &mut self,
        bytes: &[u8],
        start: usize,
        end: usize,
        limits: &Limits,
    ) -> Result<(), Reject> {
        let line = bytes.get(start..end).unwrap_or_default();
        unfinished(line, limits)?;
        let malformed = Reject::Bad("the request line is malformed");
        let space = memchr::memchr(b' ', line).ok_or(malformed)?;
        let (method, rest) = line.split_at(space);
        let rest = rest.get(1..).unwrap_or_default();
        let space = memchr::memchr(b' ', rest).ok_or(malformed)?;
        let (target, version) = rest.split_at(space);
        if method.is_empty() || target.is_empty() {
            return Err(malformed);
        }
        self.method_text = Span::new(start, start + method.len());
        self.method = Method::of(method);
        self.version = match version {
            b" HTTP/1.1" => Version::Http11,
            b" HTTP/1.0" => Version::Http10,
            [b' ', b'H', b'T', b'T', b'P', b'/', b'2'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(Reject::Version)
            }
            _ => return Err(malformed),
        };
        if method == b"CONNECT" {
            return Err(Reject::Connect);
        }
        if !fields::every(target, |byte| {
            (byte > 0x20) & (byte < 0x7f) & (byte != b'#')
        }) {
            return Err(Reject::Bad("the target holds an invalid character"));
        }
        self.target(target, start + method.len() + 1)
    }

    /// Tells the form of `target`, which starts at `start`.
    fn target(&mut self, target: &[u8], start: usize) -> Result<(), Reject> {
        let end = start + target.len();
        self.path = Span::new(start, end);
        if target.first() == Some(&b'/') {
            self.form = Form::Origin;
            return Ok(());
        }
        if target == b"*" && self.method == Method::Options {
            self.form = Form::Asterisk;
            return Ok(());
        }
        let scheme = [&b"http://"[..], b"https://"]
            .iter()
            .find(|scheme| {
                target
                    .get(..scheme.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            })
            .map(|scheme| scheme.len())
            .ok_or(Reject::Bad("the target has an unknown form"))?;
        let rest = target.get(scheme..).unwrap_or_default();
        let length = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        let authority = rest.get(..length).unwrap_or_default();
        let name =
            host::name_length(authority).ok_or(Reject::Bad("the target's authority is invalid"))?;
        let start = start + scheme;
        self.form = Form::Absolute;
        self.authority = Some(Span::new(start, start + length));
        self.host = Span::new(start, start + name);
        self.path = Span::new(start + length, end);
        Ok(())
    }

    fn field_line(
        &mut self,
        bytes: &[u8],
        start: usize,
        end: usize,
        limits: &Limits,
    ) -> Result<(), Reject> {
        if self.fields.len() >= limits.fields {
            return Err(Reject::TooLarge(Part::Head));
        }
        let field = fields::parse(bytes, start, end, 2, false).map_err(|bad| Reject::Bad(bad.0))?;
        let value = field.value.of(bytes);
        match field.known {
            Name::Host => self.host_field(value, field.value)?,
            Name::ContentLength => {
                let length = framing::length(value);
                if length.is_none() || self.length.is_some() {
                    return Err(Reject::Bad("Content-Length is invalid"));
                }
                self.length = length;
            }
            Name::TransferEncoding => self.coding = self.coding.add(value),
            Name::Connection => self.options.add(value).map_err(|bad| match bad {
                BadOption::Malformed => Reject::Bad("Connection is invalid"),
                BadOption::Forbidden => Reject::Bad("Connection names a field it may not name"),
                BadOption::TooMany => Reject::TooLarge(Part::Head),
            })?,
            Name::Upgrade => {
                self.has_upgrade |=
                    fields::list(value).any(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"));
            }
            Name::Expect => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
        self.fields.push(field);
        Ok(())
    }

    fn host_field(&mut self, value: &[u8], span: Span) -> Result<(), Reject> {
        if self.has_host {
            return Err(Reject::Bad("there is more than one Host"));
        }
        self.has_host = true;
        let name = host::name_length(value).ok_or(Reject::Bad("Host is invalid"))?;
        if self.authority.is_none() {
            self.authority = Some(span);
            self.host = Span::new(span.start(), span.start() + name);
        }
        Ok(())
    }

    /// What only the whole head tells.
    fn finish(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), Reject> {
        let modern = self.version == Version::Http11;
        if modern && !self.has_host {
            return Err(Reject::Bad("Host is missing"));
        }
        self.framing = match (self.coding, self.length) {
            (Coding::Absent, None) => Framing::None,
            (Coding::Absent, Some(length)) => Framing::Length(length),
            (_, Some(_)) => {
                return Err(Reject::Bad(
                    "both Transfer-Encoding and Content-Length are there",
                ))
            }
            _ if !modern => return Err(Reject::Bad("Transfer-Encoding is not for HTTP/1.0")),
            (Coding::Chunked, None) => Framing::Chunked,
            (Coding::Other, None) => return Err(Reject::Coding),
            (Coding::Malformed, None) => return Err(Reject::Bad("Transfer-Encoding is invalid")),
        };
        if let (Framing::Length(length), Some(limit)) = (self.framing, limits.body) {
            if length > limit {
                return Err(Reject::TooLarge(Part::Body));
            }
        }
        self.options.mark(bytes, &mut self.fields);
        self.keep_alive = !self.options.close && (modern || self.options.keep_alive);
        self.upgrade = modern && self.options.upgrade && self.has_upgrade;
        Ok(())
    }
}

/// Checks of a request line that hold before its end is there: its method and the target's length.
fn unfinished(line: &[u8], limits: &Limits) -> Result<(), Reject> {
    let Some(space) = memchr::memchr(b' ', line) else {
        return Ok(());
    };
    let (method, rest) = line.split_at(space);
    if !fields::is_token(method) {
        return Err(Reject::Bad("the request line is malformed"));
    }
    let target = rest.get(1..).unwrap_or_default();
    let length = memchr::memchr(b' ', target).unwrap_or(target.len());
    if length > limits.target {
        return Err(Reject::TooLarge(Part::Target));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

    fn parsed(bytes: &[u8], head: &mut RequestHead) -> Result<Progress, Reject> {
        parse(bytes, &Limits::default(), head)
    }

    #[test]
    fn a_head_is_used_again_after_every_outcome() {
        let mut head = RequestHead::new();
        for _ in 0..2 {
            assert_eq!(parsed(WHOLE, &mut head), Ok(Progress::Whole(WHOLE.len())));
            assert!(!head.keep_alive && head.fields.len() == 2);
            assert!(parsed(b"POST / HTTP/1.1\r\n:\r\n", &mut head).is_err());
            assert_eq!(
                parsed(b"GET / HTTP/1.0\r\nX: y\r\n", &mut head),
                Ok(Progress::Partial)
            );
            head.clear();
        }
    }

    #[test]
    fn only_bytes_of_this_head_are_taken() {
        let mut head = RequestHead::new();
        let two = [WHOLE, WHOLE].concat();
        assert_eq!(parsed(&two, &mut head), Ok(Progress::Whole(WHOLE.len())));
    }

    #[test]
    fn spans_of_other_bytes_are_empty() {
        let mut head = RequestHead::new();
        parsed(WHOLE, &mut head).unwrap();
        assert_eq!(head.path.of(WHOLE), b"/a");
        assert_eq!(head.path.of(b""), b"");
    }

    #[test]
    fn bytes_that_shrink_do_no_harm() {
        let mut head = RequestHead::new();
        for cut in (0..WHOLE.len()).rev() {
            let _ = parsed(&WHOLE[..cut], &mut head);
        }
    }

    #[test]
    fn methods_that_may_be_sent_twice() {
        for (method, idempotent) in [
            ("GET", true),
            ("HEAD", true),
            ("PUT", true),
            ("DELETE", true),
            ("OPTIONS", true),
            ("TRACE", true),
            ("POST", false),
            ("PATCH", false),
            ("get", false),
        ] {
            let mut head = RequestHead::new();
            let bytes = format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n");
            parsed(bytes.as_bytes(), &mut head).unwrap();
            assert_eq!(head.method.is_idempotent(), idempotent, "{method}");
        }
    }
}
