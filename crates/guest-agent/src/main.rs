//! `hyperfleet-guest-agent`, PID 1 of every machine.
fn main() {}
