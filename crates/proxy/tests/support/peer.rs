//! Both ends of the proxy's sockets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{field, text, PATIENCE};

/// A server in a machine, accepted by hand.
pub struct Server {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Server {
    pub fn new() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Server { listener, address }
    }

    /// The next connection.
    pub fn accept(&self) -> Peer {
        let began = Instant::now();
        self.listener.set_nonblocking(true).unwrap();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Peer::new(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            assert!(began.elapsed() < PATIENCE, "no connection comes");
            std::thread::yield_now();
        }
    }

    pub fn has_no_connection(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        self.listener.accept().is_err()
    }
}

/// One end of a connection: a client's, or a server's.
pub struct Peer {
    pub stream: TcpStream,
    ahead: Vec<u8>,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer {
            stream,
            ahead: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Ends the sending side.
    pub fn shut(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Resets the connection.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The next head, its empty line included.
    pub fn head(&mut self) -> String {
        loop {
            let end = self.ahead.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.ahead.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            let more = self.more();
            assert!(more > 0, "it ended within a head: {:?}", text(&self.ahead));
        }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            let more = self.more();
            assert!(more > 0, "it ended after {:?}", text(&self.ahead));
        }
        self.ahead.drain(..count).collect()
    }

    #[track_caller]
    pub fn expect(&mut self, wanted: impl AsRef<[u8]>) {
        let wanted = wanted.as_ref();
        let got = self.bytes(wanted.len());
        assert_eq!(text(&got), text(wanted));
    }

    /// The head and body of a response with Content-Length.
    pub fn response(&mut self) -> (String, String) {
        let head = self.head();
        let length = field(&head, "Content-Length").map_or(0, |text| text.parse().unwrap());
        let body = self.bytes(length);
        (head, String::from_utf8(body).unwrap())
    }

    /// Whether something comes, or its end, within `limit`.
    pub fn comes(&self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let came = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        came
    }

    /// Everything up to the end, and whether that was a reset.
    pub fn rest_and_reset(&mut self) -> (String, bool) {
        let mut buffer = [0; 65536];
        let reset = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => self.ahead.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break true,
                Err(error) => panic!("{error}"),
            }
        };
        (text(&std::mem::take(&mut self.ahead)), reset)
    }

    /// Everything up to the end.
    pub fn rest(&mut self) -> String {
        while self.more() > 0 {}
        text(&std::mem::take(&mut self.ahead))
    }

    /// It ends here, in order and without another byte.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.rest(), "");
    }

    /// It ends here with a reset.
    #[track_caller]
    pub fn expect_reset(&mut self) {
        let mut byte = [0];
        let error = self.stream.read(&mut byte).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// Sends; `None` when the connection is of no more use.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Option<()> {
        self.stream.write_all(bytes.as_ref()).ok()
    }

    /// The next head; `None` when it ends before, in whichever way.
    pub fn try_head(&mut self) -> Option<String> {
        self.try_until(b"\r\n\r\n").map(|head| text(&head))
    }

    /// The next `count` bytes; `None` when it ends before.
    pub fn try_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            self.try_more()?;
        }
        Some(self.ahead.drain(..count).collect())
    }

    /// The data of a chunked body without trailers; `None` when it ends before.
    pub fn try_chunks(&mut self) -> Option<Vec<u8>> {
        let mut data = Vec::new();
        loop {
            let line = text(&self.try_until(b"\r\n")?);
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            let chunk = self.try_bytes(size + 2)?;
            assert!(chunk.ends_with(b"\r\n"));
            if size == 0 {
                return Some(data);
            }
            data.extend_from_slice(&chunk[..size]);
        }
    }

    fn try_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.ahead.windows(end.len()).position(|part| part == end);
            if let Some(at) = found {
                return Some(self.ahead.drain(..at + end.len()).collect());
            }
            self.try_more()?;
        }
    }

    fn try_more(&mut self) -> Option<()> {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(count) if count > 0 => self.ahead.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("nothing comes"),
            _ => return None,
        }
        Some(())
    }

    fn more(&mut self) -> usize {
        let mut buffer = [0; 65536];
        let count = self.stream.read(&mut buffer).unwrap();
        self.ahead.extend_from_slice(&buffer[..count]);
        count
    }
}

/// Sends until the other side has taken nothing for a while; how many bytes it took.
pub fn fill(peer: &Peer) -> usize {
    let block = vec![0; 1 << 20];
    let mut stream = &peer.stream;
    let limit = Some(Duration::from_millis(50));
    stream.set_write_timeout(limit).unwrap();
    let mut taken = 0;
    while let Ok(count) = stream.write(&block) {
        taken += count;
    }
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    taken
}
