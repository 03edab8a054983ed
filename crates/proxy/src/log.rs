//! What is told to whoever runs the process: one line each on stderr.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

/// How long the log is spared the same complaint.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Writes a line. A stderr that is gone is no reason to stop serving (`eprintln!` would panic).
pub fn line(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "hyperfleet-proxy: {text}");
}

/// A complaint that may come often, and is written once a minute.
#[derive(Debug, Default)]
pub struct Sparing(Option<Instant>);

impl Sparing {
    /// Writes a line if the last is long ago.
    pub fn line(&mut self, text: impl Display) {
        if self.0.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
            self.0 = Some(Instant::now());
            line(text);
        }
    }
}
