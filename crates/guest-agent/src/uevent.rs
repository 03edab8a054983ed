//! Waiting for devices: the kernel tells of each by a uevent (NETLINK_KOBJECT_UEVENT), after its
//! node in /dev and its attributes in /sys are there.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    bind, netlink, recv, socket_with, AddressFamily, RecvFlags, SocketFlags, SocketType,
};
use rustix::time::Timespec;

/// The multicast group in which the kernel itself tells.
const KERNEL: u32 = 1;

/// An ear for uevents, from when it was made.
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// # Errors
    /// When the kernel has no such socket.
    pub fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::KOBJECT_UEVENT),
        )?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, KERNEL))?;
        Ok(Self { socket })
    }

    /// Looks now and after every event until `look` finds something; `None` after `limit`.
    pub fn wait_for<T>(&self, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = look() {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let left = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left));
            self.forget();
        }
    }

    /// Takes what has been told. What it was does not matter, nor that some was lost (ENOBUFS).
    fn forget(&self) {
        let mut event = [0; 8192];
        while !matches!(
            recv(&self.socket, &mut event[..], RecvFlags::empty()),
            Err(Errno::AGAIN)
        ) {}
    }
}
