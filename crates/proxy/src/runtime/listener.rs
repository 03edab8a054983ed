//! A listening socket.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use rustix::fd::AsFd;
use rustix::net::{acceptfrom_with, SocketFlags};

use super::executor::yield_later;
use super::socket::{Interest, Socket};
use super::stream::Stream;

/// Connections that are accepted before the others have their turn.
const BATCH: u32 = 64;

/// Listens for TCP connections.
pub struct Listener {
    socket: Socket,
    /// Accepted since the last wait.
    accepted: Cell<u32>,
}

impl Listener {
    /// Takes over a socket that listens.
    ///
    /// # Errors
    /// When it can't be set not to block.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        Ok(Listener {
            socket: Socket::new(listener.into(), Interest::READABLE),
            accepted: Cell::new(0),
        })
    }

    /// The next connection and its peer's address. Waits for a turn after many in a row.
    ///
    /// # Errors
    /// As accept(2).
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        poll_fn(|cx| {
            if self.accepted.get() >= BATCH {
                self.accepted.set(0);
                yield_later(cx.waker());
                return Poll::Pending;
            }
            self.poll_accept(cx)
        })
        .await
    }

    /// The next connection, if there is one.
    ///
    /// # Errors
    /// As accept(2).
    pub fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accepted = self.socket.poll_io(Interest::READABLE, cx, |fd| {
            let (fd, peer) = acceptfrom_with(fd, flags)?;
            // A TCP connection has an address.
            let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
            Ok((
                Stream::accepted(fd),
                peer.ok_or(rustix::io::Errno::AFNOSUPPORT)?,
            ))
        });
        match &accepted {
            Poll::Pending => self.accepted.set(0),
            Poll::Ready(_) => self.accepted.set(self.accepted.get() + 1),
        }
        accepted
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another process may have it too: closing it would not end the watch.
        self.socket.unwatch();
    }
}
