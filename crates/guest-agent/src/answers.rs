//! How calls answer: through one bounded queue to the channel, each tagged with its session.

use std::cell::Cell;
use std::rc::Rc;

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
    receiver: mpsc::Receiver<(u64, FromGuest)>,
    sender: mpsc::Sender<(u64, FromGuest)>,
    current: Rc<Cell<u64>>,
}

/// One session's way to the host, for its calls. Clones share it.
#[derive(Clone)]
pub struct Answers {
    session: u64,
    current: Rc<Cell<u64>>,
    sender: mpsc::Sender<(u64, FromGuest)>,
}

impl Queue {
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self {
            receiver,
            sender,
            current: Rc::new(Cell::new(0)),
        }
    }

    /// Ends the session there is: its answers, queued ones too, are dropped from now on. What
    /// comes back is the way for calls of the session that begins.
    pub fn next_session(&self) -> Answers {
        self.current.set(self.current.get() + 1);
        Answers {
            session: self.current.get(),
            current: Rc::clone(&self.current),
            sender: self.sender.clone(),
        }
    }

    /// The next answer of the current session. Loses nothing when dropped.
    pub async fn next(&mut self) -> FromGuest {
        loop {
            match self.receiver.recv().await {
                Some((session, message)) if session == self.current.get() => return message,
                Some(_) => {}
                // `sender` is ours, so the queue never ends.
                None => std::future::pending().await,
            }
        }
    }
}

impl Answers {
    /// Sends `message` in its turn; drops it when the session has ended.
    pub async fn send(&self, message: FromGuest) {
        if self.session == self.current.get() {
            let _ = self.sender.send((self.session, message)).await;
        }
    }
}
