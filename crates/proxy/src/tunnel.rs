//! An upgraded connection: bytes both ways until both ends have ended, half-closes included.

use std::future::poll_fn;
use std::io;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::client::Client;
use crate::exchange::{End, Granted};
use crate::io::{poll_read, Outbox, Share};
use crate::life::Watch;
use crate::measure::{Measure, Tunnelling};
use crate::runtime::Stream;
use crate::upstream::Upstream;
use crate::websocket::{FrameWalk, CLOSE_GOING_AWAY};

/// TCP keep-alive: a peer that vanished is noticed after about two minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// Passes bytes both ways. The client's first are in its input, and the 101 waits in its outbox.
pub async fn run(client: &mut Client, granted: Box<Granted>) -> End {
    let Granted {
        upstream,
        watch,
        websocket,
        early,
        admitted: _admitted,
        mut measure,
    } = *granted;
    let worker = client.worker.clone();
    let _counted = Tunnelling::new(&worker, &measure);
    keep_alive(&client.stream);
    keep_alive(&upstream.stream);
    client.outbox.keep(&early);
    client.timer.set(worker.settings.times.tunnel);
    if websocket {
        measure.becomes_websocket();
    }
    let mut tunnel = Tunnel {
        client,
        upstream,
        up: Outbox::default(),
        up_ended: false,
        down_ended: false,
        up_shut: false,
        down_shut: false,
        walk: websocket.then(FrameWalk::new),
        watch,
        measure: &mut measure,
    };
    if let Some(walk) = &mut tunnel.walk {
        walk.feed(&early);
    }
    drop(early);
    tunnel.up.keep(&std::mem::take(&mut tunnel.client.input));
    let end = poll_fn(|cx| tunnel.poll(cx)).await;
    if end == End::Linger {
        tunnel.client.outbox.keep(&CLOSE_GOING_AWAY);
    }
    measure.end(client);
    end
}

struct Tunnel<'a> {
    client: &'a mut Client,
    upstream: Upstream,
    up: Outbox,
    /// The client, or the machine, has ended its sending.
    up_ended: bool,
    down_ended: bool,
    /// The other side was told so.
    up_shut: bool,
    down_shut: bool,
    /// Of a WebSocket.
    walk: Option<FrameWalk>,
    watch: Watch,
    measure: &'a mut Measure,
}

impl Tunnel<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let may_close = |tunnel: &Self| {
            let between = tunnel.walk.as_ref().is_some_and(FrameWalk::may_close);
            between && !tunnel.down_ended
        };
        if self.watch.ended().is_some() {
            let end = if may_close(self) {
                End::Linger
            } else {
                End::Break
            };
            return Poll::Ready(end);
        }
        let mut moved = false;
        let up = self.poll_up(cx, &mut moved);
        let down = self.poll_down(cx, &mut moved);
        match (up, down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Close),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                return Poll::Ready(End::Break);
            }
            _ => {}
        }
        // Within a frame it goes on until the frame's end, or the drain's.
        if self.client.worker.draining() && may_close(self) {
            return Poll::Ready(End::Linger);
        }
        if moved {
            let limit = self.client.worker.settings.times.tunnel;
            self.client.timer.set(limit);
            self.measure.flow(self.client);
        } else if self.client.timer.expired() {
            return Poll::Ready(End::Break);
        }
        Poll::Pending
    }

    /// Client to machine. Ready when the client has ended and all of it was passed on.
    fn poll_up(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<io::Result<()>> {
        let worker = self.client.worker.clone();
        let mut share = Share::new();
        loop {
            let stream = &self.upstream.stream;
            if !self.up.is_empty() {
                let mut count = 0;
                let flushed = self.up.poll_flush(stream, cx, &mut count, &worker.buffers);
                *moved |= count > 0;
                ready!(flushed)?;
            }
            if self.up_ended {
                if !std::mem::replace(&mut self.up_shut, true) {
                    stream.shut();
                }
                return Poll::Ready(Ok(()));
            }
            if !share.is_left(cx) {
                return Poll::Pending;
            }
            let mut buffer = worker.buffers.read.borrow_mut();
            let count = ready!(self.client.poll_read(cx, &mut buffer))?;
            share.take(count);
            *moved = true;
            self.up_ended = count == 0;
            self.up
                .send(stream, cx, &[], &buffer[..count], &worker.buffers)?;
        }
    }

    /// Machine to client, likewise.
    fn poll_down(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<io::Result<()>> {
        let worker = self.client.worker.clone();
        let mut share = Share::new();
        loop {
            ready!(self.client.poll_flush(cx, moved))?;
            if self.down_ended {
                if !std::mem::replace(&mut self.down_shut, true) {
                    self.client.stream.shut();
                }
                return Poll::Ready(Ok(()));
            }
            if !share.is_left(cx) {
                return Poll::Pending;
            }
            let mut buffer = worker.buffers.read.borrow_mut();
            let count = ready!(poll_read(&self.upstream.stream, cx, &mut buffer))?;
            share.take(count);
            *moved = true;
            self.down_ended = count == 0;
            let bytes = &buffer[..count];
            if let Some(walk) = &mut self.walk {
                walk.feed(bytes);
            }
            self.client.send(cx, bytes)?;
        }
    }
}

fn keep_alive(stream: &Stream) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    // Without it the idle limit still ends what has vanished.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
