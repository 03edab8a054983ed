//! The byte stream to the host. Every transport is a non-blocking file descriptor behind the same
//! readiness, so that the service above never knows which one it is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::Timespec;
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

/// Room for the events of the one descriptor watched.
const EVENTS: usize = 4;
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// One end of the stream.
pub struct Channel {
    fd: OwnedFd,
    /// An epoll of its own that watches `fd` edge-triggered, and is itself watched by the runtime.
    ///
    /// While no host is connected a virtio-serial port polls as POLLIN|POLLHUP without end
    /// (Linux drivers/char/virtio_console.c, port_fops_poll). Level-triggered that is a busy
    /// loop; and the runtime takes a POLLHUP for final and would call the port readable for
    /// ever. The epoll between them passes on that something happened, and nothing else.
    edges: AsyncFd<OwnedFd>,
    lasting: bool,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(usize),
    /// Nothing now; wait for the next edge.
    Nothing,
    /// The host has gone. On a lasting channel it may come back: wait for the next edge.
    HostGone,
}

impl Channel {
    /// Over a virtio-serial port, which outlives every host that connects to it.
    pub fn virtio_serial(port: OwnedFd) -> io::Result<Self> {
        Self::new(port, true)
    }

    /// Over a connected Unix socket, which ends with its peer.
    pub fn unix(socket: OwnedFd) -> io::Result<Self> {
        Self::new(socket, false)
    }

    fn new(fd: OwnedFd, lasting: bool) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let watcher = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let both = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&watcher, &fd, epoll::EventData::new_u64(0), both)?;
        // SAFETY: the AsyncFd owns this OwnedFd, which is never replaced or closed before it.
        let edges = unsafe { AsyncFd::register_with_interest(watcher, Interest::READABLE) }?;
        Ok(Self { fd, edges, lasting })
    }

    /// Whether the channel is still of use after [`Read::HostGone`].
    pub fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// Returns when reading or writing may have become possible again; true when no host is there any
    /// more, though what it has said may not all be read. Loses nothing when dropped.
    pub async fn edge(&self) -> io::Result<bool> {
        let mut ready = self.edges.readable().await?;
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; EVENTS];
        let count = epoll::wait(ready.get_inner(), &mut events[..], Some(&NOW))?;
        ready.clear_ready();
        // A copy of each: the kernel's struct is packed.
        let mut flags = events[..count].iter().map(|event| event.flags);
        Ok(flags.any(|flags| flags.contains(epoll::EventFlags::HUP)))
    }

    /// Reads what is there into `buffer`, never waits.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Read> {
        match rustix::io::read(self.fd.as_fd(), buffer) {
            Ok(0) => Ok(Read::HostGone),
            Ok(count) => Ok(Read::Bytes(count)),
            Err(Errno::AGAIN) => Ok(Read::Nothing),
            Err(Errno::INTR) => Ok(Read::Bytes(0)),
            Err(Errno::CONNRESET) => Ok(Read::HostGone),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what fits now, never waits; `None` when nothing fits.
    pub fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match rustix::io::write(self.fd.as_fd(), bytes) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR) => Ok(Some(0)),
            // The reading side learns the same and ends the session.
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
