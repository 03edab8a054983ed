//! Output pipes of processes that have ended, still held by a daemon they left behind.
//!
//! Closed, they would kill that daemon at its next line of log (SIGPIPE), or make its next request
//! fail (EPIPE): `sh -c "python3 -m http.server &"` is such a one. So they are read and dropped.

use std::cell::Cell;
use std::rc::Rc;

use tokio::net::unix::pipe;

/// Pipes read for daemons at once. Those over it are closed.
const MAX_PIPES: usize = 1024;
/// Bytes dropped by one read.
const PIECE: usize = 16 * 1024;

/// The pipes that are kept. Clones share the count.
#[derive(Clone, Default)]
pub struct Leftovers {
    kept: Rc<Cell<usize>>,
}

impl Leftovers {
    /// Reads `pipe` to its end and drops what comes.
    pub fn keep(&self, pipe: pipe::Receiver) {
        if self.kept.get() >= MAX_PIPES {
            return;
        }
        self.kept.set(self.kept.get() + 1);
        let kept = Rc::clone(&self.kept);
        tokio::task::spawn_local(async move {
            drain(&pipe).await;
            kept.set(kept.get() - 1);
        });
    }
}

async fn drain(pipe: &pipe::Receiver) {
    while pipe.readable().await.is_ok() {
        let mut piece = [0; PIECE];
        match pipe.try_read(&mut piece) {
            Ok(0) => return,
            Ok(_) => tokio::task::yield_now().await,
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
