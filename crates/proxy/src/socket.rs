//! A Unix socket that this process listens on for others of its user.

use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;

/// How long a process that has been killed may take to close its sockets.
const DYING: Duration = Duration::from_secs(1);

/// The bound socket; its file is removed when this is dropped.
pub struct Socket {
    pub listener: UnixListener,
    /// `None`: the file is another process' by now.
    path: Option<PathBuf>,
}

impl Socket {
    /// Binds `path` for this user only. Call it before there are other threads (umask).
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when another process listens there, or something that is no
    /// socket is in the way; what bind says otherwise.
    pub fn bind(path: &Path) -> io::Result<Socket> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "a file that is no socket is there",
                ));
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(stream) if lives(&stream) => {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        "another data plane listens there",
                    ));
                }
                Ok(_) => std::fs::remove_file(path)?,
                // Nobody listens: its process is dead.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                }
                Err(error) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // SAFETY: umask changes one number of the process and cannot fail.
        let umask = unsafe { libc::umask(0o177) };
        let bound = UnixListener::bind(path);
        // SAFETY: as above.
        unsafe { libc::umask(umask) };
        Ok(Socket {
            listener: bound?,
            path: Some(path.to_owned()),
        })
    }

    /// A socket that another process has bound to `path` and handed over.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn inherit(listener: std::os::unix::net::UnixListener, path: &Path) -> io::Result<Socket> {
        listener.set_nonblocking(true)?;
        Ok(Socket {
            listener: UnixListener::from_std(listener)?,
            path: Some(path.to_owned()),
        })
    }

    /// Lets the file be: another process has the socket.
    pub fn leave(mut self) {
        self.path = None;
    }
}

/// Whether the process that listened is there still: one that is just dying closes its sockets one
/// after the other, and a connection that it has not accepted ends with them.
fn lives(mut stream: &UnixStream) -> bool {
    let ended = stream
        .set_read_timeout(Some(DYING))
        .and_then(|()| stream.read(&mut [0]));
    match ended {
        Ok(count) => count > 0,
        Err(error) => error.kind() != io::ErrorKind::ConnectionReset,
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // It may be gone already, with its folder.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_from_the_dying_and_not_from_the_living() {
        let path = std::env::temp_dir().join(format!("hyperfleet-socket-{}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let living = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = Socket::bind(&path).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        // The connection before was let go; the next ends with the listener, never accepted.
        living.accept().unwrap();
        let taken = std::thread::scope(|scope| {
            let taking = scope.spawn(|| {
                let runtime = runtime.enter();
                let taken = Socket::bind(&path).is_ok();
                drop(runtime);
                taken
            });
            let ready = rustix::event::PollFlags::IN;
            let mut waited = [rustix::event::PollFd::new(&living, ready)];
            rustix::event::poll(&mut waited, None).unwrap();
            drop(living);
            taking.join().unwrap()
        });
        assert!(taken);
    }
}
