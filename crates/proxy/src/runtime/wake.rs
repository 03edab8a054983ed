//! Wakers that own nothing: a number says which task of which runtime. So a clone, of which each
//! wait makes one, costs no more than a copy, and a task needs no allocation but its future's.
//!
//! A waker may outlive its task and its runtime. A number that is in use again then wakes somebody
//! for nothing, which every future has to bear.

use std::ptr::without_provenance;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{RawWaker, RawWakerVTable, Waker};

use rustix::event::{eventfd, EventfdFlags};
use rustix::fd::OwnedFd;
use slab::Slab;

use super::executor;

/// A task: which runtime of this process, and which place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub runtime: u32,
    pub task: u32,
}

const _: () = assert!(usize::BITS == 64, "an address is packed into a pointer");

impl Address {
    pub fn waker(self) -> Waker {
        let packed = u64::from(self.runtime) << 32 | u64::from(self.task);
        // SAFETY: what RawWakerVTable asks for: the functions may be called from any thread, and
        // keep or free nothing. They read the pointer as the number it is and never follow it.
        unsafe { Waker::new(without_provenance(packed as usize), &VTABLE) }
    }

    fn of(data: *const ()) -> Address {
        let packed = data.addr() as u64;
        Address {
            runtime: (packed >> 32) as u32,
            task: packed as u32,
        }
    }
}

const VTABLE: RawWakerVTable =
    RawWakerVTable::new(|data| RawWaker::new(data, &VTABLE), wake, wake, |_| {});

fn wake(data: *const ()) {
    let address = Address::of(data);
    if !executor::wake_here(address) {
        let mailbox = mailboxes().get(address.runtime as usize).cloned();
        if let Some(mailbox) = mailbox {
            mailbox.post(address.task);
        }
    }
}

/// Every runtime of this process that is running.
static MAILBOXES: Mutex<Slab<Arc<Mailbox>>> = Mutex::new(Slab::new());

fn mailboxes() -> MutexGuard<'static, Slab<Arc<Mailbox>>> {
    MAILBOXES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tasks that other threads wake. Its descriptor is readable while there may be some.
pub struct Mailbox {
    tasks: Mutex<Vec<u32>>,
    pub bell: OwnedFd,
}

impl Mailbox {
    fn post(&self, task: u32) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push(task);
        if tasks.len() == 1 {
            // It fails only at 2^64 - 1 rings, and then it is readable.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Takes them all. The bell is silenced first: what is posted after that rings again.
    pub fn take(&self) -> Vec<u32> {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A runtime's place among those of this process, for as long as it runs.
pub struct Registered {
    pub runtime: u32,
    pub mailbox: Arc<Mailbox>,
}

impl Registered {
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> std::io::Result<Registered> {
        let mailbox = Arc::new(Mailbox {
            tasks: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        Ok(Registered {
            runtime: mailboxes().insert(mailbox.clone()) as u32,
            mailbox,
        })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        mailboxes().remove(self.runtime as usize);
    }
}
