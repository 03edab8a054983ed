//! What the load asks for, and what it must be answered.

use crate::content;
use crate::reply::Expected;
use crate::websocket;

/// What a client sends at once: a head or a frame, then content.
#[derive(Debug, Clone)]
pub struct Message {
    pub head: Vec<u8>,
    /// Bytes of content that follow.
    pub body: u64,
    pub expected: Expected,
}

/// What is done over and over.
#[derive(Debug, Clone)]
pub struct Job {
    /// Sent once when a connection is new.
    pub opening: Option<Message>,
    pub message: Message,
    /// Each message has a connection of its own, which the server closes.
    pub connect: bool,
    /// Bytes of bodies or messages that one answer stands for.
    pub bytes: u64,
}

/// Where requests go, as the proxy is told.
#[derive(Debug, Clone)]
pub struct Place {
    pub host: String,
    /// Before the upstream's own path; no last slash.
    pub prefix: String,
}

impl Place {
    fn head(&self, method: &str, path: &str, more: &str) -> Vec<u8> {
        let Place { host, prefix } = self;
        // As many fields as a plain client sends.
        format!(
            "{method} {prefix}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench-load\r\n\
             Accept: */*\r\n{more}\r\n"
        )
        .into_bytes()
    }
}

impl Job {
    /// GETs of `size` bytes.
    pub fn get(place: &Place, size: u64) -> Job {
        let head = place.head("GET", &format!("/bytes/{size}"), "");
        Job::request(head, 0, Expected::Content(size), size)
    }

    /// The same, with a new connection for each.
    pub fn connect(place: &Place, size: u64) -> Job {
        let head = place.head("GET", &format!("/bytes/{size}"), "Connection: close\r\n");
        Job {
            connect: true,
            ..Job::request(head, 0, Expected::Content(size), size)
        }
    }

    /// POSTs of `size` bytes, which the upstream checks.
    pub fn upload(place: &Place, size: u64) -> Job {
        let length = format!("Content-Length: {size}\r\n");
        let head = place.head("POST", "/sink", &length);
        let expected = Expected::Literal(received(size));
        Job::request(head, size, expected, size)
    }

    /// Messages of `size` bytes over WebSockets, which come back.
    pub fn echo(place: &Place, size: usize) -> Job {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let opening = Message {
            head: place.head("GET", "/ws", upgrade),
            body: 0,
            expected: Expected::Switching,
        };
        let size = size.min(websocket::LONGEST);
        let payload = content::from(0, size as u64);
        let (mut there, mut back) = (Vec::new(), Vec::new());
        websocket::write(payload, true, &mut there);
        websocket::write(payload, false, &mut back);
        Job {
            opening: Some(opening),
            ..Job::request(there, 0, Expected::Raw(back), size as u64)
        }
    }

    fn request(head: Vec<u8>, body: u64, expected: Expected, bytes: u64) -> Job {
        Job {
            opening: None,
            message: Message {
                head,
                body,
                expected,
            },
            connect: false,
            bytes,
        }
    }
}

/// The body of the upstream's answer to an upload of `size` right bytes.
pub fn received(size: u64) -> Vec<u8> {
    format!("received {size}\n").into_bytes()
}
