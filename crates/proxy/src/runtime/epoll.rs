//! What the system says of sockets, by epoll(7), edge triggered: it says once that something has
//! come, and is not asked again before a call has said that nothing is left.

use std::io;
use std::task::Waker;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::Timespec;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use slab::Slab;

use super::socket::Interest;

/// Events that are taken at once.
const EVENTS: usize = 256;
/// What the mailbox's events carry; no source's key.
const BELL: u64 = u64::MAX;

/// The sockets of one thread.
pub struct Reactor {
    epoll: OwnedFd,
    sources: Slab<Source>,
    events: Vec<Event>,
}

/// A socket that was waited for. It is watched for what it was waited for, from then on.
#[derive(Default)]
struct Source {
    watched: Interest,
    /// Has come, and no call has said yet that nothing is left.
    ready: Interest,
    /// Will stay so.
    ended: Interest,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Reactor {
    /// `bell` becomes readable when other threads want something.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(bell: &OwnedFd) -> io::Result<Reactor> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, bell, EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Reactor {
            epoll,
            sources: Slab::new(),
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Waits for events, at most `limit`, and wakes who waits for them. True if the bell has rung.
    ///
    /// # Errors
    /// The system's; there is none that passes.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<bool> {
        // The system counts in milliseconds; a deadline is not to be asked for before it has come.
        let limit = limit.map(|limit| {
            let up = limit.as_nanos().div_ceil(1_000_000);
            let millis = i64::try_from(up).unwrap_or(i64::MAX).min(i32::MAX.into());
            Timespec {
                tv_sec: millis / 1000,
                tv_nsec: millis % 1000 * 1_000_000,
            }
        });
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            limit.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut rung = false;
        for event in &self.events {
            let (key, flags) = (event.data.u64(), event.flags);
            if key == BELL {
                rung = true;
            } else if let Some(source) = self.sources.get_mut(key as usize) {
                source.take(flags);
            }
        }
        Ok(rung)
    }

    /// Watches `fd` for `interest` and wakes `waker` when there is some. What is there already
    /// counts as news. `worth` is what it may have besides. Returns the key of the socket's source.
    ///
    /// # Errors
    /// When the system has no room for it.
    pub fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        worth: Interest,
        waker: &Waker,
    ) -> io::Result<u32> {
        let entry = self.sources.vacant_entry();
        let key = entry.key();
        let data = EventData::new_u64(key as u64);
        epoll::add(&self.epoll, fd, data, interest.flags())?;
        let source = entry.insert(Source {
            watched: interest,
            ready: worth.without(interest),
            ..Source::default()
        });
        source.keep(interest, waker);
        Ok(key as u32)
    }

    /// Whether `interest` is there; if not, `waker` is woken when it is.
    ///
    /// # Errors
    /// As [`Reactor::watch`].
    pub fn is_ready(
        &mut self,
        key: u32,
        fd: BorrowedFd<'_>,
        interest: Interest,
        waker: &Waker,
    ) -> io::Result<bool> {
        let source = &mut self.sources[key as usize];
        if source.ready.has(interest) {
            return Ok(true);
        }
        source.keep(interest, waker);
        if !source.watched.has(interest) {
            source.watched = source.watched.with(interest);
            let data = EventData::new_u64(key.into());
            epoll::modify(&self.epoll, fd, data, source.watched.flags())?;
        }
        Ok(false)
    }

    /// A call has said that nothing is left.
    pub fn clear(&mut self, key: u32, interest: Interest) {
        let source = &mut self.sources[key as usize];
        source.ready = source.ready.without(interest);
    }

    /// A call has taken all that there was; if there is an end, it is still to be told.
    pub fn drained(&mut self, key: u32, interest: Interest) {
        let source = &mut self.sources[key as usize];
        source.ready = source.ready.without(interest).with(source.ended);
    }

    /// Forgets a socket that is closed next, by which the system forgets it too.
    pub fn forget(&mut self, key: u32) {
        self.sources.try_remove(key as usize);
    }

    /// Tells the system to forget it, for one that is not closed or has other descriptors.
    pub fn unwatch(&mut self, fd: impl AsFd) {
        // Without it, it would be watched for nobody.
        let _ = epoll::delete(&self.epoll, fd);
    }
}

impl Source {
    fn keep(&mut self, interest: Interest, waker: &Waker) {
        let place = match interest {
            Interest::WRITABLE => &mut self.writer,
            _ => &mut self.reader,
        };
        match place {
            Some(kept) => kept.clone_from(waker),
            None => *place = Some(waker.clone()),
        }
    }

    fn take(&mut self, flags: EventFlags) {
        // An error or the end of both directions is for whoever uses it next.
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            self.ended = Interest::BOTH;
        } else if flags.contains(EventFlags::RDHUP) {
            self.ended = self.ended.with(Interest::READABLE);
        }
        if flags.contains(EventFlags::IN) {
            self.ready = self.ready.with(Interest::READABLE);
        }
        if flags.contains(EventFlags::OUT) {
            self.ready = self.ready.with(Interest::WRITABLE);
        }
        self.ready = self.ready.with(self.ended);
        if self.ready.has(Interest::READABLE) {
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        if self.ready.has(Interest::WRITABLE) {
            self.writer.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Interest {
    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::ET;
        if self.has(Interest::READABLE) {
            flags |= EventFlags::IN | EventFlags::RDHUP;
        }
        if self.has(Interest::WRITABLE) {
            flags |= EventFlags::OUT;
        }
        flags
    }
}
