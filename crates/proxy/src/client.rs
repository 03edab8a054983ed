//! A client's connection: its stream, what it sent ahead, what it has not taken yet.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{ready, Context, Poll, Waker};
use std::time::Duration;

use crate::body::Body;
use crate::bounds::Bound;
use crate::clock::Timer;
use crate::forward::Peer;
use crate::io::{poll_read, Outbox};
use crate::runtime::Stream;
use crate::worker::Worker;

/// How long a client may take to read an answer after which its connection closes.
const LINGER: Duration = Duration::from_secs(2);
/// Most bytes of further requests that are read while one is served.
const AHEAD: usize = 16 * 1024;
/// Most bytes of an unread body that are read away to keep a connection.
pub const READ_AWAY: u64 = 64 * 1024;

pub struct Client {
    pub worker: Rc<Worker>,
    pub stream: Stream,
    pub peer: Peer,
    /// Bytes that were read and belong to nobody yet.
    pub input: Vec<u8>,
    pub outbox: Outbox,
    pub timer: Timer,
    /// It will send no more; it may still read.
    pub eof: bool,
    /// Bytes that were read from it, and that it took, in all.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// The clock when [`Client::poll_ahead`] put off its first look.
    looks_after: Option<u64>,
}

impl Client {
    /// `waker` is its task's.
    pub fn new(worker: Rc<Worker>, stream: Stream, peer: Peer, waker: Waker) -> Client {
        let timer = worker.clock.timer(waker);
        Client {
            worker,
            stream,
            peer,
            input: Vec::new(),
            outbox: Outbox::default(),
            timer,
            eof: false,
            bytes_in: 0,
            bytes_out: 0,
            looks_after: None,
        }
    }

    /// Counts bytes that were read from it.
    pub fn count_in(&mut self, count: usize) {
        self.bytes_in += count as u64;
        self.worker.counters.bytes_in.add(count as u64);
    }

    /// Counts bytes that it took.
    pub fn count_out(&mut self, count: usize) {
        self.bytes_out += count as u64;
        self.worker.counters.bytes_out.add(count as u64);
    }

    /// Bytes of all that was read that belong to somebody.
    pub fn taken(&self) -> u64 {
        self.bytes_in - self.input.len() as u64
    }

    /// Reads what is there into `buffer`; 0, now and ever after, at the end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        let count = ready!(poll_read(&self.stream, cx, buffer))?;
        self.eof = count == 0;
        self.count_in(count);
        Poll::Ready(Ok(count))
    }

    /// Reads ahead, while somebody else is busy for it, so as to hear of its end: an error when
    /// the connection is gone, nothing when it only sends no more. What it sends ahead is kept,
    /// and then no more is read.
    ///
    /// A socket that was never waited for is looked at from the clock's next tick on: the exchange of
    /// a connection that serves only one is over before that, and it is never registered.
    pub fn poll_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.eof || !self.input.is_empty() {
            return Ok(());
        }
        let worker = self.worker.clone();
        if !self.stream.is_watched() {
            let now = worker.clock.now();
            if self.looks_after.is_none() {
                self.timer.wake_at_tick();
            }
            if *self.looks_after.get_or_insert(now) == now {
                return Ok(());
            }
        }
        let mut buffer = worker.buffers.read.borrow_mut();
        if let Poll::Ready(count) = self.poll_read(cx, &mut buffer[..AHEAD]) {
            let count = count?;
            self.input.extend_from_slice(&buffer[..count]);
            if count == AHEAD {
                worker.counters.met(Bound::SentAhead);
            }
        }
        Ok(())
    }

    /// Nothing is there that the client has sent ahead.
    pub async fn is_quiet(&mut self) -> bool {
        if self.input.is_empty() && !self.stream.is_watched() {
            return !self.stream.has_bytes();
        }
        // An error is the connection's own; there is nothing more to be lost then.
        let _ = poll_fn(|cx| Poll::Ready(self.poll_ahead(cx))).await;
        self.input.is_empty()
    }

    /// Sends, and keeps what the socket does not take at once. True if bytes moved.
    pub fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<bool> {
        self.send_both(cx, &[], bytes)
    }

    /// Sends one after the other in one write, as [`Client::send`].
    pub fn send_both(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        bytes: &[u8],
    ) -> io::Result<bool> {
        let buffers = &self.worker.buffers;
        let count = self.outbox.send(&self.stream, cx, head, bytes, buffers)?;
        self.count_out(count);
        Ok(count > 0)
    }

    /// Sends what is kept; true if that moved bytes.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<io::Result<()>> {
        if self.outbox.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut count = 0;
        let flushed = self
            .outbox
            .poll_flush(&self.stream, cx, &mut count, &self.worker.buffers);
        self.count_out(count);
        *moved |= count > 0;
        flushed
    }

    /// Forgets the first `count` bytes of what was sent ahead.
    pub fn consume(&mut self, count: usize) {
        if count >= self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..count);
        }
    }

    /// Sends all that is kept; false if the client takes nothing of it for `limit`.
    pub async fn flush(&mut self, limit: Duration) -> bool {
        self.timer.set(limit);
        poll_fn(|cx| {
            let mut moved = false;
            let flushed = self.poll_flush(cx, &mut moved);
            if moved {
                self.timer.set(limit);
            }
            match flushed {
                Poll::Pending if self.timer.expired() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
            }
        })
        .await
    }

    /// Reads a body that nobody wants to its end; false if it is too long, invalid or cut short.
    pub async fn read_away(&mut self, body: &mut Body) -> bool {
        let worker = self.worker.clone();
        let limits = &worker.settings.limits;
        self.timer.set(worker.settings.times.body);
        let mut left = READ_AWAY;
        poll_fn(|cx| {
            let mut out = worker.buffers.out();
            let mut buffer = worker.buffers.read.borrow_mut();
            loop {
                if body.ended() {
                    return Poll::Ready(true);
                }
                if self.timer.expired() {
                    return Poll::Ready(false);
                }
                let count = if self.input.is_empty() {
                    match ready!(self.poll_read(cx, &mut buffer)) {
                        Ok(count) if count > 0 => self.input.extend_from_slice(&buffer[..count]),
                        _ => return Poll::Ready(false),
                    }
                    continue;
                } else {
                    body.pass(&self.input, limits, &mut out)
                };
                out.clear();
                let Ok(count) = count else {
                    return Poll::Ready(false);
                };
                self.consume(count);
                match left.checked_sub(count as u64) {
                    Some(rest) => left = rest,
                    None => return Poll::Ready(false),
                }
            }
        })
        .await
    }

    /// Ends it, for the drop that is next, so that the client can read what it was sent: data that
    /// arrives at a closed socket resets the connection, the answer included (RFC 9112 section 9.6).
    pub async fn linger(&mut self) {
        if !self.flush(LINGER).await {
            return;
        }
        let worker = self.worker.clone();
        self.timer.set(LINGER);
        poll_fn(|cx| {
            self.stream.shut();
            let mut buffer = worker.buffers.read.borrow_mut();
            loop {
                if self.timer.expired() {
                    return Poll::Ready(());
                }
                match ready!(self.poll_read(cx, &mut buffer)) {
                    Ok(count) if count > 0 => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }

    /// Breaks the connection, when it is dropped next, so that the client can't take what it has
    /// for the whole.
    pub fn reset(&self) {
        // Without the reset it would close as after a whole body; there is nothing better then.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}
