//! The real binary, and both ends of its sockets in the test's own hands: nothing is scripted in
//! another thread, so a test reads in the order in which things happen.

#![allow(dead_code, unused_imports)] // Each test file uses a part.

pub mod control_plane;
mod peer;
mod proxy;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

pub use peer::{fill, Peer, Server};
pub use proxy::{run, Folder, Proxy};

/// Long enough for a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const ID: &str = "abc123def456";

pub fn machine(
    id: &str,
    name: &str,
    status: &str,
    lifecycle: u64,
    ports: &[(u16, SocketAddr)],
) -> String {
    let ports: Vec<String> = ports
        .iter()
        .map(|(port, upstream)| format!(r#"{{"port":{port},"upstream":"{upstream}"}}"#))
        .collect();
    format!(
        r#"{{"id":"{id}","name":"{name}","status":"{status}","lifecycle":{lifecycle},"ports":[{}]}}"#,
        ports.join(",")
    )
}

pub fn routes(machines: &[String]) -> String {
    format!(r#"{{"machines":[{}]}}"#, machines.join(","))
}

/// The value of a field, its name in any case.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// This process' own limit of descriptors.
pub fn descriptor_limit() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct lives on this stack.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    assert_eq!(got, 0);
    limit
}

/// Says what a test measured, past the capture of its output.
pub fn figure(name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "staying up: {name}: {value}");
}
