//! From the client to the machine: what was read of the request before, then the rest of its
//! body.

use std::io;
use std::task::{ready, Context, Poll};

use super::{Outcome, Relay};
use crate::bounds::Bound;
use crate::exchange::End;
use crate::http::Reject;
use crate::io::{Outbox, Share};
use crate::splice::{self, Splice};

/// The request's way to the machine.
#[derive(Default)]
pub(super) struct Upload {
    /// Bytes of the request's buffer that were sent.
    pub(super) sent: usize,
    /// What the machine has not taken of the body that was read since.
    pub(super) outbox: Outbox,
    pub(super) splice: Splice,
    pub(super) body_read: bool,
    /// All of it was sent.
    pub(super) ended: bool,
    /// The machine takes no more; it may still answer.
    pub(super) broken: bool,
}

impl Relay<'_> {
    /// Sends what the client sends. Some only when that ends the exchange.
    #[inline]
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Option<Outcome> {
        let worker = self.client.worker.clone();
        let mut share = Share::new();
        while !self.upload.ended && !self.upload.broken {
            match self.flush_upload(cx) {
                Poll::Pending => return None,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.upload.broken = true;
                    return None;
                }
            }
            if self.request.body.ended() {
                self.upload.ended = true;
                return None;
            }
            if !share.is_left(cx) {
                return None;
            }
            match self.splice_upload(cx) {
                Poll::Pending => return None,
                Poll::Ready(Some(Ok(count))) if count > 0 => {
                    share.take(count);
                    continue;
                }
                Poll::Ready(Some(_)) => return Some(Outcome::Broken(End::Break)),
                Poll::Ready(None) => {}
            }
            let mut buffer = worker.buffers.read.borrow_mut();
            let ahead = std::mem::take(&mut self.client.input);
            let bytes = if ahead.is_empty() {
                match self.client.poll_read(cx, &mut buffer) {
                    Poll::Pending => return None,
                    Poll::Ready(Ok(count)) if count > 0 => &buffer[..count],
                    // Cut short: the machine's connection breaks, so that it can tell.
                    Poll::Ready(_) => return Some(Outcome::Broken(End::Break)),
                }
            } else {
                ahead.as_slice()
            };
            share.take(bytes.len());
            self.moved = true;
            self.upload.body_read = true;
            self.release();
            match self.pass_upload(cx, bytes) {
                Ok(taken) => self.client.input.extend_from_slice(&bytes[taken..]),
                Err(reject) => return Some(self.give_up(reject.into())),
            }
        }
        None
    }

    /// Sends the request's buffer, which is kept for a second try, then what followed it.
    fn flush_upload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.upload.sent < self.request.buffer.len() {
            let rest = &self.request.buffer[self.upload.sent..];
            let stream = &self.upstream.stream;
            self.upload.sent += ready!(stream.poll_write(cx, rest))?;
            self.moved = true;
        }
        let mut count = 0;
        let stream = &self.upstream.stream;
        let buffers = &self.client.worker.buffers;
        let upload = &mut self.upload;
        let flushed = if upload.outbox.is_empty() {
            upload
                .splice
                .poll_drain(stream, cx, &mut count, &buffers.pipes)
        } else {
            upload.outbox.poll_flush(stream, cx, &mut count, buffers)
        };
        self.moved |= count > 0;
        flushed
    }

    /// Takes what the client sends of a large body without looking at it, and says how much; 0 at
    /// its end. `None` when it has to be read.
    fn splice_upload(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<usize>>> {
        let body = &mut self.request.body;
        let left = body.blind().filter(|&left| left >= splice::LEAST);
        let (Some(left), true) = (left, self.client.input.is_empty()) else {
            return Poll::Ready(None);
        };
        let worker = &self.client.worker;
        let (from, pipes) = (&self.client.stream, &worker.buffers.pipes);
        let filled = ready!(self.upload.splice.poll_fill(from, cx, left, pipes));
        if filled.is_none() {
            worker.counters.met(Bound::Pipes);
        }
        if let Some(Ok(count @ 1..)) = filled {
            body.took(count as u64);
            self.client.count_in(count);
            self.moved = true;
            self.upload.body_read = true;
            self.release();
        }
        Poll::Ready(filled)
    }

    /// Sends what of `bytes` is the body's, and says how many that were.
    fn pass_upload(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<usize, Reject> {
        let worker = self.client.worker.clone();
        let mut out = worker.buffers.out();
        let (taken, rest) = match self.request.body.pass_as_is(bytes) {
            Some(taken) => (taken, &bytes[..taken]),
            None => {
                let limits = &worker.settings.limits;
                let taken = self.request.body.pass(bytes, limits, &mut out)?;
                (taken, out.as_slice())
            }
        };
        let stream = &self.upstream.stream;
        let sent = self
            .upload
            .outbox
            .send(stream, cx, &[], rest, &worker.buffers);
        self.upload.broken |= sent.is_err();
        Ok(taken)
    }
}
