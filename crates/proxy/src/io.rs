//! Reading and writing in as few system calls as can be: a write is tried before it is waited
//! for, a read that came back short is not tried again until the socket says so.

use std::future::Future;
use std::io;
use std::pin::{pin, Pin};
use std::task::{ready, Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::buffers::Buffers;
use crate::held;

/// Reads what is there, little at a time while too much is held for others; 0 at the stream's end.
pub fn poll_read(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let most = held::allowance(buffer.len());
    let mut filled = ReadBuf::new(&mut buffer[..most]);
    ready!(Pin::new(stream).poll_read(cx, &mut filled))?;
    Poll::Ready(Ok(filled.filled().len()))
}

/// Ends the sending side; an error is the connection's own and shows at its next use.
pub fn shut(stream: &mut TcpStream, cx: &mut Context<'_>) {
    // For TCP this is one system call that never waits.
    let _ = Pin::new(stream).poll_shutdown(cx);
}

/// Most bytes that a connection moves each way before the others have their turn. A peer that sends
/// without end is read in whole buffers, and what is small in them (interim answers, chunks of one
/// byte) costs much: without a bound one such peer would hold up a worker's other clients.
const SHARE: usize = 256 * 1024;

/// What is left of one direction's turn.
pub struct Share(usize);

impl Share {
    pub fn new() -> Share {
        Share(SHARE)
    }

    pub fn take(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes);
    }

    /// False when nothing is left: the task is then woken again after the others, and after the
    /// system was asked what has come for them meanwhile.
    pub fn is_left(&self, cx: &mut Context<'_>) -> bool {
        if self.0 == 0 {
            // Pending at its first poll; a plain wake would come before the system is asked.
            return pin!(tokio::task::yield_now()).poll(cx).is_ready();
        }
        true
    }
}

/// Bytes for a socket that it has not taken yet.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends `bytes` after what waits already; keeps what the socket does not take at once.
    /// Returns how many bytes the socket took.
    ///
    /// # Errors
    /// The connection's; it is of no more use for sending.
    pub fn send(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
        bytes: &[u8],
        buffers: &Buffers,
    ) -> io::Result<usize> {
        let mut taken = 0;
        if self.is_empty() {
            while taken < bytes.len() {
                match Pin::new(&mut *stream).poll_write(cx, &bytes[taken..]) {
                    Poll::Ready(count) => taken += count?,
                    Poll::Pending => break,
                }
            }
        }
        // A large buffer for little would hold more than is counted.
        if taken + held::SMALL < bytes.len() && self.bytes.capacity() == 0 {
            self.bytes = buffers.lend_large();
        }
        self.keep(&bytes[taken..]);
        Ok(taken)
    }

    /// Adds `bytes` without trying the socket.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        held::changed(0, bytes.len());
    }

    /// Sends what waits, and counts that in `moved`; ready when nothing waits any more.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub fn poll_flush(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
        moved: &mut usize,
        buffers: &Buffers,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.sent..]))?;
            self.sent += count;
            *moved += count;
        }
        // What a slow peer made us hold is not held for its next turn.
        held::changed(self.bytes.len(), 0);
        buffers.give_back(std::mem::take(&mut self.bytes));
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            held::changed(self.bytes.len(), 0);
        }
    }
}
