//! What the workers' tasks run on: one thread, epoll, and nothing that a connection does not need.
//!
//! [`executor`] polls the tasks of a thread, [`wake`] makes their wakers, [`epoll`] hears from the
//! system, [`socket`] stands between it and [`Stream`] and [`Listener`], [`timers`] holds the few
//! deadlines that are no connection's ([`crate::clock`] holds those). Channels, `Notify` and
//! `select!` are tokio's, which work under any executor.

mod epoll;
mod executor;
mod listener;
mod socket;
mod stream;
mod timers;
mod wake;

pub use executor::{block_on, spawn, spawn_with, yield_later, yield_now};
pub use listener::Listener;
pub use socket::Interest;
pub use stream::Stream;
pub use timers::{sleep, sleep_until, timeout};

#[cfg(test)]
mod tests;
