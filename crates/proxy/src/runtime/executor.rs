//! The tasks of one thread, and the loop that polls them.
//!
//! A turn: every task that was woken, then the system is asked what has come, then the deadlines.
//! A task's panic ends that task and no other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{poll_fn, Future};
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::epoll::Reactor;
use super::timers::Timers;
use super::wake::{Address, Registered};

/// Tasks that are polled before the system is asked again, when one wakes another.
const TURN: usize = 256;
/// The place of the future that [`block_on`] was given; no task's.
const MAIN: u32 = u32::MAX;
/// The number of no runtime.
const NOWHERE: u32 = u32::MAX;

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Place {
    /// Empty while it is polled.
    task: Option<Task>,
    /// It waits in `woken` already.
    woken: bool,
}

/// This thread's runtime.
struct Local {
    runtime: Cell<u32>,
    tasks: RefCell<Slab<Place>>,
    woken: RefCell<VecDeque<u32>>,
    /// The main future was woken.
    main_woken: Cell<bool>,
    /// Woken when the system was asked.
    later: RefCell<Vec<Waker>>,
    timers: RefCell<Timers>,
    reactor: RefCell<Option<Reactor>>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            runtime: Cell::new(NOWHERE),
            tasks: RefCell::new(Slab::new()),
            woken: RefCell::new(VecDeque::new()),
            main_woken: Cell::new(false),
            later: RefCell::new(Vec::new()),
            timers: RefCell::new(Timers::new()),
            reactor: RefCell::new(None),
        }
    };
}

/// Runs `future`, and the tasks that are spawned meanwhile, on this thread until it is ready; what
/// is left of the tasks is dropped then. `panicked` is called after a task's panic; one of `future`
/// is the caller's own.
///
/// # Errors
/// When the system gives no descriptors, or can't be waited for.
///
/// # Panics
/// When this thread runs one already.
pub fn block_on<F: Future>(panicked: impl Fn(), future: F) -> io::Result<F::Output> {
    let entered = Entered::new()?;
    let mut future = pin!(future);
    let waker = entered.address(MAIN).waker();
    let mut now = Instant::now();
    LOCAL.with(|local| {
        local.main_woken.set(true);
        loop {
            if local.main_woken.replace(false) {
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    return Ok(output);
                }
            }
            local.poll_woken(&entered, &panicked);
            local.wait(&entered, now)?;
            now = Instant::now();
            local.timers.borrow_mut().fire(now);
            local.wake_later();
        }
    })
}

/// Adds a task to this thread's runtime.
///
/// # Panics
/// When there is none.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    spawn_with(|_| task);
}

/// Adds the task that `make` makes, which is given the task's own waker.
///
/// # Panics
/// As [`spawn`].
pub fn spawn_with<F: Future<Output = ()> + 'static>(make: impl FnOnce(Waker) -> F) {
    LOCAL.with(|local| {
        let runtime = local.runtime.get();
        assert_ne!(runtime, NOWHERE, "spawn outside of block_on");
        // Its place is taken first: `make` may spawn too.
        let task = local.tasks.borrow_mut().insert(Place {
            task: None,
            woken: true,
        }) as u32;
        let made = Box::pin(make(Address { runtime, task }.waker()));
        local.tasks.borrow_mut()[task as usize].task = Some(made);
        local.woken.borrow_mut().push_back(task);
    });
}

/// Wakes `waker` after the others, when the system was asked what has come for them meanwhile.
pub fn yield_later(waker: &Waker) {
    LOCAL.with(|local| local.later.borrow_mut().push(waker.clone()));
}

/// Lets the others have their turn; see [`yield_later`].
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        yield_later(cx.waker());
        Poll::Pending
    })
    .await;
}

/// Wakes a task if it is this thread's; false if it is not.
pub fn wake_here(address: Address) -> bool {
    // A thread that is ending has no runtime.
    LOCAL
        .try_with(|local| {
            let here = local.runtime.get() == address.runtime;
            if here {
                local.wake(address.task);
            }
            here
        })
        .unwrap_or(false)
}

/// This thread's reactor.
///
/// # Panics
/// When no runtime runs here.
pub fn with_reactor<T>(act: impl FnOnce(&mut Reactor) -> T) -> T {
    LOCAL.with(|local| {
        let mut reactor = local.reactor.borrow_mut();
        act(reactor.as_mut().expect("a runtime runs on this thread"))
    })
}

/// Forgets a socket that is being closed, if its runtime has not ended before it.
pub fn forget(key: u32) {
    LOCAL.with(|local| {
        if let Some(reactor) = local.reactor.borrow_mut().as_mut() {
            reactor.forget(key);
        }
    });
}

/// This thread's timers.
pub fn with_timers<T>(act: impl FnOnce(&mut Timers) -> T) -> T {
    LOCAL.with(|local| act(&mut local.timers.borrow_mut()))
}

impl Local {
    fn wake(&self, task: u32) {
        if task == MAIN {
            return self.main_woken.set(true);
        }
        if let Some(place) = self.tasks.borrow_mut().get_mut(task as usize) {
            if !std::mem::replace(&mut place.woken, true) {
                self.woken.borrow_mut().push_back(task);
            }
        }
    }

    fn poll_woken(&self, entered: &Entered, panicked: &impl Fn()) {
        for _ in 0..TURN {
            let Some(at) = self.woken.borrow_mut().pop_front() else {
                return;
            };
            self.poll(entered.address(at), panicked);
        }
    }

    fn poll(&self, address: Address, panicked: &impl Fn()) {
        let at = address.task as usize;
        let mut task = {
            let mut tasks = self.tasks.borrow_mut();
            // A task that was woken in its last poll is gone.
            let Some(place) = tasks.get_mut(at) else {
                return;
            };
            place.woken = false;
            match place.task.take() {
                Some(task) => task,
                None => return,
            }
        };
        let waker = address.waker();
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut context)));
        if let Ok(Poll::Pending) = polled {
            self.tasks.borrow_mut()[at].task = Some(task);
            return;
        }
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(task)));
        self.tasks.borrow_mut().remove(at);
        if polled.is_err() || dropped.is_err() {
            panicked();
        }
    }

    /// Waits until something has come, or the next deadline; not at all while there is work.
    fn wait(&self, entered: &Entered, now: Instant) -> io::Result<()> {
        let busy = self.main_woken.get()
            || !self.woken.borrow().is_empty()
            || !self.later.borrow().is_empty();
        let limit = if busy {
            Some(Duration::ZERO)
        } else {
            let next = self.timers.borrow().next();
            next.map(|at| at.saturating_duration_since(now))
        };
        if with_reactor(|reactor| reactor.wait(limit))? {
            for task in entered.registered.mailbox.take() {
                self.wake(task);
            }
        }
        Ok(())
    }

    fn wake_later(&self) {
        for waker in self.later.take() {
            waker.wake();
        }
    }
}

/// The time in which this thread runs a runtime.
struct Entered {
    registered: Registered,
}

impl Entered {
    fn new() -> io::Result<Entered> {
        let registered = Registered::new()?;
        LOCAL.with(|local| {
            assert_eq!(local.runtime.get(), NOWHERE, "block_on within block_on");
            *local.reactor.borrow_mut() = Some(Reactor::new(&registered.mailbox.bell)?);
            local.runtime.set(registered.runtime);
            Ok(Entered { registered })
        })
    }

    fn address(&self, task: u32) -> Address {
        Address {
            runtime: self.registered.runtime,
            task,
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        LOCAL.with(|local| {
            // One by one and outside of any borrow: a task's end may wake or spawn others.
            loop {
                let mut tasks = local.tasks.borrow_mut();
                let Some(at) = tasks.iter().next().map(|(at, _)| at) else {
                    break;
                };
                let place = tasks.remove(at);
                drop(tasks);
                // It has nobody left to hurt, and the others' ends are wanted too.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(place)));
            }
            local.woken.take();
            local.later.take();
            *local.timers.borrow_mut() = Timers::new();
            *local.reactor.borrow_mut() = None;
            local.runtime.set(NOWHERE);
        });
    }
}
