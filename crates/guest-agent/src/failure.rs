//! What went wrong, in words: `cannot <what>: <why>`, on the console and in refusals.

use std::fmt::Display;
use std::io::Write;

/// Something that could not be done. Shown as `cannot {what}: {why}`.
#[derive(Debug)]
pub struct Failure {
    what: String,
    why: String,
}

impl Failure {
    pub fn new(what: impl Display, why: impl Display) -> Self {
        Self {
            what: what.to_string(),
            why: why.to_string(),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.why)
    }
}

/// Names what was being done when an error came.
pub trait OrCannot<T> {
    /// The error becomes `cannot {what}: {error}`.
    fn or_cannot(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> OrCannot<T> for Result<T, E> {
    fn or_cannot(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|why| Failure::new(what, why))
    }
}

/// One line on the console. The host keeps the console's last lines and shows them when a machine
/// fails. An error of the console itself has nowhere to go.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "hyperfleet-agent: {line}");
}
