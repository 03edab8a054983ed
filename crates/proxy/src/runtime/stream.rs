//! A TCP connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{ready, Context, Poll};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    connect, ipproto, recv, send, sendmsg, shutdown, socket_with, AddressFamily, RecvFlags,
    SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType,
};

use super::socket::{Interest, Socket};

/// A TCP connection. What it is asked to wait for wakes the task that asked last.
pub struct Stream(Socket);

impl Stream {
    /// One that a peer has made; it may have sent something already.
    pub fn accepted(fd: OwnedFd) -> Stream {
        Stream(Socket::new(fd, Interest::BOTH))
    }

    /// Connects.
    ///
    /// # Errors
    /// As connect(2).
    pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        // It answers to what it has not been asked yet: there is nothing to read before a wait.
        let socket = Socket::new(fd, Interest::WRITABLE);
        let begun = connect(&socket, &address);
        if let Err(Errno::INPROGRESS) = begun {
            // On this host it has an answer by now, which a second call tells (connect(2)): then
            // it was never waited for.
            poll_fn(|cx| {
                socket.poll_io(Interest::WRITABLE, cx, |fd| match connect(fd, &address) {
                    Err(Errno::ALREADY | Errno::INPROGRESS) => Err(Errno::AGAIN),
                    Err(Errno::ISCONN) => Ok(()),
                    result => result,
                })
            })
            .await?;
        } else {
            begun?;
        }
        Ok(Stream(socket))
    }

    /// Reads what is there; 0 at its end. A read that came back short is not tried again before
    /// the system says that there is more.
    pub fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.0.poll_io(Interest::READABLE, cx, |fd| {
            Ok(recv(fd, &mut *buffer, RecvFlags::empty())?.0)
        }))?;
        if count > 0 && count < buffer.len() {
            self.0.drained(Interest::READABLE);
        }
        Poll::Ready(Ok(count))
    }

    /// Writes what is taken of `bytes`, and says how much.
    pub fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.0.poll_io(Interest::WRITABLE, cx, |fd| {
            send(fd, bytes, SendFlags::NOSIGNAL)
        }))?;
        if count < bytes.len() {
            self.0.drained(Interest::WRITABLE);
        }
        Poll::Ready(Ok(count))
    }

    /// Writes what is taken of `pieces`, in one call, and says how much.
    pub fn poll_write_vectored(
        &self,
        cx: &Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let whole: usize = pieces.iter().map(|piece| piece.len()).sum();
        let count = ready!(self.0.poll_io(Interest::WRITABLE, cx, |fd| {
            let mut no_control = SendAncillaryBuffer::default();
            sendmsg(fd, pieces, &mut no_control, SendFlags::NOSIGNAL)
        }))?;
        if count < whole {
            self.0.drained(Interest::WRITABLE);
        }
        Poll::Ready(Ok(count))
    }

    /// Ends the sending side; an error is the connection's own and shows at its next use.
    pub fn shut(&self) {
        let _ = shutdown(&self.0, Shutdown::Write);
    }

    /// The system was told to watch it: it was waited for.
    pub fn is_watched(&self) -> bool {
        self.0.is_watched()
    }

    /// Whether there is something to read at this moment; its end is nothing.
    pub fn has_bytes(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.0, &mut [0], flags).is_ok_and(|(_, count)| count > 0)
    }

    /// Ready when there may be something to read, or its end.
    pub fn poll_read_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(Interest::READABLE, cx)
    }

    /// Ready when there is something to read, or its end: a look decides where it only may be so, as
    /// after a read that took just what was wanted.
    pub fn poll_arrived(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_io(Interest::READABLE, cx, |fd| {
            recv(fd, &mut [0], RecvFlags::PEEK).map(drop)
        })
    }

    /// Ready when something may be taken.
    pub fn poll_write_ready(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(Interest::WRITABLE, cx)
    }

    /// Does `call` on this connection's descriptor, after [`Stream::poll_read_ready`] or
    /// [`Stream::poll_write_ready`]; after `WouldBlock` these wait.
    ///
    /// # Errors
    /// The call's.
    pub fn try_io<T>(
        &self,
        interest: Interest,
        call: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.try_io(interest, call)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
