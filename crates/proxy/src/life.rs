//! One run of a machine as a worker sees it, and who must hear of its end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use slab::Slab;

use crate::meter::Meters;

/// Why a machine's connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped or started anew.
    Stopped,
    /// It is gone.
    Removed,
}

/// One run of a machine as a worker sees it: who must hear of its end.
pub struct Life {
    /// Unique in this worker; the pool's key.
    pub number: u64,
    pub meters: Meters,
    ended: Cell<Option<Ended>>,
    watchers: RefCell<Slab<Waker>>,
}

impl Life {
    pub fn new(number: u64) -> Rc<Life> {
        Rc::new(Life {
            number,
            meters: Meters::default(),
            ended: Cell::new(None),
            watchers: RefCell::new(Slab::new()),
        })
    }

    pub fn ended(&self) -> Option<Ended> {
        self.ended.get()
    }

    /// Wakes `waker` when this life ends, for as long as the watch is kept.
    pub fn watch(self: &Rc<Self>, waker: Waker) -> Watch {
        Watch {
            key: self.watchers.borrow_mut().insert(waker),
            life: self.clone(),
        }
    }

    pub fn end(&self, why: Ended) {
        self.ended.set(Some(why));
        for (_, waker) in self.watchers.borrow().iter() {
            waker.wake_by_ref();
        }
    }
}

/// See [`Life::watch`].
pub struct Watch {
    life: Rc<Life>,
    key: usize,
}

impl Watch {
    pub fn ended(&self) -> Option<Ended> {
        self.life.ended()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.life.watchers.borrow_mut().remove(self.key);
    }
}
