//! One request and its response: where it is sent, how often, and what becomes of both
//! connections. The bytes themselves pass in [`crate::relay`].

use std::future::{poll_fn, Future};
use std::net::SocketAddr;
use std::task::Poll;

use hyperfleet_wire::control::ProbeOutcome;

use crate::account::Account;
use crate::answer::{Answer, Shape};
use crate::bounds::Bound;
use crate::client::{Client, READ_AWAY};
use crate::fault;
use crate::intake::{respond, Admitted, Request, Turn, RETRY_AFTER};
use crate::life::{Ended, Watch};
use crate::measure::Measure;
use crate::pool::Key;
use crate::relay::{Outcome, Relay};
use crate::upstream::{self, NoConnection, Reuse, Upstream};

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The next request may come.
    Keep,
    /// Closed: everything was sent.
    Close,
    /// The same, and the client has promised to send nothing more: nobody has to look.
    Done,
    /// Closed as soon as the client has read what it was sent; it may be sending still.
    Linger,
    /// Closed at once: what the client has is visibly not the whole.
    Break,
    /// Reset: what the client has would else look whole.
    Reset,
}

/// What an exchange leads to.
pub enum Next {
    End(End),
    Tunnel(Box<Granted>),
}

/// An upgrade that the machine has granted.
pub struct Granted {
    pub upstream: Upstream,
    pub watch: Watch,
    pub websocket: bool,
    /// The machine's first bytes after it.
    pub early: Vec<u8>,
    /// It is one of the machine's requests as long as it lasts.
    pub admitted: Admitted,
    pub measure: Measure,
}

/// Serves `request`, which was admitted, and says what comes of it.
pub async fn run(client: &mut Client, mut request: Box<Request>) -> Next {
    let life = request.admitted.0.life.clone();
    let watch = poll_fn(|cx| Poll::Ready(life.watch(cx.waker().clone()))).await;
    client.timer.clear();
    let conversed = converse(client, &mut request, &watch).await;
    let buffer = std::mem::take(&mut request.buffer);
    client.worker.buffers.give_back(buffer);
    let end = match conversed {
        Ok((Outcome::Tunnel { websocket, early }, upstream)) => {
            return Next::Tunnel(Box::new(Granted {
                upstream,
                watch,
                websocket,
                early,
                admitted: request.admitted,
                measure: request.measure,
            }))
        }
        Ok((outcome, upstream)) => settle(client, &mut request, outcome, upstream, &watch).await,
        Err(answer) => Box::pin(fail(client, &mut request, answer)).await,
    };
    request.measure.end(client);
    Next::End(end)
}

/// The answer to requests of a machine that is not there any more.
pub fn ended(why: Ended) -> Answer {
    match why {
        Ended::Stopped => Answer::MachineNotRunning,
        Ended::Removed => Answer::MachineNotFound,
    }
}

/// Sends the request until a connection has an answer, and passes both on.
async fn converse(
    client: &mut Client,
    request: &mut Request,
    watch: &Watch,
) -> Result<(Outcome, Upstream), Answer> {
    let mut address = request.target.upstream;
    let mut probed = None;
    if client.worker.prober.is_some() && (!request.target.listening || address.is_none()) {
        let outcome = Box::pin(probe(client, request, watch)).await?;
        match &outcome {
            ProbeOutcome::Closed => return Err(Answer::ConnectFailed),
            ProbeOutcome::Listening { upstream } => address = told(upstream),
            ProbeOutcome::Unknown => {}
        }
        probed = Some(outcome);
    }
    let mut reuse = if request.repeatable() {
        Reuse::Any
    } else {
        Reuse::Checked
    };
    loop {
        let Some(to) = address else {
            return Err(Answer::ConnectFailed);
        };
        let key = Key {
            life: request.admitted.0.life.number,
            port: request.destination.port,
            address: to,
        };
        let connected = match upstream::idle(&client.worker, &key, reuse) {
            Some(idle) => Ok(idle),
            None => {
                let connecting = upstream::connect(&client.worker, &request.admitted.0, key);
                Box::pin(unless_ended(watch, connecting)).await?
            }
        };
        let mut upstream = match connected {
            Ok(upstream) => upstream,
            Err(NoConnection::Capacity) => {
                return Err(Answer::OverCapacity {
                    retry_after: RETRY_AFTER,
                })
            }
            Err(NoConnection::Timeout) => return Err(Answer::ConnectFailed),
            Err(NoConnection::Refused) => {
                // Nothing was sent: wherever it listens now, the whole request goes there, be it
                // the same address, where a server has just begun.
                address = Box::pin(elsewhere(client, request, watch, &mut probed)).await?;
                continue;
            }
        };
        fault::panic_at(to.port());
        request.measure.send(&client.worker);
        let relayed = Relay::new(client, request, &mut upstream, watch)
            .run()
            .await;
        let Outcome::Silent { body_read } = relayed else {
            return Ok((relayed, upstream));
        };
        if upstream.reused && request.idempotent && !body_read {
            reuse = Reuse::None;
            continue;
        }
        // What a server has been given that listened a moment ago is never sent twice.
        if upstream.reused {
            return Err(Answer::InvalidResponse);
        }
        drop(upstream);
        // It may have been heard: only a whole request, and only another address, is tried.
        let next = Box::pin(elsewhere(client, request, watch, &mut probed))
            .await
            .map_err(|answer| silent(answer, &probed, request.target.listening))?;
        if next == Some(to) || body_read {
            return Err(silent(Answer::InvalidResponse, &probed, true));
        }
        address = next;
    }
}

/// What a connection's silent end means: nothing listened there, or what listens is no server.
fn silent(answer: Answer, probed: &Option<ProbeOutcome>, listening: bool) -> Answer {
    match (answer, probed) {
        (Answer::ConnectFailed, None) => Answer::InvalidResponse,
        (Answer::ConnectFailed, Some(ProbeOutcome::Unknown)) if listening => {
            Answer::InvalidResponse
        }
        (Answer::ConnectFailed, Some(ProbeOutcome::Listening { .. })) => Answer::InvalidResponse,
        (answer, _) => answer,
    }
}

/// Where the port listens now, after a connection has failed.
///
/// # Errors
/// [`Answer::ConnectFailed`] when it does not, nobody knows, or it was asked before.
async fn elsewhere(
    client: &Client,
    request: &Request,
    watch: &Watch,
    probed: &mut Option<ProbeOutcome>,
) -> Result<Option<SocketAddr>, Answer> {
    if client.worker.prober.is_none() || probed.is_some() {
        return Err(Answer::ConnectFailed);
    }
    match probed.insert(probe(client, request, watch).await?) {
        ProbeOutcome::Listening { upstream } => Ok(told(upstream)),
        ProbeOutcome::Closed | ProbeOutcome::Unknown => Err(Answer::ConnectFailed),
    }
}

/// What the control plane says of the request's port.
async fn probe(client: &Client, request: &Request, watch: &Watch) -> Result<ProbeOutcome, Answer> {
    let Some(prober) = &client.worker.prober else {
        return Ok(ProbeOutcome::Unknown);
    };
    let machine = &request.admitted.0.record.id;
    unless_ended(watch, prober.ask(machine, request.destination.port)).await
}

/// The control plane's word for an address; one that is none leads nowhere.
fn told(upstream: &str) -> Option<SocketAddr> {
    upstream.parse().ok()
}

/// Waits for `wanted`, but no longer than the machine runs.
async fn unless_ended<T>(watch: &Watch, wanted: impl Future<Output = T>) -> Result<T, Answer> {
    let gone = poll_fn(|_| match watch.ended() {
        Some(why) => Poll::Ready(ended(why)),
        None => Poll::Pending,
    });
    tokio::select! {
        biased;
        answer = gone => Err(answer),
        value = wanted => Ok(value),
    }
}

/// Puts the connections where the exchange's outcome says.
async fn settle(
    client: &mut Client,
    request: &mut Request,
    outcome: Outcome,
    upstream: Upstream,
    watch: &Watch,
) -> End {
    match outcome {
        Outcome::Whole {
            reuse,
            keep,
            upload_ended,
        } => {
            request.measure.whole(&client.worker);
            let worker = client.worker.clone();
            if reuse && upload_ended && watch.ended().is_none() && !worker.draining() {
                let key = upstream.key;
                let now = worker.clock.now();
                if worker.pool.borrow_mut().put(key, upstream, now) {
                    worker.counters.met(Bound::IdleMachineConnections);
                }
            } else {
                drop(upstream);
            }
            match (upload_ended, keep) {
                (true, true) => End::Keep,
                (true, false) if request.last && client.input.is_empty() => End::Done,
                (true, false) => End::Close,
                // The rest of the request is nobody's any more.
                (false, true) if client.read_away(&mut request.body).await => End::Keep,
                (false, _) => End::Linger,
            }
        }
        Outcome::Failed(answer) => {
            drop(upstream);
            Box::pin(fail(client, request, answer)).await
        }
        Outcome::Broken(end) => end,
        // These were dealt with before.
        Outcome::Silent { .. } | Outcome::Tunnel { .. } => {
            Box::pin(fail(client, request, Answer::InvalidResponse)).await
        }
    }
}

/// Answers in place of the machine.
async fn fail(client: &mut Client, request: &mut Request, answer: Answer) -> End {
    let shape = if request.page {
        Shape::Page(Some(&request.destination))
    } else {
        Shape::Json
    };
    request.measure.answered(answer);
    let close = request.is_ambiguous() || request.body.is_over(READ_AWAY);
    let turn = poll_fn(|cx| {
        let account = Account::of_measured(client, &request.measure);
        let turn = respond(client, cx, answer, &request.asked, shape, close, account);
        Poll::Ready(turn)
    })
    .await;
    let body_limit = client.worker.settings.times.body;
    let keep = matches!(turn, Turn::Answered { keep: true, .. });
    if keep && client.flush(body_limit).await && client.read_away(&mut request.body).await {
        End::Keep
    } else {
        End::Linger
    }
}
