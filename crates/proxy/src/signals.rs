//! The signals that the process serves by.

use std::io;

use tokio::signal::unix::{signal, SignalKind};

/// What one of them asks for.
#[derive(PartialEq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals that are not left to end the process at once.
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
}

impl Signals {
    /// Catches them from here on.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.reload.recv() => Signal::Reload,
        }
    }

    /// Waits until the process is asked to end.
    pub async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}
