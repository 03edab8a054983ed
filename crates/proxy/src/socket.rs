//! A Unix socket that this process listens on for others of its user.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

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
                Ok(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        "another data plane listens there",
                    ));
                }
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

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // It may be gone already, with its folder.
            let _ = std::fs::remove_file(path);
        }
    }
}
