//! What the process gives up before it serves: root, every capability, and most system calls.
//!
//! Called when all that needs root is open and there is one thread; those that come later inherit
//! it (credentials(7), seccomp(2)). What was given up is looked up afterwards, in the kernel's own
//! words: a process that still has it does not serve.

mod refused;
mod seccomp;
mod user;

use std::io;

pub use refused::met as refused_calls;
use rustix::process::geteuid;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use crate::log;

/// Gives up root for `user` if there is root to give up, all capabilities in any case, and with
/// `filter` every system call that serving does not need.
///
/// # Errors
/// One line that says what could not be given up.
pub fn give_up(user: &str, filter: bool) -> Result<(), String> {
    let was_root = geteuid().is_root();
    if was_root {
        user::become_user(user)?;
    }
    let failed = |what: &str, error: io::Error| format!("{what} can't be given up: {error}");
    // Those that a service manager handed to a process without root (systemd.exec(5)).
    thread::clear_ambient_capability_set()
        .map_err(|error| failed("ambient capabilities", error.into()))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    thread::set_capabilities(None, none).map_err(|error| failed("capabilities", error.into()))?;
    thread::set_no_new_privs(true)
        .map_err(|error| failed("gaining privileges by execve", error.into()))?;
    let filtered = filter && seccomp::install()?;
    if filter && !filtered {
        log::line("this kernel has no seccomp filters: all system calls stay allowed");
    }
    check(filtered, was_root)
}

/// Whether every thread is without what was given up (proc(5), /proc/PID/status).
fn check(filtered: bool, was_root: bool) -> Result<(), String> {
    let unknown = |error: io::Error| format!("whether privileges are gone is unknown: {error}");
    for thread in std::fs::read_dir("/proc/self/task").map_err(unknown)? {
        let path = thread.map_err(unknown)?.path().join("status");
        let status = std::fs::read_to_string(path).map_err(unknown)?;
        if let Some(line) = left_over(&status, filtered, was_root) {
            return Err(format!(
                "privileges are not gone: {line:?} in /proc/self/status"
            ));
        }
    }
    Ok(())
}

/// A line's name, and whether its value is right.
type Wanted = (&'static str, fn(&str) -> bool);

/// The line that tells of something that should be gone, or the name of one that is missing.
fn left_over(status: &str, filtered: bool, was_root: bool) -> Option<String> {
    let value = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    };
    let mut wanted: Vec<Wanted> = vec![
        ("NoNewPrivs", |value| value == "1"),
        ("CapInh", is_zero),
        ("CapPrm", is_zero),
        ("CapEff", is_zero),
        ("CapAmb", is_zero),
    ];
    if was_root {
        wanted.push(("Uid", has_no_zero));
        wanted.push(("Gid", has_no_zero));
        wanted.push(("Groups", str::is_empty));
    }
    if filtered {
        wanted.push(("Seccomp", |value| value == "2"));
    }
    wanted.into_iter().find_map(|(name, is_right)| {
        let found = value(name);
        (!found.is_some_and(is_right)).then(|| format!("{name}: {}", found.unwrap_or("missing")))
    })
}

fn is_zero(hex: &str) -> bool {
    !hex.is_empty() && hex.bytes().all(|digit| digit == b'0')
}

/// Of the real, effective, saved and file system's id.
fn has_no_zero(ids: &str) -> bool {
    !ids.is_empty() && ids.split_whitespace().all(|id| id != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: &str = "Uid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534\n\
        Groups:\t \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
        CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n\
        NoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn whatever_is_left_is_found() {
        assert_eq!(left_over(GONE, true, true), None);
        for (from, to) in [
            ("Uid:\t65534\t65534", "Uid:\t65534\t0"),
            ("Gid:\t65534", "Gid:\t0"),
            ("Groups:\t ", "Groups:\t0 "),
            ("CapInh:\t00", "CapInh:\t01"),
            ("CapPrm:\t00", "CapPrm:\t01"),
            ("CapEff:\t00", "CapEff:\t01"),
            ("CapAmb:\t00", "CapAmb:\t01"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("NoNewPrivs:\t1\n", ""),
            ("Seccomp:\t2", "Seccomp:\t0"),
        ] {
            let status = GONE.replace(from, to);
            assert!(left_over(&status, true, true).is_some(), "{from:?}");
        }
        let ordinary = GONE
            .replace("65534", "1000")
            .replace("Seccomp:\t2", "Seccomp:\t0");
        assert_eq!(left_over(&ordinary, false, false), None);
    }
}
