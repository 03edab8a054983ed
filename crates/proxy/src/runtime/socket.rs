//! A socket and what is known of it. The system is told of it when it is first waited for: one that
//! never has to wait is never watched.

use std::cell::Cell;
use std::io;
use std::task::{Context, Poll};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use super::executor::{forget, with_reactor};

/// What a socket is waited for, or has: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest(u8);

impl Interest {
    pub const READABLE: Interest = Interest(1);
    pub const WRITABLE: Interest = Interest(2);
    pub const BOTH: Interest = Interest(3);

    pub fn has(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn with(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }

    pub fn without(self, other: Interest) -> Interest {
        Interest(self.0 & !other.0)
    }
}

/// The key of none.
const UNWATCHED: u32 = u32::MAX;

/// A socket that does not block, of this thread.
pub struct Socket {
    fd: OwnedFd,
    key: Cell<u32>,
    /// What is worth a try while it is not watched.
    worth: Cell<Interest>,
}

impl Socket {
    /// `worth`: what is worth a try before it is waited for.
    pub fn new(fd: OwnedFd, worth: Interest) -> Socket {
        Socket {
            fd,
            key: Cell::new(UNWATCHED),
            worth: Cell::new(worth),
        }
    }

    pub fn is_watched(&self) -> bool {
        self.key.get() != UNWATCHED
    }

    /// Ready when a call of this kind is worth a try; else its task is woken when one is.
    ///
    /// # Errors
    /// When the system has no room to watch it.
    pub fn poll_ready(&self, interest: Interest, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let (key, waker) = (self.key.get(), cx.waker());
        if key == UNWATCHED {
            let worth = self.worth.get();
            if worth.has(interest) {
                return Poll::Ready(Ok(()));
            }
            let key = with_reactor(|reactor| reactor.watch(self.as_fd(), interest, worth, waker));
            self.key.set(key?);
            return Poll::Pending;
        }
        if with_reactor(|reactor| reactor.is_ready(key, self.as_fd(), interest, waker))? {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// A call of this kind has taken, or given, less than it could: there was no more. Its next is
    /// waited for without a try.
    pub fn drained(&self, interest: Interest) {
        match self.key.get() {
            UNWATCHED => self.worth.set(self.worth.get().without(interest)),
            key => with_reactor(|reactor| reactor.drained(key, interest)),
        }
    }

    /// A call of this kind has said that it would block.
    fn clear(&self, interest: Interest) {
        match self.key.get() {
            UNWATCHED => self.worth.set(self.worth.get().without(interest)),
            key => with_reactor(|reactor| reactor.clear(key, interest)),
        }
    }

    /// Does `call` when it is worth a try, again and again until it has an answer.
    ///
    /// # Errors
    /// Its own, but for those that mean to wait.
    pub fn poll_io<T>(
        &self,
        interest: Interest,
        cx: &Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            std::task::ready!(self.poll_ready(interest, cx))?;
            match call(self.as_fd()) {
                Err(rustix::io::Errno::AGAIN) => self.clear(interest),
                Err(rustix::io::Errno::INTR) => {}
                result => return Poll::Ready(Ok(result?)),
            }
        }
    }

    /// Does `call`, which is no call of this type, and learns from an answer that means to wait.
    ///
    /// # Errors
    /// Its own.
    pub fn try_io<T>(
        &self,
        interest: Interest,
        call: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let result = call();
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.clear(interest);
        }
        result
    }

    /// Tells the system to forget it although other descriptors of it may be open.
    pub fn unwatch(&self) {
        if self.is_watched() {
            with_reactor(|reactor| reactor.unwatch(self.as_fd()));
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_watched() {
            forget(self.key.get());
        }
    }
}
