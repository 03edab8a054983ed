//! Both directions of one exchange over one upstream connection, at once. Nothing is buffered: a
//! direction reads only when the other side has taken what was read before.

mod download;
mod upload;

use std::future::poll_fn;
use std::task::{Context, Poll};

use self::download::{Download, Stage};
use self::upload::Upload;
use crate::answer::Answer;
use crate::bounds::Bound;
use crate::client::Client;
use crate::exchange::{ended, End};
use crate::intake::Request;
use crate::life::Watch;
use crate::upstream::Upstream;

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
            upload: Upload::default(),
            download: Download::default(),
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

    /// Gives the request's buffer back: there will be no second try.
    #[inline]
    fn release(&mut self) {
        if self.upload.sent == self.request.buffer.len() {
            self.upload.sent = 0;
            let buffer = std::mem::take(&mut self.request.buffer);
            self.client.worker.buffers.give_back(buffer);
        }
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

    #[inline]
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
    #[inline]
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
