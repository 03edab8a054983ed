//! Idle connections to guests, of one worker.
//!
//! The key holds the machine's life and the address, so a reused address never meets an old
//! connection. An idle connection has nothing to say: one that becomes readable was closed by the
//! guest, or lies, and is dropped at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;

use crate::upstream::Upstream;

/// What a connection leads to: the life of a machine, its port, the address connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub life: u64,
    pub port: u16,
    pub address: SocketAddr,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Few ports have two addresses at a time.
        state.write_u64(self.life << 16 | u64::from(self.port));
    }
}

/// Spreads one number. Lives are numbered by this process, so nobody outside picks numbers that
/// collide, and a request's four look-ups cost a multiplication each; SipHash took a tenth of the
/// instructions of a small request.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio. The table looks at both ends of the hash, and only the
        // upper bits of a product depend on all of the number.
        let product = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 << 8 ^ u64::from(byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Idle connections by [`Key`], the last one back the first to go out again.
pub struct Pool {
    idle: Slab<Idle>,
    by_key: HashMap<Key, Vec<usize>, BuildHasherDefault<Spread>>,
    /// One for each place in `idle` that was ever used.
    wakers: Vec<Waker>,
    readable: Arc<Readable>,
    most_per_key: usize,
    most: usize,
}

struct Idle {
    upstream: Upstream,
    key: Key,
    /// Milliseconds of the worker's clock.
    since: u64,
}

impl Pool {
    /// A pool that holds at most `most` connections, `most_per_key` to one port.
    pub fn new(most: usize, most_per_key: usize) -> Pool {
        Pool {
            idle: Slab::new(),
            by_key: HashMap::default(),
            wakers: Vec::new(),
            readable: Arc::default(),
            most_per_key,
            most,
        }
    }

    /// An idle connection for `key`.
    pub fn take(&mut self, key: &Key) -> Option<Upstream> {
        let waiting = self.by_key.get_mut(key)?;
        while let Some(at) = waiting.pop() {
            let idle = self.idle.remove(at);
            let context = Context::from_waker(&self.wakers[at]);
            // Readable and not yet swept out: dropped here.
            if idle.upstream.stream.poll_arrived(&context).is_pending() {
                if waiting.is_empty() {
                    self.by_key.remove(key);
                }
                return Some(idle.upstream);
            }
        }
        self.by_key.remove(key);
        None
    }

    /// Keeps a connection whose last exchange ended exactly. True if another had to go for it.
    pub fn put(&mut self, key: Key, upstream: Upstream, now: u64) -> bool {
        if self.most == 0 || self.most_per_key == 0 {
            return false;
        }
        let before = self.idle.len();
        if before >= self.most {
            let oldest = self.idle.iter().min_by_key(|(_, idle)| idle.since);
            if let Some((oldest, _)) = oldest {
                self.forget(oldest);
            }
        }
        if let Some(waiting) = self.by_key.get(&key) {
            if waiting.len() >= self.most_per_key {
                let oldest = waiting[0];
                self.forget(oldest);
            }
        }
        let made_room = self.idle.len() < before;
        let at = self.idle.insert(Idle {
            upstream,
            key,
            since: now,
        });
        while self.wakers.len() <= at {
            let place = self.wakers.len();
            self.wakers.push(Waker::from(Arc::new(IdleWaker {
                place,
                readable: self.readable.clone(),
            })));
        }
        self.by_key.entry(key).or_default().push(at);
        self.check(at);
        made_room
    }

    /// Drops what leads to a life that has ended.
    pub fn end(&mut self, life: u64) {
        self.forget_where(|idle| idle.key.life == life);
    }

    /// Drops what has been idle for `limit` at `now`.
    pub fn expire(&mut self, now: u64, limit: Duration) {
        let limit = limit.as_millis() as u64;
        self.forget_where(|idle| idle.since + limit <= now);
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.idle.clear();
        self.by_key.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    fn forget_where(&mut self, mut gone: impl FnMut(&Idle) -> bool) {
        let places: Vec<usize> = self
            .idle
            .iter()
            .filter(|(_, idle)| gone(idle))
            .map(|(at, _)| at)
            .collect();
        for at in places {
            self.forget(at);
        }
    }

    fn forget(&mut self, at: usize) {
        let Some(idle) = self.idle.try_remove(at) else {
            return;
        };
        if let Some(waiting) = self.by_key.get_mut(&idle.key) {
            waiting.retain(|&other| other != at);
            if waiting.is_empty() {
                self.by_key.remove(&idle.key);
            }
        }
    }

    /// Drops the connection at `at` if it is readable, else asks to hear when it is. The place may
    /// have another connection by now: then the question is asked again, which costs nothing.
    fn check(&mut self, at: usize) {
        let Some(idle) = self.idle.get(at) else {
            return;
        };
        let context = Context::from_waker(&self.wakers[at]);
        if idle.upstream.stream.poll_arrived(&context).is_ready() {
            self.forget(at);
        }
    }
}

/// Drops idle connections of `pool` as they become readable. Runs for ever.
pub async fn sweep(pool: Rc<RefCell<Pool>>) {
    let readable = pool.borrow().readable.clone();
    let mut places = Vec::new();
    loop {
        readable.wake.notified().await;
        std::mem::swap(&mut places, &mut readable.lock());
        let mut pool = pool.borrow_mut();
        for at in places.drain(..) {
            pool.check(at);
        }
    }
}

/// Places in the pool that may be readable. Wakers are `Send` by contract, hence the lock; only
/// the worker's own thread ever takes it.
#[derive(Default)]
struct Readable {
    places: Mutex<Vec<usize>>,
    wake: Notify,
}

impl Readable {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct IdleWaker {
    place: usize,
    readable: Arc<Readable>,
}

impl Wake for IdleWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.readable.lock().push(self.place);
        self.readable.wake.notify_one();
    }
}
