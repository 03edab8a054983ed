//! Both directions of one exchange over one upstream connection, at once. Nothing is buffered: a
//! direction reads only when the other side has taken what was read before.

use std::future::poll_fn;
use std::io;
use std::task::{ready, Context, Poll};

use crate::answer::Answer;
use crate::body::Body;
use crate::bounds::Bound;
use crate::client::Client;
use crate::exchange::{ended, End};
use crate::http::response::{self, ResponseHead};
use crate::http::{Framing, Progress, Reject};
use crate::intake::Request;
use crate::io::{poll_read, Outbox, Share};
use crate::life::Watch;
use crate::reply::{self, Reply};
use crate::splice::{self, Splice};
use crate::upstream::Upstream;

/// Least bytes of a body that are sent from where they were read, after their head; of fewer a copy
/// costs less than a write from two places.
const GATHERED: usize = 16 * 1024;

/// How an exchange ended.
#[derive(Debug)]
pub enum Outcome {
    /// The response was passed on whole.
    Whole {
        /// The machine's connection can serve another exchange.
        reuse: bool,
        /// The client's may.
        keep: bool,
        /// The request was sent whole too; if not, the rest of its body is still to come.
        upload_ended: bool,
    },
    /// The upgrade was granted; `early` are the machine's first bytes after it.
    Tunnel { websocket: bool, early: Vec<u8> },
    /// Ended before the first byte of a response.
    Silent {
        /// Bytes of the request's body were read from the client.
        body_read: bool,
    },
    /// Nothing of a response has reached the client: it can be given this answer.
    Failed(Answer),
    /// The response can't be finished, or the client is gone.
    Broken(End),
}

/// An exchange on its way.
pub struct Relay<'a> {
    client: &'a mut Client,
    request: &'a mut Request,
    upstream: &'a mut Upstream,
    watch: &'a Watch,
    upload: Upload,
    download: Download,
    /// Bytes have moved since the deadline was last set.
    moved: bool,
    /// The deadline is that of the response's head.
    head_is_due: bool,
}

/// The request's way to the machine.
struct Upload {
    /// Bytes of the request's buffer that were sent.
    sent: usize,
    /// What the machine has not taken of the body that was read since.
    outbox: Outbox,
    splice: Splice,
    body_read: bool,
    /// All of it was sent.
    ended: bool,
    /// The machine takes no more; it may still answer.
    broken: bool,
}

/// The response's way to the client.
struct Download {
    stage: Stage,
    splice: Splice,
    /// The machine's bytes, when a head has not come whole.
    input: Vec<u8>,
    partial: Option<Box<ResponseHead>>,
    /// A byte of a response has come.
    heard: bool,
    /// Of the final head: the connection may be used again.
    reuse: bool,
    keep: bool,
    /// The body's end is the connection's, for the client.
    until_close: bool,
}

enum Stage {
    Head,
    Body(Body),
    /// Everything was passed on.
    Ended,
}

impl<'a> Relay<'a> {
    pub fn new(
        client: &'a mut Client,
        request: &'a mut Request,
        upstream: &'a mut Upstream,
        watch: &'a Watch,
    ) -> Relay<'a> {
        Relay {
            client,
            request,
            upstream,
            watch,
            upload: Upload {
                sent: 0,
                outbox: Outbox::default(),
                splice: Splice::default(),
                body_read: false,
                ended: false,
                broken: false,
            },
            download: Download {
                stage: Stage::Head,
                splice: Splice::default(),
                input: Vec::new(),
                partial: None,
                heard: false,
                reuse: false,
                keep: false,
                until_close: false,
            },
            moved: true,
            head_is_due: false,
        }
    }

    /// Passes the request and its response on.
    pub async fn run(mut self) -> Outcome {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.request.measure.turn();
        if let Some(outcome) = self.poll_upload(cx) {
            return Poll::Ready(outcome);
        }
        if let Some(outcome) = self.poll_download(cx) {
            return Poll::Ready(outcome);
        }
        if let Stage::Ended = self.download.stage {
            if self.upload.ended || self.upload.broken || self.upstream_left(cx) {
                return Poll::Ready(self.whole());
            }
        } else if let Some(why) = self.watch.ended() {
            // A response that has come whole is still the client's.
            if !self.response_came() {
                return Poll::Ready(self.give_up(ended(why)));
            }
        }
        if (self.upload.ended || self.upload.broken) && self.client.poll_ahead(cx).is_err() {
            return Poll::Ready(Outcome::Broken(End::Break));
        }
        self.set_deadline();
        if self.client.timer.expired() {
            return Poll::Ready(self.late());
        }
        Poll::Pending
    }

    /// Bytes that move put the deadline off; but a head has to be whole in time, however it drips.
    fn set_deadline(&mut self) {
        let times = &self.client.worker.settings.times;
        let moved = std::mem::take(&mut self.moved);
        if moved {
            self.request.measure.flow(self.client);
        }
        let head_is_due = self.upload.ended && matches!(self.download.stage, Stage::Head);
        if !head_is_due && moved {
            self.client.timer.set(times.body);
        } else if head_is_due && !self.head_is_due {
            self.client.timer.set(times.response);
        }
        self.head_is_due = head_is_due;
    }

    /// Sends what the client sends. Some only when that ends the exchange.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Option<Outcome> {
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
        if let Some(Ok(count @ 1..)) = filled {
            body.took(count as u64);
            self.client.count_in(count);
            self.moved = true;
            self.upload.body_read = true;
            self.release();
        }
        Poll::Ready(filled)
    }

    /// Gives the request's buffer back: there will be no second try.
    fn release(&mut self) {
        if self.upload.sent == self.request.buffer.len() {
            self.upload.sent = 0;
            let buffer = std::mem::take(&mut self.request.buffer);
            self.client.worker.buffers.give_back(buffer);
        }
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

    /// Passes on what the machine sends. Some only when that ends the exchange.
    fn poll_download(&mut self, cx: &mut Context<'_>) -> Option<Outcome> {
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
                    let reply = reply::write(head, bytes, &self.request.asked, close, &mut out);
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

    /// The response will not become whole. The client must be able to tell.
    fn cut(&self) -> Outcome {
        Outcome::Broken(if self.download.until_close {
            End::Reset
        } else {
            End::Break
        })
    }

    /// Ends the exchange with an answer, if none has begun.
    fn give_up(&self, answer: Answer) -> Outcome {
        match self.download.stage {
            Stage::Head => Outcome::Failed(answer),
            _ => {
                // No answer will tell of it, so nobody else counts it.
                self.met(Bound::of(answer));
                self.cut()
            }
        }
    }

    fn met(&self, bound: Option<Bound>) {
        if let Some(bound) = bound {
            self.client.worker.counters.met(bound);
        }
    }

    fn response_came(&self) -> bool {
        match &self.download.stage {
            Stage::Head => false,
            Stage::Body(body) => body.ended(),
            Stage::Ended => true,
        }
    }

    /// The time limit has passed: who was waited for?
    fn late(&self) -> Outcome {
        let waits_for_client = !self.upload.ended
            && self.upload.outbox.is_empty()
            && self.upload.splice.is_empty()
            && self.upload.sent == self.request.buffer.len();
        self.give_up(if waits_for_client {
            Answer::RequestTimeout
        } else {
            Answer::UpstreamTimeout
        })
    }

    /// See [`Request::is_ambiguous`]; of a body that has begun to come there is no doubt.
    fn is_ambiguous(&self) -> bool {
        self.request.is_ambiguous() && !self.upload.body_read
    }

    /// After its whole response: whether the machine has closed, or sends what nobody asked for,
    /// so that the rest of the request is of no use to it.
    fn upstream_left(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.download.reuse || self.is_ambiguous() {
            self.download.reuse = false;
            return true;
        }
        let mut byte = [0];
        let left = self.upstream.stream.poll_read(cx, &mut byte).is_ready();
        self.download.reuse &= !left;
        left
    }

    fn whole(&self) -> Outcome {
        Outcome::Whole {
            reuse: self.download.reuse && !self.upload.broken,
            keep: self.download.keep,
            upload_ended: self.upload.ended,
        }
    }
}
