//! The server behind the proxies.
//!
//! ```text
//! GET  /bytes/N       N bytes of content
//! POST /sink          says how many bytes of content came, after checking each
//! GET  /ws            WebSocket echo
//! GET  /head          the request's head, as it arrived
//! GET  /connections   how many connections there have been, in all
//! ```

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use crate::job::received;
use crate::poller::{Happened, Poller};
use crate::reply::{content_length, field, head_length};
use crate::{content, websocket};

const BACKLOG: i32 = 4096;
/// Bytes read at once.
const READ: usize = 256 * 1024;
/// A request head or a frame that is longer is nobody's here.
const LONGEST: usize = 128 * 1024;
const LISTENER: usize = usize::MAX - 1;

static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Listens with `workers` threads to come, all on one port.
///
/// # Errors
/// The system's.
pub fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let mut address = address;
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Serves for ever.
///
/// # Errors
/// The system's; a connection's own end that connection only.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut poller = Poller::new()?;
    poller.add(listener, LISTENER)?;
    let mut peers: Slab<Peer> = Slab::new();
    let mut buffer = vec![0; READ];
    let mut happened = Vec::new();
    loop {
        poller.wait(&mut happened)?;
        for event in happened.drain(..) {
            if event.key == LISTENER {
                accept(listener, &poller, &mut peers)?;
            } else if let Some(peer) = peers.get_mut(event.key) {
                if !peer.drive(event, &mut buffer).unwrap_or(false) {
                    peers.remove(event.key);
                }
            }
        }
    }
}

fn accept(listener: &TcpListener, poller: &Poller, peers: &mut Slab<Peer>) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        CONNECTIONS.fetch_add(1, Relaxed);
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let entry = peers.vacant_entry();
        poller.add(&stream, entry.key())?;
        entry.insert(Peer::new(stream));
    }
}

/// One connection of a proxy.
struct Peer {
    stream: TcpStream,
    /// A head or a frame of which a part has come.
    input: Vec<u8>,
    reading: Reading,
    /// What the socket has not taken: bytes, then content from one place to another.
    out: Vec<u8>,
    content: (u64, u64),
    /// The request asked for the connection's end.
    last: bool,
}

enum Reading {
    Head,
    Body { came: u64, length: u64, right: bool },
    Frames,
}

impl Peer {
    fn new(stream: TcpStream) -> Peer {
        Peer {
            stream,
            input: Vec::new(),
            reading: Reading::Head,
            out: Vec::new(),
            content: (0, 0),
            last: false,
        }
    }

    /// Sends and reads what can be; false when the connection is done with.
    fn drive(&mut self, event: Happened, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            if !self.send()? {
                return Ok(true);
            }
            if self.is_done() {
                return Ok(false);
            }
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            if self.input.is_empty() {
                let taken = self.take(&buffer[..count])?;
                self.input.extend_from_slice(&buffer[taken..count]);
            } else {
                let mut input = std::mem::take(&mut self.input);
                input.extend_from_slice(&buffer[..count]);
                let taken = self.take(&input)?;
                input.drain(..taken);
                self.input = input;
            }
            if self.input.len() > LONGEST {
                return Ok(false);
            }
            if count < buffer.len() && !event.ended {
                // The next edge tells when there is more (epoll(7)).
                let sent = self.send()?;
                return Ok(!(sent && self.is_done()));
            }
        }
    }

    /// The answer to the last request was sent.
    fn is_done(&self) -> bool {
        self.last && matches!(self.reading, Reading::Head) && self.is_sent()
    }

    fn is_sent(&self) -> bool {
        self.out.is_empty() && self.content.0 == self.content.1
    }

    /// Sends what waits; true if nothing does any more.
    fn send(&mut self) -> io::Result<bool> {
        while !self.is_sent() {
            let body = content::from(self.content.0, self.content.1);
            let pieces = [IoSlice::new(&self.out), IoSlice::new(body)];
            let count = match self.stream.write_vectored(&pieces) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            let head = count.min(self.out.len());
            self.out.drain(..head);
            self.content.0 += (count - head) as u64;
        }
        Ok(true)
    }

    /// Takes what is whole at the start of `bytes`, answers it, and says how much that was.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            taken += match self.reading {
                Reading::Head => match head_length(rest) {
                    Some(length) => {
                        self.request(&rest[..length])?;
                        length
                    }
                    None => break,
                },
                Reading::Body {
                    came,
                    length,
                    right,
                } => {
                    let count = rest.len().min((length - came) as usize);
                    let right = right && content::is_at(came, &rest[..count]);
                    self.body(came + count as u64, length, right);
                    count
                }
                Reading::Frames => match websocket::read(rest).map_err(io::Error::other)? {
                    Some((payload, length)) => {
                        websocket::write(payload, false, &mut self.out);
                        length
                    }
                    None => break,
                },
            };
        }
        Ok(taken)
    }

    fn request(&mut self, head: &[u8]) -> io::Result<()> {
        self.last = field(head, "connection").is_some_and(|value| value == b"close");
        let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.split(' ');
        let (method, path) = (words.next(), words.next().unwrap_or_default());
        match (method, path) {
            (Some("GET"), "/ws") => {
                let key = field(head, "sec-websocket-key").unwrap_or_default();
                let accept = websocket::accept(key);
                write!(
                    self.out,
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                )?;
                self.reading = Reading::Frames;
            }
            (Some("GET"), "/head") => self.answer("200 OK", head),
            (Some("GET"), "/connections") => {
                self.answer("200 OK", CONNECTIONS.load(Relaxed).to_string().as_bytes());
            }
            (Some("POST"), "/sink") => {
                let length = content_length(head)
                    .ok_or_else(|| io::Error::other("a body without a length"))?;
                self.body(0, length, true);
            }
            (Some("GET"), path) => match path.strip_prefix("/bytes/").map(str::parse) {
                Some(Ok(size)) => {
                    self.head("200 OK", size);
                    self.content = (0, size);
                }
                _ => self.answer("404 Not Found", path.as_bytes()),
            },
            _ => self.answer("405 Method Not Allowed", b""),
        }
        Ok(())
    }

    /// So many bytes of a body have come.
    fn body(&mut self, came: u64, length: u64, right: bool) {
        if came < length {
            self.reading = Reading::Body {
                came,
                length,
                right,
            };
            return;
        }
        self.reading = Reading::Head;
        if right {
            self.answer("200 OK", &received(length));
        } else {
            self.answer("400 Bad Request", b"the bytes are not those that were sent");
        }
    }

    fn answer(&mut self, status: &str, body: &[u8]) {
        self.head(status, body.len() as u64);
        self.out.extend_from_slice(body);
    }

    /// As many fields as a plain server sends.
    fn head(&mut self, status: &str, length: u64) {
        // Writing to a Vec cannot fail.
        let _ = write!(
            self.out,
            "HTTP/1.1 {status}\r\nServer: bench\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        );
    }
}
