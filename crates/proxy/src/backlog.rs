//! Connections that waited in vain: the kernel holds so many for a socket that listens until they
//! are accepted, and drops what clients send to make further ones. It counts what it drops.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::bounds::Bound;
use crate::counters::Counters;

/// Connections from one look to the next. The backlog is longer, so one that was full is looked at
/// before it is empty again.
const EVERY: u32 = 64;
/// The place of a socket's drops in what SO_MEMINFO tells (linux/sock_diag.h, SK_MEMINFO_DROPS).
const DROPS: usize = 8;

/// What of a listening socket's drops was seen.
pub struct Backlog {
    dropped: u32,
    accepted: u32,
}

impl Backlog {
    /// What was dropped before is not counted: a socket may be older than this process.
    pub fn new(listener: &impl AsFd) -> Backlog {
        Backlog {
            dropped: drops(listener).unwrap_or(0),
            accepted: 0,
        }
    }

    /// A connection was accepted.
    pub fn accepted(&mut self, listener: Option<&impl AsFd>, counters: &Counters) {
        self.accepted += 1;
        if self.accepted < EVERY {
            return;
        }
        self.accepted = 0;
        // A kernel that does not tell (before 4.12) has nothing counted.
        let Some(dropped) = listener.and_then(|listener| drops(listener).ok()) else {
            return;
        };
        let more = dropped.wrapping_sub(std::mem::replace(&mut self.dropped, dropped));
        counters.met_times(Bound::ListenBacklog, more.into());
    }
}

/// How many packets the kernel has dropped at a socket, wrapping around.
fn drops(socket: &impl AsFd) -> io::Result<u32> {
    let mut told = [0u32; DROPS + 1];
    let mut length = size_of_val(&told) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which stand on this stack.
    let got = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            told.as_mut_ptr().cast(),
            &mut length,
        )
    };
    match got {
        0 => Ok(told[DROPS]),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// One that listens and holds `backlog` connections, and its address.
    fn listener(backlog: i32) -> (Socket, socket2::SockAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any.into()).unwrap();
        socket.listen(backlog).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn what_a_full_backlog_drops_is_counted_once() {
        let (listener, address) = listener(1);
        let counters = Counters::default();
        let met = || Counters::total([&counters]).bounds["listen_backlog"];
        let mut backlog = Backlog::new(&listener);
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                // It is on its way; loopback's packets arrive, or are dropped, within the call.
                let _ = client.connect(&address);
                client
            })
            .collect();
        for _ in 1..EVERY {
            backlog.accepted(Some(&listener), &counters);
        }
        assert_eq!(met(), 0);
        backlog.accepted(Some(&listener), &counters);
        let seen = met();
        assert!(seen >= 4, "{seen}");
        drop((listener, clients));
        let gone: Option<&Socket> = None;
        for _ in 0..EVERY {
            backlog.accepted(gone, &counters);
        }
        assert_eq!(met(), seen);
    }
}
