//! One connection to a server in a machine, and how one is made.

use std::io;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use socket2::SockRef;

use crate::bounds::Bound;
use crate::pool::Key;
use crate::record::Usage;
use crate::runtime::{timeout, Stream};
use crate::table::Entry;
use crate::worker::Worker;

/// A connection to a guest. It counts as one of its machine's until it is dropped.
pub struct Upstream {
    pub stream: Stream,
    pub key: Key,
    /// Whether it has served an exchange before this one.
    pub reused: bool,
    /// A broken server would send a body after its last response
    /// ([`crate::http::response::ResponseHead::withholds_body`]).
    pub doubtful: bool,
    _place: Place,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoConnection {
    /// Refused, or no way there.
    Refused,
    /// No answer within the time limit.
    Timeout,
    /// The machine has as many connections as it may have, or this host has.
    Capacity,
}

/// Which idle connections may serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any: a request that finds it dead is sent again.
    Any,
    /// One that the system says is open at this moment, for a request that can be sent only once:
    /// a system call more, and no such request is lost to a close that has come already.
    Checked,
    None,
}

/// An idle connection for `key`, if there is one that `reuse` allows.
pub fn idle(worker: &Worker, key: &Key, reuse: Reuse) -> Option<Upstream> {
    if reuse == Reuse::None {
        return None;
    }
    let mut pool = worker.pool.borrow_mut();
    loop {
        let mut idle = pool.take(key)?;
        if (reuse == Reuse::Any && !idle.doubtful) || is_quiet(&idle.stream) {
            idle.reused = true;
            worker.counters.upstream_reuses.add(1);
            return Some(idle);
        }
    }
}

/// A new connection for `key`.
///
/// # Errors
/// Why there is none.
pub async fn connect(
    worker: &Rc<Worker>,
    entry: &Entry,
    key: Key,
) -> Result<Upstream, NoConnection> {
    let settings = &worker.settings;
    let place = Place::take(&entry.record.usage, settings.max_machine_connections).or_else(|| {
        // Its idle connections to other ports make room.
        worker.pool.borrow_mut().end(key.life);
        Place::take(&entry.record.usage, settings.max_machine_connections)
    });
    let Some(place) = place else {
        worker.counters.met(Bound::MachineConnections);
        return Err(NoConnection::Capacity);
    };
    let connecting = Stream::connect(key.address);
    let stream = match timeout(settings.times.connect, connecting).await {
        None => return Err(NoConnection::Timeout),
        Some(Err(error)) => {
            let why = reason(&error);
            if why == NoConnection::Capacity {
                worker.counters.met(Bound::HostSockets);
            }
            return Err(why);
        }
        Some(Ok(stream)) => stream,
    };
    // An error here would be the connection's own, which its first use tells better.
    let _ = SockRef::from(&stream).set_tcp_nodelay(true);
    worker.counters.upstream_connects.add(1);
    Ok(Upstream {
        stream,
        key,
        reused: false,
        doubtful: false,
        _place: place,
    })
}

/// Open, with nothing to read.
fn is_quiet(stream: &Stream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let peeked = SockRef::from(stream).peek(&mut byte);
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Out of descriptors, memory or local ports: this host's lack, not the other side's.
pub fn is_of_this_host(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}

fn reason(error: &io::Error) -> NoConnection {
    if is_of_this_host(error) {
        NoConnection::Capacity
    } else if error.kind() == io::ErrorKind::TimedOut {
        NoConnection::Timeout
    } else {
        NoConnection::Refused
    }
}

/// One of a machine's connections.
struct Place(Arc<Usage>);

impl Place {
    fn take(usage: &Arc<Usage>, most: u32) -> Option<Place> {
        Usage::take(&usage.connections, most).then(|| Place(usage.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
