//! The response head that a client gets.

use crate::http::fields::{self, Name};
use crate::http::output::{line, Kept};
use crate::http::response::ResponseHead;
use crate::http::{Asked, Framing, Version};
use crate::server_timing::Timing;

/// What follows the head that [`write()`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Another response head of the machine. Nothing was written if the client speaks HTTP/1.0.
    Interim,
    /// The body, if any; then the client's connection is kept or closed.
    Final { body: Body, keep_alive: bool },
    /// Both connections are a tunnel from here on.
    Tunnel { websocket: bool },
}

/// How the body goes to the client; how it comes is `ResponseHead::framing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes as they are.
    Length(u64),
    /// As chunks: [`crate::http::chunked`] writes them.
    Chunked,
    /// As they are, then the connection closes.
    UntilClose,
}

/// Appends to `out` the head for the client of the response `head`, parsed from `bytes`, to
/// `asked`. `close` ends the client's connection though it might be kept (the proxy drains, or
/// the request's body will not be read to its end); the client is told.
/// `timing` is told beside what the machine may say of its own, but not with interim heads.
pub fn write(
    head: &ResponseHead,
    bytes: &[u8],
    asked: &Asked,
    close: bool,
    timing: Option<Timing>,
    out: &mut Vec<u8>,
) -> Reply {
    if head.is_interim() && asked.version == Version::Http10 {
        return Reply::Interim;
    }
    let reply = decide(head, bytes, asked, close);
    out.reserve(bytes.len().min(4096) + 64);
    status_line(head, bytes, out);
    // Upgrade tells a client something in the answer to an upgrade, and in 426, which names what
    // the server wants (RFC 9110 section 15.5.22).
    let upgrade = head.status == 101 || head.status == 426;
    let mut upgrades = false;
    let mut kept = Kept::default();
    for field in &head.fields {
        let keep = match field.known {
            Name::ContentLength => keeps_length(head),
            Name::Upgrade => {
                upgrades |= upgrade;
                upgrade
            }
            Name::Connection
            | Name::KeepAlive
            | Name::ProxyAuthenticate
            | Name::ProxyAuthorization
            | Name::ProxyConnection
            | Name::Te
            | Name::TransferEncoding
            | Name::XHyperfleetError => false,
            _ => !field.hop,
        };
        if keep {
            kept.add(field, bytes, out);
        }
    }
    kept.flush(bytes, out);
    if let Reply::Final {
        body: Body::Chunked,
        ..
    } = reply
    {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(timing) = timing.filter(|_| reply != Reply::Interim) {
        timing.write(out);
    }
    connection(&reply, asked, upgrades, out);
    out.extend_from_slice(b"\r\n");
    reply
}

fn decide(head: &ResponseHead, bytes: &[u8], asked: &Asked, close: bool) -> Reply {
    if head.is_interim() {
        return Reply::Interim;
    }
    if head.status == 101 {
        let websocket = head.fields.iter().any(|field| {
            field.known == Name::Upgrade
                && fields::list(field.value.of(bytes))
                    .any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        });
        return Reply::Tunnel { websocket };
    }
    let body = match (head.framing, asked.version) {
        (Framing::None, _) => Body::None,
        (Framing::Length(length), _) => Body::Length(length),
        (Framing::Chunked | Framing::UntilClose, Version::Http11) => Body::Chunked,
        (Framing::Chunked | Framing::UntilClose, Version::Http10) => Body::UntilClose,
    };
    Reply::Final {
        body,
        keep_alive: asked.keep_alive && !close && body != Body::UntilClose,
    }
}

/// Whether Content-Length means something to the client: not beside Transfer-Encoding, and not
/// where none may be sent (RFC 9110 section 8.6).
fn keeps_length(head: &ResponseHead) -> bool {
    !head.is_coded() && head.status >= 200 && head.status != 204
}

fn status_line(head: &ResponseHead, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let digit = |value: u16| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[
        digit(head.status / 100),
        digit(head.status / 10),
        digit(head.status),
    ]);
    line(out, b" ", head.reason.of(bytes));
}

/// The Connection line, where one is needed.
fn connection(reply: &Reply, asked: &Asked, upgrades: bool, out: &mut Vec<u8>) {
    let value: &[u8] = match (reply, upgrades) {
        (Reply::Interim, _) => return,
        (Reply::Tunnel { .. }, _) => b"upgrade",
        (
            Reply::Final {
                keep_alive: false, ..
            },
            true,
        ) => b"upgrade, close",
        (
            Reply::Final {
                keep_alive: false, ..
            },
            false,
        ) => b"close",
        (Reply::Final { .. }, true) => b"upgrade",
        (Reply::Final { .. }, false) if asked.version == Version::Http10 => b"keep-alive",
        (Reply::Final { .. }, false) => return,
    };
    line(out, b"Connection: ", value);
}
