//! The request head that a machine gets.

use std::net::IpAddr;

use crate::address;
use crate::http::fields::{self, Field, Name};
use crate::http::output::{line, Kept};
use crate::http::request::RequestHead;
use crate::http::Framing;
use crate::route::{Destination, Place};

/// Who sent the request, as the connection tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    /// Its `X-Forwarded-*` are believed ([`crate::route::Site::trusts`]).
    pub trusted: bool,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub destination: &'a Destination,
    /// The machine's id, whatever the request called it.
    pub machine_id: &'a str,
    /// The route's host policy: the `Host` to send; `None` preserves the client's.
    pub host: Option<&'a str>,
    /// Path mode: the machine gets the path without the prefix, and the prefix in a field of its
    /// own. Else it gets the path whole, and no such field: who adds both up would have it twice.
    pub strip_prefix: bool,
}

impl Target<'_> {
    /// Bytes of the path that the machine does not get.
    fn cut(&self) -> usize {
        match self.destination.place {
            Place::Path { rest } if self.strip_prefix => rest,
            Place::Path { .. } | Place::Host => 0,
        }
    }
}

/// Appends to `out` the head for the machine of the request `head`, parsed from `bytes`.
///
/// Always HTTP/1.1, whatever the client speaks (RFC 9112 section 2.3), ready for the body as
/// `head.framing` says.
pub fn write(
    head: &RequestHead,
    bytes: &[u8],
    peer: &Peer,
    target: &Target<'_>,
    out: &mut Vec<u8>,
) {
    out.reserve(bytes.len().min(4096) + 256);
    request_line(head, bytes, target, out);
    if !head.fields.iter().any(|field| field.known == Name::Host) {
        host(head, bytes, target, out);
    }
    let mut kept = Kept::default();
    let (mut te, mut forwarded_host, mut forwarded_proto) = (false, false, false);
    for field in &head.fields {
        let keep = match field.known {
            Name::Other | Name::Accept | Name::Expect | Name::SecFetchMode => !field.hop,
            Name::XHyperfleetError => !field.hop,
            Name::ContentLength => true,
            Name::Host if head.authority == Some(field.value) && target.host.is_none() => true,
            Name::Host => {
                kept.flush(bytes, out);
                host(head, bytes, target, out);
                false
            }
            Name::Forwarded | Name::XRealIp => peer.trusted && !field.hop,
            Name::XForwardedHost => {
                forwarded_host |= peer.trusted;
                peer.trusted
            }
            Name::XForwardedProto => {
                forwarded_proto |= peer.trusted;
                peer.trusted
            }
            Name::Te => {
                te |= fields::list(field.value.of(bytes))
                    .any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                false
            }
            Name::Upgrade => {
                if head.upgrade {
                    kept.flush(bytes, out);
                    upgrade(field, bytes, out);
                }
                false
            }
            Name::Alias
            | Name::Connection
            | Name::KeepAlive
            | Name::ProxyAuthenticate
            | Name::ProxyAuthorization
            | Name::ProxyConnection
            | Name::TransferEncoding
            | Name::XForwardedFor
            | Name::XForwardedPrefix
            | Name::XMachineId => false,
        };
        if keep {
            kept.add(field, bytes, out);
        }
    }
    kept.flush(bytes, out);
    hop(head, te, out);
    if !forwarded_host {
        if let Some(authority) = head.authority {
            line(out, b"X-Forwarded-Host: ", authority.of(bytes));
        }
    }
    if !forwarded_proto {
        out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
    }
    forwarded_for(head, bytes, peer, out);
    let prefix = head.path.of(bytes).get(..target.cut()).unwrap_or_default();
    if !prefix.is_empty() {
        line(out, b"X-Forwarded-Prefix: ", prefix);
    }
    line(out, b"X-Machine-ID: ", target.machine_id.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn request_line(head: &RequestHead, bytes: &[u8], target: &Target<'_>, out: &mut Vec<u8>) {
    let method = head.method_text.of(bytes);
    out.extend_from_slice(method);
    out.push(b' ');
    let path = head.path.of(bytes);
    let path = path.get(target.cut()..).unwrap_or_default();
    match path.first() {
        Some(b'/' | b'*') => {}
        // RFC 9112 section 3.2.4: `OPTIONS http://a` means the server as a whole.
        None if method == b"OPTIONS" && target.destination.place == Place::Host => {
            out.push(b'*');
        }
        _ => out.push(b'/'),
    }
    out.extend_from_slice(path);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// The Host line: by the route's policy, else what the client means, else (HTTP/1.0 without
/// Host) the machine's id, since HTTP/1.1 demands one.
fn host(head: &RequestHead, bytes: &[u8], target: &Target<'_>, out: &mut Vec<u8>) {
    let value = match (target.host, head.authority) {
        (Some(host), _) => host.as_bytes(),
        (None, Some(authority)) => authority.of(bytes),
        (None, None) => target.machine_id.as_bytes(),
    };
    line(out, b"Host: ", value);
}

/// An Upgrade line without h2c; as sent when it has none.
fn upgrade(field: &Field, bytes: &[u8], out: &mut Vec<u8>) {
    let value = field.value.of(bytes);
    let mut separator: &[u8] = b"Upgrade: ";
    for protocol in fields::list(value).filter(|name| !name.eq_ignore_ascii_case(b"h2c")) {
        out.extend_from_slice(separator);
        out.extend_from_slice(protocol);
        separator = b", ";
    }
    if separator == b", " {
        out.extend_from_slice(b"\r\n");
    }
}

/// The fields of the hop to the machine. A `TE` has to be named by `Connection` (RFC 9110
/// section 10.1.4).
fn hop(head: &RequestHead, te: bool, out: &mut Vec<u8>) {
    if te {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    let connection: &[u8] = match (head.upgrade, te) {
        (true, true) => b"Connection: upgrade, TE\r\n",
        (true, false) => b"Connection: upgrade\r\n",
        (false, true) => b"Connection: TE\r\n",
        (false, false) => b"",
    };
    out.extend_from_slice(connection);
    if head.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
}

/// One X-Forwarded-For: what a trusted peer said, in order, then the peer.
fn forwarded_for(head: &RequestHead, bytes: &[u8], peer: &Peer, out: &mut Vec<u8>) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    if peer.trusted {
        for field in &head.fields {
            let value = field.value.of(bytes);
            if field.known == Name::XForwardedFor && !value.is_empty() {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        }
    }
    address::write(peer.address, out);
    out.extend_from_slice(b"\r\n");
}
