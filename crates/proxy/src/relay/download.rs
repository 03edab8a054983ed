//! From the machine to the client: heads, then the body of the final one.

use std::io;
use std::task::{ready, Context, Poll};

use super::{Outcome, Relay};
use crate::answer::Answer;
use crate::body::Body;
use crate::bounds::Bound;
use crate::exchange::End;
use crate::http::response::{self, ResponseHead};
use crate::http::{Framing, Progress};
use crate::io::{poll_read, Share};
use crate::reply::{self, Reply};
use crate::splice::{self, Splice};

/// Least bytes of a body that are sent from where they were read, after their head; of fewer a copy
/// costs less than a write from two places.
const GATHERED: usize = 16 * 1024;

/// The response's way to the client.
#[derive(Default)]
pub(super) struct Download {
    pub(super) stage: Stage,
    splice: Splice,
    /// The machine's bytes, when a head has not come whole.
    input: Vec<u8>,
    partial: Option<Box<ResponseHead>>,
    /// A byte of a response has come.
    heard: bool,
    /// Of the final head: the connection may be used again.
    pub(super) reuse: bool,
    pub(super) keep: bool,
    /// The body's end is the connection's, for the client.
    pub(super) until_close: bool,
}

/// How far it has come.
#[derive(Default)]
pub(super) enum Stage {
    #[default]
    Head,
    Body(Body),
    /// Everything was passed on.
    Ended,
}

impl Relay<'_> {
    /// Passes on what the machine sends. Some only when that ends the exchange.
    #[inline]
    pub(super) fn poll_download(&mut self, cx: &mut Context<'_>) -> Option<Outcome> {
        let worker = self.client.worker.clone();
        let mut share = Share::new();
        loop {
            match self.client.poll_flush(cx, &mut self.moved) {
                Poll::Pending => return None,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Some(Outcome::Broken(End::Break)),
            }
            match self.drain_download(cx) {
                Poll::Pending => return None,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Some(Outcome::Broken(End::Break)),
            }
            match &self.download.stage {
                Stage::Ended => return None,
                Stage::Body(body) if body.ended() => {
                    self.download.stage = Stage::Ended;
                    return None;
                }
                _ => {}
            }
            if !share.is_left(cx) {
                return None;
            }
            match self.splice_download(cx) {
                Poll::Pending => return None,
                Poll::Ready(Some(Ok(count))) if count > 0 => {
                    share.take(count);
                    continue;
                }
                Poll::Ready(Some(result)) => return self.upstream_ended(cx, result.is_err()),
                Poll::Ready(None) => {}
            }
            let mut buffer = worker.buffers.read.borrow_mut();
            let count = match poll_read(&self.upstream.stream, cx, &mut buffer) {
                Poll::Pending => return None,
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(_)) => return self.upstream_ended(cx, true),
            };
            if count == 0 {
                if let Some(outcome) = self.upstream_ended(cx, false) {
                    return Some(outcome);
                }
                continue;
            }
            share.take(count);
            self.moved = true;
            self.download.heard = true;
            self.request.measure.hear(&worker);
            self.release();
            let bytes = &buffer[..count];
            let passed = match self.download.stage {
                Stage::Head if self.download.input.is_empty() => self.take_head(cx, bytes),
                Stage::Head => {
                    let mut input = std::mem::take(&mut self.download.input);
                    input.extend_from_slice(bytes);
                    self.take_head(cx, &input)
                }
                _ => self.take_body(cx, bytes, Vec::new()),
            };
            if passed.is_some() {
                return passed;
            }
        }
    }

    /// Takes what the machine sends of a large body without looking at it, as
    /// [`Relay::splice_upload`].
    fn splice_download(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<usize>>> {
        let Stage::Body(body) = &mut self.download.stage else {
            return Poll::Ready(None);
        };
        let Some(left) = body.blind().filter(|&left| left >= splice::LEAST) else {
            return Poll::Ready(None);
        };
        let (from, pipes) = (&self.upstream.stream, &self.client.worker.buffers.pipes);
        let filled = ready!(self.download.splice.poll_fill(from, cx, left, pipes));
        if filled.is_none() {
            self.client.worker.counters.met(Bound::Pipes);
        }
        if let Some(Ok(count @ 1..)) = filled {
            body.took(count as u64);
            self.moved = true;
        }
        Poll::Ready(filled)
    }

    /// Sends the client what was taken so.
    fn drain_download(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let worker = &self.client.worker;
        let (to, pipes) = (&self.client.stream, &worker.buffers.pipes);
        let mut count = 0;
        let drained = self.download.splice.poll_drain(to, cx, &mut count, pipes);
        self.client.count_out(count);
        self.moved |= count > 0;
        drained
    }

    /// Takes heads from the start of `bytes`, and what follows the final one.
    fn take_head(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> Option<Outcome> {
        let worker = self.client.worker.clone();
        let limits = &worker.settings.limits;
        let mut out = std::mem::take(&mut *worker.buffers.out());
        let mut shared = worker.buffers.response.borrow_mut();
        let mut partial = self.download.partial.take();
        let head = partial.as_deref_mut().unwrap_or(&mut shared);
        let reply = loop {
            match response::parse(bytes, limits, &self.request.asked, head) {
                Err(invalid) => {
                    self.met(Bound::of_invalid(invalid));
                    return Some(Outcome::Failed(Answer::InvalidResponse));
                }
                Ok(Progress::Partial) => {
                    // Interim answers that came before it go out now.
                    let sent = self.client.send(cx, &out);
                    self.download.input = bytes.to_vec();
                    self.download.partial =
                        partial.or_else(|| Some(Box::new(std::mem::take(&mut shared))));
                    *worker.buffers.out() = out;
                    return sent.is_err().then_some(Outcome::Broken(End::Break));
                }
                Ok(Progress::Whole(length)) => {
                    let close = worker.draining() || self.is_ambiguous();
                    let timing = self.request.measure.timing();
                    let asked = &self.request.asked;
                    let reply = reply::write(head, bytes, asked, close, timing, &mut out);
                    worker.counters.responses.count(head.status);
                    self.request.measure.head(head.status);
                    bytes = &bytes[length..];
                    match reply {
                        // The next head has its own time.
                        Reply::Interim => self.head_is_due = false,
                        reply => break reply,
                    }
                }
            }
        };
        self.download.reuse = head.keep_alive && head.framing != Framing::UntilClose;
        self.upstream.doubtful = head.withholds_body();
        let framing = head.framing;
        drop(shared);
        match reply {
            Reply::Interim => None,
            Reply::Tunnel { websocket } => {
                if !self.upload.ended {
                    return Some(Outcome::Failed(Answer::InvalidResponse));
                }
                self.client.outbox.keep(&out);
                let early = bytes.to_vec();
                Some(Outcome::Tunnel { websocket, early })
            }
            Reply::Final { body, keep_alive } => {
                self.download.keep = keep_alive;
                self.download.until_close = body == reply::Body::UntilClose;
                let chunked = body == reply::Body::Chunked;
                self.download.stage = Stage::Body(Body::response(framing, chunked));
                // The head waits in `out` for the body's first bytes: one write for both.
                self.take_body(cx, bytes, out)
            }
        }
    }

    /// Passes on what of `bytes` is the body's, after what is in `out`.
    fn take_body(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        mut out: Vec<u8>,
    ) -> Option<Outcome> {
        let worker = self.client.worker.clone();
        let Stage::Body(body) = &mut self.download.stage else {
            return None;
        };
        let direct = if out.is_empty() || bytes.len() >= GATHERED {
            body.pass_as_is(bytes)
        } else {
            None
        };
        let (taken, sent) = match direct {
            Some(taken) => {
                let sent = self.client.send_both(cx, &out, &bytes[..taken]);
                if !out.is_empty() {
                    *worker.buffers.out() = out;
                }
                (taken, sent)
            }
            None => {
                if out.is_empty() {
                    out = std::mem::take(&mut *worker.buffers.out());
                }
                let passed = body.pass(bytes, &worker.settings.limits, &mut out);
                let sent = self.client.send(cx, &out);
                *worker.buffers.out() = out;
                match passed {
                    Ok(taken) => (taken, sent),
                    Err(reject) => {
                        self.met(Bound::of_response_body(reject));
                        return Some(self.cut());
                    }
                }
            }
        };
        // What follows the body is nobody's: such a connection is in no state to be used again.
        self.download.reuse &= taken == bytes.len();
        sent.is_err().then_some(Outcome::Broken(End::Break))
    }

    /// The machine's connection ended, with an error or in order.
    fn upstream_ended(&mut self, cx: &mut Context<'_>, error: bool) -> Option<Outcome> {
        let Stage::Body(body) = &mut self.download.stage else {
            let body_read = self.upload.body_read || self.request.body_begun();
            return Some(if self.download.heard {
                Outcome::Failed(Answer::InvalidResponse)
            } else {
                Outcome::Silent { body_read }
            });
        };
        let mut end = Vec::new();
        if error || !body.close(&mut end) {
            return Some(self.cut());
        }
        let sent = self.client.send(cx, &end);
        sent.is_err().then_some(Outcome::Broken(End::Break))
    }
}
