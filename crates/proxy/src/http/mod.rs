//! HTTP/1.1 as bytes: heads, fields and chunks, read strictly (RFC 9112).
//!
//! Nothing here does I/O or owns a buffer: what is found is told as offsets into the caller's
//! bytes. All functions are total: any input gives a verdict, none a panic.

pub mod chunked;
mod connection;
pub mod fields;
mod framing;
mod host;
mod lines;
mod method;
pub(crate) mod output;
pub mod request;
pub mod response;

/// Whether `text` is a `Host` that requests may have: `host [":" port]`.
pub fn is_host(text: &[u8]) -> bool {
    host::name_length(text).is_some()
}

/// Where a head's parser stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed; nothing in the head may be used yet.
    Partial,
    /// The head is whole and so many bytes long, its final empty line included.
    Whole(usize),
}

/// The two versions that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// How a message's body is delimited (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// Exactly so many bytes; 0 is possible.
    Length(u64),
    /// Chunks, read with [`chunked::Decoder`].
    Chunked,
    /// All bytes until the connection closes; responses only.
    UntilClose,
}

/// Which part of a request passed its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Head or trailers: 431.
    Head,
    /// Request target: 414.
    Target,
    /// Body: 413.
    Body,
}

/// Why a request is refused. The connection closes after the answer ([`crate::answer`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// 400, and what was wrong.
    Bad(&'static str),
    /// 405: CONNECT.
    Connect,
    /// 501: a transfer coding other than chunked.
    Coding,
    /// 505: HTTP/2.0 and above.
    Version,
    /// 413, 414 or 431.
    TooLarge(Part),
}

/// Why a response is not passed on; the client gets 502 upstream_invalid_response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

/// What must be remembered of a request until its answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub version: Version,
    /// The method is HEAD: the answer has no body.
    pub head: bool,
    /// The client lets the connection be used again.
    pub keep_alive: bool,
    /// An upgrade was asked for and forwarded: a 101 may come.
    pub upgrade: bool,
}

impl Asked {
    /// For answers to what could not be read as a request.
    pub const NOTHING: Asked = Asked {
        version: Version::Http11,
        head: false,
        keep_alive: false,
        upgrade: false,
    };
}
