//! A new process takes over from one that runs, and no connection is lost.
//!
//! The two speak over a Unix socket beside the control socket, the *door*. Its name is the control
//! socket's with [`SUFFIX`]; whoever may open it may take over, so it is its owner's alone.
//!
//! 1. The new process connects. The old one sends a [`Hello`], its sockets (SCM_RIGHTS, unix(7)):
//!    control, door, and those of its port; then its routes, as a control plane would.
//! 2. The new one starts its workers on the same sockets, and says [`READY`] when all of them have
//!    the routes. Until then the old one serves as if nothing were.
//! 3. The old one retires: it accepts no more, answers what it has, and asks each client by
//!    `Connection: close` to come again, to the new one. The listening sockets never close, so what
//!    waits in the kernel meanwhile is served.
//! 4. As long as the old one lives, the new one passes on every change of the routes, and counts it
//!    as applied when the old one has it too: a stop is in force for all connections.
//!
//! With several old ones each passes on to the one before it, and lives as long as that one.
//!
//! Whichever dies, and whenever, the other serves: before READY the old one, after it the new one.

mod give;
mod sockets;
mod take;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use give::{follow, Door};
pub use take::{take, Inherited, Predecessor};

/// What is added to the control socket's name.
const SUFFIX: &str = ".take-over";
/// Of this conversation. A process that is told another one does not take over.
const VERSION: u32 = 1;
/// The new process serves.
const READY: u8 = b'R';
/// The old process accepts no more; it has applied what it was passed on.
const APPLIED: u8 = b'A';

/// What the old process says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    version: u32,
    /// Its `--listen`.
    listen: SocketAddr,
    /// Sockets of its port; they follow those of control and door.
    listeners: u32,
    /// Routes follow: it has had some.
    known: bool,
}

/// The door's path.
pub fn door(control: &Path) -> PathBuf {
    let mut name = control.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}
