//! Where the access log's lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};

/// The name that means standard error.
const STDERR: &str = "-";

/// A file, or standard error.
#[derive(Debug)]
pub enum Sink {
    File { path: PathBuf, file: File },
    Stderr,
}

impl Sink {
    /// Opens `path` for appending, and makes it (mode 0640) if it is not there.
    ///
    /// # Errors
    /// What the system says; of a FIFO that nobody reads ENXIO.
    pub fn open(path: &Path) -> io::Result<Sink> {
        if path == Path::new(STDERR) {
            return Ok(Sink::Stderr);
        }
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(flags.bits() as i32)
            .open(path)?;
        // Only opening must not wait, which that of a FIFO would: lines that can't be written at
        // once wait in the queue.
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        let path = path.to_owned();
        Ok(Sink::File { path, file })
    }

    /// Opens it anew, by its name; when that fails it stays as it is.
    ///
    /// # Errors
    /// As [`Sink::open`], with the path.
    pub fn reopen(&mut self) -> Result<(), String> {
        if let Sink::File { path, .. } = self {
            *self = Sink::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// Writes all of `bytes`, or as many as it can: how many, and what went wrong if not all.
    pub fn write(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        match self {
            Sink::File { file, .. } => write_whole(file, bytes),
            // Locked, so that no other line comes between.
            Sink::Stderr => write_whole(&mut io::stderr().lock(), bytes),
        }
    }
}

fn write_whole(out: &mut impl Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}
