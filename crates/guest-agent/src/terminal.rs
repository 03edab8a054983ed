//! A terminal of one process: the agent holds the side at which a person would sit.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use hyperfleet_wire::guest::Size;
use rustix::pty::{ioctl_tiocgptpeer, openpt, unlockpt, OpenptFlags};
use rustix::termios::{tcsetwinsize, Winsize};
use tokio::net::unix::pipe;

/// What a person types to end the input (VEOF, termios(3)), unless a program has set another.
pub const END_OF_FILE: u8 = 0x04;

/// The near side. The far one is the process's and its children's.
pub struct Terminal {
    near: OwnedFd,
}

impl Terminal {
    /// A new one, and its far side.
    ///
    /// # Errors
    /// The kernel has none to give, or no devpts is mounted.
    pub fn open(size: Size) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let near = openpt(flags)?;
        unlockpt(&near)?;
        // Not by its name: what is mounted in the machine is the user's own matter.
        let far = ioctl_tiocgptpeer(&near, flags)?;
        let terminal = Self { near };
        terminal.resize(size)?;
        Ok((terminal, far))
    }

    /// Sets its size; the processes in its foreground hear of it (SIGWINCH).
    ///
    /// # Errors
    /// The kernel's.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(&self.near, size)?)
    }

    /// What the process shows.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn output(&self) -> io::Result<pipe::Receiver> {
        pipe::Receiver::from_owned_fd_unchecked(self.copy()?)
    }

    /// Where its keys go.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn input(&self) -> io::Result<pipe::Sender> {
        pipe::Sender::from_owned_fd_unchecked(self.copy()?)
    }

    fn copy(&self) -> io::Result<OwnedFd> {
        let copy = self.near.as_fd().try_clone_to_owned()?;
        rustix::io::ioctl_fionbio(&copy, true)?;
        Ok(copy)
    }
}
