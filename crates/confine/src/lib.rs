//! What all processes of a machine have in common on their host.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// Moves this process into a cgroup: what it starts is born there.
///
/// Before anything else, and before root is given up: who may do so is asked then. Zero is whoever
/// writes it (linux/Documentation/admin-guide/cgroup-v2.rst, "cgroup.procs"; kernel/cgroup/cgroup.c).
/// The kernel may take some milliseconds for it, since nobody may fork meanwhile.
///
/// # Errors
///
/// There is no such cgroup, or it may not be joined. Nothing is made.
pub fn join(cgroup: &Path) -> io::Result<()> {
    let mut procs = OpenOptions::new()
        .write(true)
        .open(cgroup.join("cgroup.procs"))?;
    procs.write_all(b"0")
}
