//! How many clients the process has, in all and of each address. Shared by the workers, looked at
//! once a connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bounds::Bound;

/// Connections over the bound that are still told so, as one part of it: an answer holds a
/// connection for a moment, and these must be bounded too.
const TOLD_PART: usize = 8;
/// And so many in any case.
const TOLD_LEAST: usize = 16;

/// Whether a client may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Free,
    /// There are too many in all: it is told so.
    ProxyFull,
    /// There are too many of its address: it is told so.
    AddressFull,
    /// There are so many even of those that were told that it is closed without a word.
    None(Bound),
}

/// The clients of all workers.
pub struct Clients {
    most: usize,
    /// Of one address; 0: not counted.
    most_of_one: u32,
    open: AtomicUsize,
    by_address: Mutex<HashMap<u64, u32>>,
}

impl Clients {
    /// `most` connections in all, `most_of_one` from one address (0: not bounded).
    pub fn new(most: usize, most_of_one: u32) -> Clients {
        Clients {
            most,
            most_of_one,
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
        }
    }

    /// Counts a client. An `exempt` one is a proxy, and stands for many addresses.
    pub fn take(self: &Arc<Self>, address: IpAddr, exempt: bool) -> (Place, Room) {
        let open = self.open.fetch_add(1, Relaxed) + 1;
        let key = if exempt || self.most_of_one == 0 {
            0
        } else {
            key(address)
        };
        let of_one = if key == 0 {
            0
        } else {
            let mut by_address = self.lock();
            let count = by_address.entry(key).or_insert(0);
            *count += 1;
            *count
        };
        let told = |most: usize| most + most / TOLD_PART + TOLD_LEAST;
        let most_of_one = self.most_of_one as usize;
        let room = if open > told(self.most) {
            Room::None(Bound::Connections)
        } else if key != 0 && of_one as usize > told(most_of_one) {
            Room::None(Bound::AddressConnections)
        } else if open > self.most {
            Room::ProxyFull
        } else if key != 0 && of_one > self.most_of_one {
            Room::AddressFull
        } else {
            Room::Free
        };
        let clients = self.clone();
        (Place { clients, key }, room)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u32>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's place; given back when dropped.
pub struct Place {
    clients: Arc<Clients>,
    /// 0: not counted by address.
    key: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.open.fetch_sub(1, Relaxed);
        if self.key == 0 {
            return;
        }
        let mut by_address = self.clients.lock();
        if let Some(count) = by_address.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.key);
            }
        }
    }
}

/// Who counts as one: an IPv4 address, or an IPv6 network of 64 bits, which one customer has
/// whole (RFC 6177). The two never meet: no public network begins with 0:ffff (RFC 4291). 0 is
/// that of `::1`.
fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(four) => 0xffff << 32 | u64::from(four.to_bits()),
        IpAddr::V6(six) => (six.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(most: usize, of_one: u32) -> Arc<Clients> {
        Arc::new(Clients::new(most, of_one))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_is_one_however_it_is_written_and_a_network_of_64_bits_is_too() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let clients = clients(100, 1);
            let (_first, room) = clients.take(address(one), false);
            assert_eq!(room, Room::Free);
            let (_second, room) = clients.take(address(other), false);
            assert_eq!(room == Room::AddressFull, same, "{one} {other}");
        }
    }

    #[test]
    fn places_are_given_back_and_proxies_are_not_counted() {
        let clients = clients(100, 2);
        let one = address("192.0.2.1");
        let held: Vec<_> = (0..10).map(|_| clients.take(one, true)).collect();
        assert!(held.iter().all(|(_, room)| *room == Room::Free));
        let (first, _) = clients.take(one, false);
        let (_second, room) = clients.take(one, false);
        assert_eq!(room, Room::Free);
        assert_eq!(clients.take(one, false).1, Room::AddressFull);
        drop(first);
        assert_eq!(clients.take(one, false).1, Room::Free);
        drop((held, _second));
        assert!(clients.lock().is_empty());
        assert_eq!(clients.open.load(Relaxed), 0);
    }

    #[test]
    fn what_is_told_is_bounded_too() {
        let clients = clients(8, 0);
        let one = address("192.0.2.1");
        let held: Vec<_> = (0..40).map(|_| clients.take(one, false)).collect();
        let count = |wanted| held.iter().filter(|(_, room)| *room == wanted).count();
        let told = 8 / TOLD_PART + TOLD_LEAST;
        assert_eq!((count(Room::Free), count(Room::ProxyFull)), (8, told));
        assert_eq!(count(Room::None(Bound::Connections)), 40 - 8 - told);
    }
}
