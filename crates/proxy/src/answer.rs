//! The answers this proxy gives by itself.

use std::io::Write;

use crate::http::fields::{self, Name};
use crate::http::request::RequestHead;
use crate::http::{Asked, Part, Reject, Version};
use crate::page;
use crate::route::Destination;
use crate::server_timing::Timing;

/// What is answered in place of a machine's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    MachineNotFound,
    MachineNotRunning,
    PortNotExposed(u16),
    ConnectFailed,
    InvalidResponse,
    UpstreamTimeout,
    RequestTimeout,
    /// Too many connections to, or requests of, one machine; try again after so many seconds.
    OverCapacity {
        retry_after: u32,
    },
    /// The proxy has as many clients as it may have.
    ProxyFull {
        retry_after: u32,
    },
    /// The client's address has as many connections as one may have.
    AddressFull {
        retry_after: u32,
    },
    /// The control plane has not told the routes yet: nobody knows what is there.
    NoRoutes {
        retry_after: u32,
    },
    NotFound,
    Rejected(Reject),
}

impl From<Reject> for Answer {
    fn from(reject: Reject) -> Self {
        Answer::Rejected(reject)
    }
}

impl Answer {
    /// The status code.
    pub fn status(self) -> u16 {
        match self {
            Answer::MachineNotFound | Answer::NotFound => 404,
            Answer::MachineNotRunning
            | Answer::OverCapacity { .. }
            | Answer::ProxyFull { .. }
            | Answer::AddressFull { .. }
            | Answer::NoRoutes { .. } => 503,
            Answer::PortNotExposed(_) => 403,
            Answer::ConnectFailed | Answer::InvalidResponse => 502,
            Answer::UpstreamTimeout => 504,
            Answer::RequestTimeout => 408,
            Answer::Rejected(Reject::Bad(_)) => 400,
            Answer::Rejected(Reject::Connect) => 405,
            Answer::Rejected(Reject::Coding) => 501,
            Answer::Rejected(Reject::Version) => 505,
            Answer::Rejected(Reject::TooLarge(Part::Body)) => 413,
            Answer::Rejected(Reject::TooLarge(Part::Target)) => 414,
            Answer::Rejected(Reject::TooLarge(Part::Head)) => 431,
        }
    }

    /// The stable code, sent as `X-Hyperfleet-Error` and counted.
    pub fn code(self) -> &'static str {
        match self {
            Answer::MachineNotFound => "machine_not_found",
            Answer::MachineNotRunning => "machine_not_running",
            Answer::PortNotExposed(_) => "port_not_exposed",
            Answer::ConnectFailed => "upstream_connect_failed",
            Answer::InvalidResponse => "upstream_invalid_response",
            Answer::UpstreamTimeout => "upstream_timeout",
            Answer::RequestTimeout => "request_timeout",
            Answer::OverCapacity { .. }
            | Answer::ProxyFull { .. }
            | Answer::AddressFull { .. }
            | Answer::NoRoutes { .. } => "over_capacity",
            Answer::NotFound => "not_found",
            Answer::Rejected(Reject::TooLarge(_)) => "too_large",
            Answer::Rejected(_) => "bad_request",
        }
    }

    /// Whether the connection ends with this answer whatever the client wishes: where the
    /// next request begins is not known, or nobody is there to send one.
    pub fn closes(self) -> bool {
        matches!(self, Answer::Rejected(_) | Answer::RequestTimeout)
    }

    /// Appends the error's text: stable, without anything that JSON or HTML would escape.
    fn text(self, out: &mut Vec<u8>) {
        let text = match self {
            Answer::MachineNotFound => "Machine not found",
            Answer::MachineNotRunning => "Machine is not running",
            Answer::PortNotExposed(port) => {
                // Writing to a Vec cannot fail.
                let _ = write!(out, "Port {port} is not exposed on this machine");
                return;
            }
            Answer::ConnectFailed => "Failed to connect to upstream",
            Answer::InvalidResponse => "Upstream sent an invalid response",
            Answer::UpstreamTimeout => "Upstream did not answer in time",
            Answer::RequestTimeout => "Request timed out",
            Answer::OverCapacity { .. } => "Too many requests to this machine",
            Answer::ProxyFull { .. } => "Too many connections to the proxy",
            Answer::AddressFull { .. } => "Too many connections from this address",
            Answer::NoRoutes { .. } => "The proxy does not know its machines yet",
            Answer::NotFound => "Not found",
            Answer::Rejected(reject) => {
                let (what, detail) = match reject {
                    Reject::Bad(what) => ("Bad request: ", what),
                    Reject::Connect => ("Bad request: ", "CONNECT is not supported"),
                    Reject::Coding => ("Bad request: ", "the transfer coding is not supported"),
                    Reject::Version => ("Bad request: ", "the HTTP version is not supported"),
                    Reject::TooLarge(Part::Head) => ("Request is too large: ", "head"),
                    Reject::TooLarge(Part::Target) => ("Request is too large: ", "target"),
                    Reject::TooLarge(Part::Body) => ("Request is too large: ", "body"),
                };
                out.extend_from_slice(what.as_bytes());
                detail
            }
        };
        out.extend_from_slice(text.as_bytes());
    }
}

/// In which form an answer is given.
#[derive(Debug, Clone, Copy)]
pub enum Shape<'a> {
    /// `{"error":"…"}`
    Json,
    /// A page for a browser's navigation, about a destination if one was named.
    Page(Option<&'a Destination>),
}

/// Whether the request is a browser's navigation, which gets a page: its `Accept` holds text/html
/// and its `Sec-Fetch-Mode`, if sent, is navigate.
pub fn wants_page(head: &RequestHead, bytes: &[u8]) -> bool {
    let html = head.fields.iter().any(|field| {
        field.known == Name::Accept && fields::list(field.value.of(bytes)).any(accepts_html)
    });
    html && head
        .first(bytes, Name::SecFetchMode)
        .is_none_or(|mode| mode.eq_ignore_ascii_case(b"navigate"))
}

/// `text/html`, whatever its parameters, but for a weight of 0, which refuses it.
fn accepts_html(range: &[u8]) -> bool {
    let mut parts = range.split(|&byte| byte == b';');
    let name = fields::trim_end(parts.next().unwrap_or_default());
    let refused = parts.any(|parameter| {
        let weight = fields::trim_start(fields::trim_end(parameter));
        matches!(weight, [b'q' | b'Q', b'=', b'0', rest @ ..]
            if rest.iter().all(|byte| matches!(byte, b'.' | b'0')))
    });
    name.eq_ignore_ascii_case(b"text/html") && !refused
}

/// Appends the whole answer to `asked` ([`Asked::NOTHING`] if it could not be read), and says
/// whether the connection may be kept. `close` ends it in any case (an unread body is too
/// long to read away, or the proxy drains). `timing` is told if it is given.
#[must_use]
pub fn write(
    answer: Answer,
    shape: Shape<'_>,
    asked: &Asked,
    close: bool,
    timing: Option<Timing>,
    out: &mut Vec<u8>,
) -> bool {
    let mut text = Vec::with_capacity(64);
    answer.text(&mut text);
    let (media_type, body) = match shape {
        Shape::Json => {
            let body = [b"{\"error\":\"", text.as_slice(), b"\"}"].concat();
            ("application/json", body)
        }
        Shape::Page(destination) => (
            page::MEDIA_TYPE,
            page::render(answer, &String::from_utf8_lossy(&text), destination),
        ),
    };
    let keep = asked.keep_alive && !close && !answer.closes();
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {} {}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Hyperfleet-Error: {}\r\n",
        answer.status(),
        reason(answer.status()),
        body.len(),
        answer.code(),
    );
    match answer {
        Answer::OverCapacity { retry_after }
        | Answer::ProxyFull { retry_after }
        | Answer::AddressFull { retry_after }
        | Answer::NoRoutes { retry_after } => {
            let _ = write!(out, "Retry-After: {retry_after}\r\n");
        }
        Answer::Rejected(Reject::Connect) => {
            out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n")
        }
        _ => {}
    }
    if let Shape::Page(_) = shape {
        out.extend_from_slice(page::FIELDS);
    }
    if let Some(timing) = timing {
        timing.write(out);
    }
    connection(asked, keep, out);
    if !asked.head {
        out.extend_from_slice(&body);
    }
    keep
}

/// Appends the 308 for [`crate::route::Resolved::Redirect`]: the same path with a `/` put in at
/// `rest`, the query kept. Says whether the connection may be kept, as [`write()`] does.
#[must_use]
pub fn write_redirect(
    head: &RequestHead,
    bytes: &[u8],
    rest: usize,
    close: bool,
    timing: Option<Timing>,
    out: &mut Vec<u8>,
) -> bool {
    let asked = head.asked();
    let keep = asked.keep_alive && !close;
    let path = head.path.of(bytes);
    let (path, query) = path.split_at_checked(rest).unwrap_or((path, &[]));
    out.extend_from_slice(b"HTTP/1.1 308 Permanent Redirect\r\nLocation: ");
    out.extend_from_slice(path);
    out.push(b'/');
    out.extend_from_slice(query);
    out.extend_from_slice(b"\r\nContent-Length: 0\r\n");
    if let Some(timing) = timing {
        timing.write(out);
    }
    connection(&asked, keep, out);
    keep
}

/// The Connection line, where one is needed, and the head's end.
fn connection(asked: &Asked, keep: bool, out: &mut Vec<u8>) {
    let line: &[u8] = match (keep, asked.version) {
        (false, _) => b"Connection: close\r\n\r\n",
        (true, Version::Http10) => b"Connection: keep-alive\r\n\r\n",
        (true, Version::Http11) => b"\r\n",
    };
    out.extend_from_slice(line);
}

/// The reason phrases of the statuses above (RFC 9110 section 15, RFC 6585).
fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "HTTP Version Not Supported",
    }
}
