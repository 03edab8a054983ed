//! Writing in as few system calls as can be, a write is tried before it is waited for; and whose
//! turn it is.

use std::io;
use std::task::{ready, Context, Poll};

use crate::buffers::Buffers;
use crate::runtime::{yield_later, Stream};

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
            yield_later(cx.waker());
        }
        self.0 > 0
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
        stream: &Stream,
        cx: &mut Context<'_>,
        bytes: &[u8],
        buffers: &Buffers,
    ) -> io::Result<usize> {
        let mut taken = 0;
        if self.is_empty() {
            while taken < bytes.len() {
                match stream.poll_write(cx, &bytes[taken..]) {
                    Poll::Ready(count) => taken += count?,
                    Poll::Pending => break,
                }
            }
        }
        if taken < bytes.len() && self.bytes.capacity() == 0 {
            self.bytes = buffers.lend_large();
        }
        self.bytes.extend_from_slice(&bytes[taken..]);
        Ok(taken)
    }

    /// Adds `bytes` without trying the socket.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Sends what waits, and counts that in `moved`; ready when nothing waits any more.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub fn poll_flush(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        moved: &mut usize,
        buffers: &Buffers,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let count = ready!(stream.poll_write(cx, &self.bytes[self.sent..]))?;
            self.sent += count;
            *moved += count;
        }
        // What a slow peer made us hold is not held for its next turn.
        buffers.give_back(std::mem::take(&mut self.bytes));
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}
