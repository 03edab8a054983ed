//! Standard output and standard error of one process, from their pipes to the host.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use hyperfleet_wire::guest::MAX_CHUNK;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::leftovers::Leftovers;
use crate::way::Way;

thread_local! {
    /// Where every read lands first, so that a pipe that waits holds no memory.
    static LANDING: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_CHUNK].into());
}

/// How long a terminal whose process has gone may take to give its last words. It is hung up by
/// then, and every other process at it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Stdout,
    Stderr,
}

/// One stream of one call.
pub struct Output<'a> {
    kind: Kind,
    /// Bytes that may still be told.
    room: u64,
    /// Whether more came than could be told.
    pub truncated: bool,
    way: &'a Way,
}

impl<'a> Output<'a> {
    /// On its `way` the first `limit` bytes go.
    pub fn new(kind: Kind, limit: u64, way: &'a Way) -> Self {
        Self {
            kind,
            room: limit,
            truncated: false,
            way,
        }
    }

    /// Tells what comes through `pipe` until its end, or until the process has `gone` and all that
    /// it wrote has been told. A daemon that it left may hold the other end open for ever.
    pub async fn carry(
        &mut self,
        pipe: pipe::Receiver,
        mut gone: watch::Receiver<bool>,
        leftovers: &Leftovers,
    ) {
        loop {
            let most = self.way.most().await;
            tokio::select! {
                biased;
                _ = gone.wait_for(|gone| *gone) => break,
                ready = pipe.readable() => {
                    if ready.is_err() {
                        return;
                    }
                }
            }
            match self.take(most, |landing| pipe.try_read(landing)).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        // Counted once: a daemon that goes on writing must not keep the call from ending.
        let mut left = rustix::io::ioctl_fionread(&pipe).map_or(0, |count| count as usize);
        while left > 0 {
            // Not `try_read`, which reads nothing when the runtime has not heard of the bytes yet.
            let read = |landing: &mut [u8]| Ok(rustix::io::read(&pipe, landing)?);
            let most = self.way.most().await.min(left);
            match self.take(most, read).await {
                Ok(count) if count > 0 => left -= count,
                _ => return,
            }
        }
        leftovers.keep(pipe);
    }

    /// The same of a terminal, which ends when the process that leads it has: then, not before, all
    /// it showed can be read.
    pub async fn carry_terminal(&mut self, near: pipe::Receiver, mut gone: watch::Receiver<bool>) {
        let silence = async {
            let _ = gone.wait_for(|gone| *gone).await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::pin!(silence);
        loop {
            let most = self.way.most().await;
            tokio::select! {
                biased;
                ready = near.readable() => {
                    if ready.is_err() {
                        return;
                    }
                }
                () = &mut silence => return,
            }
            match self.take(most, |landing| near.try_read(landing)).await {
                Ok(count) if count > 0 => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                // EIO: nobody is at the far side any more (pty(7)).
                _ => return,
            }
        }
    }

    /// Reads up to `most` bytes and tells of them. How many were read.
    async fn take(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let (count, kept) = LANDING.with_borrow_mut(|landing| {
            let count = read(&mut landing[..most.min(MAX_CHUNK)])?;
            let kept = self.room.min(count as u64) as usize;
            io::Result::Ok((count, landing[..kept].to_vec()))
        })?;
        self.room -= kept.len() as u64;
        self.truncated |= kept.len() < count;
        if !kept.is_empty() {
            self.way.tell(self.kind, kept).await;
        }
        // A flood must not keep the other tasks of this thread waiting.
        tokio::task::yield_now().await;
        Ok(count)
    }
}
