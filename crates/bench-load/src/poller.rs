//! epoll(7), edge-triggered, and a timer. Each of both ends is one thread around one of these.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{
    timerfd_create, timerfd_settime, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags,
    Timespec,
};

/// Events taken at once.
const BATCH: usize = 512;
const TIMER: u64 = u64::MAX;

/// What happened to a source.
#[derive(Debug, Clone, Copy)]
pub struct Happened {
    /// What it was added under.
    pub key: usize,
    /// The peer has ended its sending, or all: read until the end shows.
    pub ended: bool,
}

pub struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), edge)?;
        Ok(Poller {
            epoll,
            timer,
            events: Vec::with_capacity(BATCH),
        })
    }

    /// Watches `source`, which closing takes away again.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, source: impl AsFd, key: usize) -> io::Result<()> {
        let edge = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, source, EventData::new_u64(key as u64), edge)?;
        Ok(())
    }

    /// Makes the wait end after `after`, whatever was asked before. epoll's own limit is in
    /// milliseconds, too coarse for a rate of some thousands a second.
    ///
    /// # Errors
    /// The system's.
    pub fn wake_after(&self, after: Duration) -> io::Result<()> {
        // Zero would disarm it.
        let after = after.max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: after.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: i64::from(after.subsec_nanos()),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Waits until something happens, and appends it to `happened`; the timer only ends the wait.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&mut self, happened: &mut Vec<Happened>) -> io::Result<()> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let of_sources = self.events.iter().filter(|event| event.data.u64() != TIMER);
        happened.extend(of_sources.map(|event| {
            // Copied out: the kernel's struct is packed.
            let flags = event.flags;
            Happened {
                key: event.data.u64() as usize,
                ended: flags.intersects(ended),
            }
        }));
        Ok(())
    }
}
