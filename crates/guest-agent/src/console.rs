//! The machine's console as a place for the output of its own command. It is a serial line, slow
//! beside a pipe: whoever writes waits for it, and nobody else does.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

use crate::failure::say;

/// Bytes carried at once.
const PIECE: usize = 4096;

/// Where output goes, a piece after the other.
pub struct Console {
    to: To,
    turn: Mutex<()>,
}

enum To {
    Line(AsyncFd<File>),
    /// The standard error of an agent that is a process of a host.
    Error,
    /// The kernel has no console.
    Nobody,
}

impl Console {
    /// A guest's.
    pub fn of_guest() -> Self {
        let open = || {
            let line = File::options()
                .write(true)
                // An open of its own, so that what the agent itself says still waits for it.
                .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
                .open("/dev/console")?;
            // SAFETY: the AsyncFd owns this File, which is never replaced or closed before it.
            let line = unsafe { AsyncFd::register_with_interest(line, Interest::WRITABLE) };
            io::Result::Ok(line?)
        };
        let to = open().map_or_else(
            |why| {
                say(format_args!("cannot use the console for output: {why}"));
                To::Nobody
            },
            To::Line,
        );
        Self::new(to)
    }

    /// What stands for it on a host.
    pub fn of_host() -> Self {
        Self::new(To::Error)
    }

    fn new(to: To) -> Self {
        Self {
            to,
            turn: Mutex::new(()),
        }
    }

    /// Writes what comes through `pipe` to its end, which is when nobody has it open any more.
    pub async fn carry(&self, pipe: pipe::Receiver) {
        let mut piece = [0; PIECE];
        while pipe.readable().await.is_ok() {
            match pipe.try_read(&mut piece) {
                Ok(0) => return,
                Ok(count) => self.write(&piece[..count]).await,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            // A flood must not keep the other tasks of this thread waiting.
            tokio::task::yield_now().await;
        }
    }

    /// All of `data`, in one piece. An error of the console itself has nowhere to go.
    async fn write(&self, mut data: &[u8]) {
        let _turn = self.turn.lock().await;
        while !data.is_empty() {
            let written = match &self.to {
                To::Line(line) => {
                    line.async_io(Interest::WRITABLE, |mut line| line.write(data))
                        .await
                }
                To::Error => io::stderr().write(data),
                To::Nobody => return,
            };
            match written {
                Ok(count) if count > 0 => data = &data[count..],
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}
