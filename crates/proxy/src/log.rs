//! What is told to whoever runs the process: one line each on stderr.

use std::fmt::Display;
use std::io::Write;

/// Writes a line. A stderr that is gone is no reason to stop serving (`eprintln!` would panic).
pub fn line(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "hyperfleet-proxy: {text}");
}
