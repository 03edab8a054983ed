//! Writing in as few system calls as can be, a write is tried before it is waited for; and whose
//! turn it is.

use std::io::{self, IoSlice};
use std::task::{ready, Context, Poll};

use crate::buffers::Buffers;
use crate::held;
use crate::runtime::{yield_later, Stream};

/// Reads what is there, little at a time while too much is held for others; 0 at the stream's end.
pub fn poll_read(
    stream: &Stream,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let most = held::allowance(buffer.len());
    stream.poll_read(cx, &mut buffer[..most])
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

    /// Sends `head` and `bytes` after what waits already; keeps what the socket does not take at
    /// once. Returns how many bytes the socket took. Either may be empty.
    ///
    /// # Errors
    /// The connection's; it is of no more use for sending.
    pub fn send(
        &mut self,
        stream: &Stream,
        cx: &mut Context<'_>,
        head: &[u8],
        bytes: &[u8],
        buffers: &Buffers,
    ) -> io::Result<usize> {
        let rest = |taken: usize| {
            let rest = taken.saturating_sub(head.len());
            (head.get(taken..).unwrap_or_default(), &bytes[rest..])
        };
        let whole = head.len() + bytes.len();
        let mut taken = 0;
        if self.is_empty() {
            while taken < whole {
                let polled = match rest(taken) {
                    ([], bytes) | (bytes, []) => stream.poll_write(cx, bytes),
                    (head, bytes) => {
                        let pieces = [IoSlice::new(head), IoSlice::new(bytes)];
                        stream.poll_write_vectored(cx, &pieces)
                    }
                };
                match polled {
                    Poll::Ready(count) => taken += count?,
                    Poll::Pending => break,
                }
            }
        }
        if taken < whole {
            // A large buffer for little would hold more than is counted.
            if taken + held::SMALL < whole && self.bytes.capacity() == 0 {
                self.bytes = buffers.lend_large();
            }
            let (head, bytes) = rest(taken);
            self.keep(head);
            self.keep(bytes);
        }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;

    use super::*;

    #[test]
    fn what_a_full_socket_does_not_take_of_head_and_body_is_kept_and_follows_in_order() {
        // Long enough that the socket fills up within a head, and within a body.
        let part = |seed: usize| (0..8 << 20).map(move |at: usize| (at / 251 + seed) as u8);
        let (head, body): (Vec<u8>, Vec<u8>) = (part(1).collect(), part(2).collect());
        let whole = [&head[..], &body, b"headbody"].concat();
        let length = whole.len();
        let sent = crate::runtime::block_on(|| (), async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let near = Stream::connect(listener.local_addr().unwrap());
            let (near, mut far) = (near.await.unwrap(), listener.accept().unwrap().0);
            let buffers = Buffers::new();
            let mut outbox = Outbox::default();
            let mut moved = 0;
            for pieces in [(&head, &body[..70]), (&Vec::new(), &body[70..])] {
                moved +=
                    poll_fn(|cx| Poll::Ready(outbox.send(&near, cx, pieces.0, pieces.1, &buffers)))
                        .await
                        .unwrap();
            }
            assert!(moved > 0 && moved < head.len(), "the socket was never full");
            let reading = std::thread::spawn(move || {
                let mut got = vec![0; length];
                far.read_exact(&mut got).unwrap();
                got
            });
            poll_fn(|cx| outbox.poll_flush(&near, cx, &mut moved, &buffers))
                .await
                .unwrap();
            assert_eq!(moved, head.len() + body.len());
            // A write from two places that is taken whole.
            let mut last =
                poll_fn(|cx| Poll::Ready(outbox.send(&near, cx, b"head", b"body", &buffers)))
                    .await
                    .unwrap();
            poll_fn(|cx| outbox.poll_flush(&near, cx, &mut last, &buffers))
                .await
                .unwrap();
            assert_eq!(last, 8);
            reading.join().unwrap()
        });
        assert!(sent.unwrap() == whole);
    }
}
