//! Which addresses are the host's own, as its kernel knows it at this moment.

use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// How long an answer is believed: a host gets a new address now and then.
const BELIEVED: Duration = Duration::from_secs(1);
/// A guest may name as many addresses as it likes.
const MOST: usize = 4096;

/// Remembers for a moment what was asked.
#[derive(Default)]
pub struct Own {
    known: HashMap<Ipv4Addr, (bool, Instant)>,
}

impl Own {
    /// Whether a packet to this address would stay on the host: one of its own, any of its
    /// loopback's, none at all, one of many.
    pub fn has(&mut self, address: Ipv4Addr) -> bool {
        let now = Instant::now();
        if let Some((own, until)) = self.known.get(&address) {
            if now < *until {
                return *own;
            }
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let own = is_own(address);
        self.known.insert(address, (own, now + BELIEVED));
        own
    }
}

/// bind(2) takes what is local, 0.0.0.0, broadcast and multicast addresses, and refuses all others,
/// unless the host lets everybody bind to everything (`net.ipv4.ip_nonlocal_bind`): then everything
/// counts as its own, and nothing gets out.
fn is_own(address: Ipv4Addr) -> bool {
    let refused = |error: std::io::Error| error.raw_os_error() == Some(libc::EADDRNOTAVAIL);
    !UdpSocket::bind((address, 0)).is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_nothing_and_many_are_the_hosts_own() {
        let mut own = Own::default();
        for address in [
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::new(127, 200, 3, 4),
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(224, 0, 0, 251),
        ] {
            assert!(own.has(address), "{address}");
            assert!(own.has(address), "{address} again");
        }
        // Documentation's (RFC 5737): nobody has it.
        assert!(!own.has(Ipv4Addr::new(203, 0, 113, 77)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut own = Own::default();
        for number in 0..2 * MOST as u32 {
            own.known
                .insert(Ipv4Addr::from_bits(number), (true, Instant::now()));
            if own.known.len() > MOST {
                own.has(Ipv4Addr::LOCALHOST);
            }
        }
        assert!(own.known.len() <= MOST);
    }
}
