//! Asking the control plane where a machine's port listens right now.
//!
//! Through user-mode networking a closed guest port accepts and then resets, so a connection's
//! fate says nothing of the guest; only its agent's word does. Workers ask, the control link
//! carries one question at a time for each port, and everybody who asked meanwhile gets its answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hyperfleet_wire::control::{FromProxy, ProbeOutcome};
use tokio::sync::{mpsc, oneshot};

use crate::runtime::timeout;

/// How long an answer is waited for.
pub const LIMIT: Duration = Duration::from_secs(1);

/// A worker's question.
pub struct Ask {
    machine: Box<str>,
    port: u16,
    answer: oneshot::Sender<ProbeOutcome>,
}

/// The workers' end; cheap to clone.
#[derive(Clone)]
pub struct Prober(mpsc::UnboundedSender<Ask>);

impl Prober {
    /// Both ends; the questions go to a [`Probes`].
    pub fn new() -> (Prober, mpsc::UnboundedReceiver<Ask>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Prober(sender), receiver)
    }

    /// What the machine's agent says of its port; `Unknown` after [`LIMIT`], and when no control
    /// plane is connected.
    pub async fn ask(&self, machine: &str, port: u16) -> ProbeOutcome {
        let (answer, told) = oneshot::channel();
        let ask = Ask {
            machine: machine.into(),
            port,
            answer,
        };
        if self.0.send(ask).is_err() {
            return ProbeOutcome::Unknown;
        }
        match timeout(LIMIT, told).await {
            Some(Ok(outcome)) => outcome,
            _ => ProbeOutcome::Unknown,
        }
    }
}

/// The questions that a control plane has not answered yet. Dropping it answers `Unknown`.
#[derive(Default)]
pub struct Probes {
    last: u64,
    open: HashMap<u64, Open>,
    by_port: HashMap<(Box<str>, u16), u64>,
}

struct Open {
    port: (Box<str>, u16),
    asked: Instant,
    waiting: Vec<oneshot::Sender<ProbeOutcome>>,
}

impl Probes {
    /// Takes a question at `now`; the message to send, unless the same is on its way already.
    pub fn ask(&mut self, ask: Ask, now: Instant) -> Option<FromProxy> {
        self.forget_old(now);
        let port = (ask.machine, ask.port);
        if let Some(open) = self.by_port.get(&port).and_then(|id| self.open.get_mut(id)) {
            open.waiting.push(ask.answer);
            return None;
        }
        self.last += 1;
        let message = FromProxy::Probe {
            id: self.last,
            machine: port.0.to_string(),
            port: port.1,
        };
        self.by_port.insert(port.clone(), self.last);
        self.open.insert(
            self.last,
            Open {
                port,
                asked: now,
                waiting: vec![ask.answer],
            },
        );
        Some(message)
    }

    /// The answer to question `id`; one that nobody waits for any more is ignored.
    pub fn answer(&mut self, id: u64, outcome: &ProbeOutcome) {
        let Some(open) = self.open.remove(&id) else {
            return;
        };
        self.by_port.remove(&open.port);
        for waiting in open.waiting {
            // Whoever asked may have given up.
            let _ = waiting.send(outcome.clone());
        }
    }

    /// A question older than [`LIMIT`] must not swallow the next one.
    fn forget_old(&mut self, now: Instant) {
        let by_port = &mut self.by_port;
        self.open.retain(|_, open| {
            let fresh = now.duration_since(open.asked) < LIMIT;
            if !fresh {
                by_port.remove(&open.port);
            }
            fresh
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(machine: &str, port: u16) -> (Ask, oneshot::Receiver<ProbeOutcome>) {
        let (answer, told) = oneshot::channel();
        let machine = machine.into();
        (
            Ask {
                machine,
                port,
                answer,
            },
            told,
        )
    }

    #[test]
    fn one_question_a_port_and_everybody_gets_the_answer() {
        let now = Instant::now();
        let mut probes = Probes::default();
        let (first, mut one) = ask("a", 80);
        let (second, mut two) = ask("a", 80);
        let (other, mut three) = ask("a", 81);
        let Some(FromProxy::Probe { id, machine, port }) = probes.ask(first, now) else {
            panic!("the first question is sent");
        };
        assert_eq!((machine.as_str(), port), ("a", 80));
        assert_eq!(probes.ask(second, now), None);
        assert!(probes.ask(other, now).is_some());
        probes.answer(id, &ProbeOutcome::Closed);
        probes.answer(id, &ProbeOutcome::Unknown);
        assert_eq!(one.try_recv(), Ok(ProbeOutcome::Closed));
        assert_eq!(two.try_recv(), Ok(ProbeOutcome::Closed));
        assert!(three.try_recv().is_err());
        drop(probes);
        assert_eq!(three.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn a_question_that_was_never_answered_is_asked_again() {
        let now = Instant::now();
        let mut probes = Probes::default();
        let (first, _one) = ask("a", 80);
        let (second, _two) = ask("a", 80);
        assert!(probes.ask(first, now).is_some());
        assert!(probes.ask(second, now + LIMIT).is_some());
        assert_eq!(probes.open.len(), 1);
    }
}
