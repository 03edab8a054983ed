//! `hyperfleet-proxy`, the data plane's process.
fn main() {}
