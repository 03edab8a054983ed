//! The `Server-Timing` field (W3C Server Timing): where the time until an answer's head was spent.

use std::io::Write;

/// Times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the request's first byte until it was sent to the machine, or answered by the proxy.
    pub hyperfleet_us: u64,
    /// From then to the machine's answer.
    pub upstream_us: Option<u64>,
}

impl Timing {
    /// Appends the field line; its times are milliseconds.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Server-Timing: hyperfleet;dur=");
        millis(self.hyperfleet_us, out);
        if let Some(us) = self.upstream_us {
            out.extend_from_slice(b", upstream;dur=");
            millis(us, out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn millis(us: u64, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{}.{:03}", us / 1000, us % 1000);
}
