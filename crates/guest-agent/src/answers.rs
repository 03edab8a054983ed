//! How calls answer: through one bounded queue to the channel, which ends with its session.

use hyperfleet_wire::guest::FromGuest;
use tokio::sync::mpsc;

/// Messages that may wait for the channel together. A sender over it waits its turn; turns are
/// given in the order of asking, so that one call's flood holds up no other call.
const QUEUE: usize = 8;

/// Why a call is not done. The codes are those of [`FromGuest::Refused`].
#[derive(Debug)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid", message)
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new("failed", message)
    }

    pub fn busy(message: impl Into<String>) -> Self {
        Self::new("busy", message)
    }

    pub fn not_found(program: &str) -> Self {
        Self::new("not_found", format!("{program}: not found"))
    }

    pub fn not_executable(program: &str) -> Self {
        Self::new("not_executable", format!("{program}: permission denied"))
    }

    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// As the ending of call `id`.
    pub fn into_message(self, id: u32) -> FromGuest {
        FromGuest::Refused {
            id,
            code: self.code.to_owned(),
            message: self.message,
        }
    }
}

impl From<crate::failure::Failure> for Refusal {
    fn from(failure: crate::failure::Failure) -> Self {
        Self::failed(failure.to_string())
    }
}

/// The queue's reading end, held by the service.
pub struct Queue {
    receiver: mpsc::Receiver<FromGuest>,
}

/// One session's way to the host, for its calls. Clones share it.
#[derive(Clone)]
pub struct Answers {
    sender: mpsc::Sender<FromGuest>,
}

impl Queue {
    /// Without a session: nothing comes out of it.
    pub fn new() -> Self {
        let (_, receiver) = mpsc::channel(QUEUE);
        Self { receiver }
    }

    /// Begins a session: what comes back is the way for its calls. Answers of the one before, those
    /// too that wait for their turn, are dropped; nothing holds up its calls from now on.
    pub fn next_session(&mut self) -> Answers {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.receiver = receiver;
        Answers { sender }
    }

    /// Ends the session there is, as [`Self::next_session`] does.
    pub fn end_session(&mut self) {
        *self = Self::new();
    }

    /// The next answer of the current session. Loses nothing when dropped.
    pub async fn next(&mut self) -> FromGuest {
        match self.receiver.recv().await {
            Some(message) => message,
            // No session.
            None => std::future::pending().await,
        }
    }
}

impl Answers {
    /// Sends `message` in its turn; drops it when the session has ended.
    pub async fn send(&self, message: FromGuest) {
        let _ = self.sender.send(message).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call whose host went away while it waited for its turn must not wait for the next host.
    #[tokio::test(flavor = "current_thread")]
    async fn the_end_of_a_session_lets_go_of_all_that_wait_for_their_turn() {
        let mut queue = Queue::new();
        let old = queue.next_session();
        let mut calls = tokio::task::JoinSet::new();
        for id in 1..=QUEUE as u32 * 3 {
            let answers = old.clone();
            calls.spawn(async move { answers.send(FromGuest::Done { id }).await });
        }
        // All of them ask for their turn before the first is answered.
        for _ in 0..=QUEUE * 3 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(queue.next().await, FromGuest::Done { id: 1 }));
        queue.end_session();
        calls.join_all().await;
        let new = queue.next_session();
        old.send(FromGuest::Done { id: 1000 }).await;
        new.send(FromGuest::Done { id: 1001 }).await;
        assert!(matches!(queue.next().await, FromGuest::Done { id: 1001 }));
    }
}
