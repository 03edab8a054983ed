//! Ports of the agent's own that lead to servers the guest's IPv4 address does not reach: those on
//! loopback, on IPv6 alone, or on another address of the guest.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::answers::Refusal;
use crate::failure::say;

/// Relays there may be at once.
const MAX_RELAYS: usize = 256;
/// Connections through one relay, and through all. Above them connections wait to be accepted.
const MAX_CONNECTIONS: usize = 512;
const MAX_CONNECTIONS_OF_ALL: usize = 1024;
/// Where relays listen: above the ports that Linux gives out by itself (ip_local_port_range ends at
/// 60999) and that servers are wont to use, so that none is taken from a server to come.
const PORTS: std::ops::RangeInclusive<u16> = 61000..=65535;
/// A peer that vanished without a word gives its connection back after this and the probes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// All relays.
pub struct Relays {
    by_target: HashMap<SocketAddr, Relay>,
    next_port: u16,
    connections: Arc<Semaphore>,
}

/// One: where it listens, and what listens there.
struct Relay {
    at: SocketAddr,
    serving: AbortHandle,
}

impl Relays {
    pub fn new() -> Self {
        Self {
            by_target: HashMap::new(),
            next_port: *PORTS.start(),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS_OF_ALL)),
        }
    }

    /// Where relays listen: these are not the guest's own servers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.by_target.values().map(|relay| relay.at).collect()
    }

    /// The port at `own` whose connections go to `address`:`port`; the same for the same target.
    ///
    /// # Errors
    /// `invalid` for an address that is not the guest's, `busy` for too many relays, `failed` when
    /// no port can be had.
    pub fn open(&mut self, own: IpAddr, address: &str, port: u16) -> Result<u16, Refusal> {
        let target = target(address, port)?;
        if let Some(relay) = self.by_target.get(&target) {
            if relay.at.ip() == own {
                return Ok(relay.at.port());
            }
            // It is another machine's, of whose snapshot this one was made.
            relay.serving.abort();
            self.by_target.remove(&target);
        }
        if self.by_target.len() >= MAX_RELAYS {
            return Err(Refusal::busy(format!(
                "there are {MAX_RELAYS} relays already"
            )));
        }
        let (listener, at) = self
            .listen(own, port)
            .map_err(|why| Refusal::failed(format!("cannot listen for a relay: {why}")))?;
        let serve = serve(listener, target, Arc::clone(&self.connections));
        let serving = tokio::task::spawn_local(serve).abort_handle();
        self.by_target.insert(target, Relay { at, serving });
        Ok(at.port())
    }

    /// Listens at the next free port that is not `server`'s.
    fn listen(&mut self, own: IpAddr, server: u16) -> io::Result<(TcpListener, SocketAddr)> {
        for _ in PORTS {
            let at = SocketAddr::new(own, self.next_port);
            self.next_port = self.next_port.checked_add(1).unwrap_or(*PORTS.start());
            if at.port() == server {
                continue;
            }
            match std::net::TcpListener::bind(at) {
                Ok(listener) => {
                    listener.set_nonblocking(true)?;
                    return Ok((TcpListener::from_std(listener)?, at));
                }
                Err(why) if why.kind() == io::ErrorKind::AddrInUse => {}
                Err(why) => return Err(why),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

/// What to connect to for a server bound to `address`. Only the guest's own addresses: a relay is a
/// way in, not a way on.
fn target(address: &str, port: u16) -> Result<SocketAddr, Refusal> {
    let bound: IpAddr = address
        .parse()
        .map_err(|_| Refusal::invalid(format!("{address:?} is not an IP address")))?;
    if port == 0 {
        return Err(Refusal::invalid("port 0 is no server's"));
    }
    let ip = match bound {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => bound,
        },
        IpAddr::V4(_) => bound,
    };
    let ip = match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    // An address is the guest's when a socket can be bound to it. Nothing is sent.
    let of_many = ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    if of_many || UdpSocket::bind((ip, 0)).is_err() {
        return Err(Refusal::invalid(format!(
            "{address} is not an address of this machine"
        )));
    }
    Ok(SocketAddr::new(ip, port))
}

async fn serve(listener: TcpListener, target: SocketAddr, of_all: Arc<Semaphore>) {
    let of_this = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(of_this) = Arc::clone(&of_this).acquire_owned().await else {
            return;
        };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(why) => {
                // Of one connection (ECONNABORTED), or of the whole machine (out of descriptors
                // or memory), which only time mends.
                say(format_args!(
                    "cannot accept for the relay to {target}: {why}"
                ));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(of_all) = Arc::clone(&of_all).acquire_owned().await else {
            return;
        };
        tokio::task::spawn_local(async move {
            carry(client, target).await;
            drop((of_this, of_all));
        });
    }
}

/// Copies both ways until both have ended. A half-close passes; so does a reset.
async fn carry(mut client: TcpStream, target: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        let _ = client.set_zero_linger();
        return;
    };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(stream, true);
        let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE);
    }
    if tokio::io::copy_bidirectional(&mut client, &mut server)
        .await
        .is_err()
    {
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_relay_is_the_same_until_the_machine_has_another_address() {
        let work = async {
            let mut relays = Relays::new();
            let one = Ipv4Addr::LOCALHOST.into();
            let other = Ipv4Addr::new(127, 0, 0, 2).into();
            let port = relays.open(one, "127.0.0.1", 80).unwrap();
            assert_eq!(relays.open(one, "127.0.0.1", 80).unwrap(), port);
            let moved = relays.open(other, "127.0.0.1", 80).unwrap();
            assert_eq!(relays.addresses(), [SocketAddr::new(other, moved)]);
            // The one before has let go of its port.
            tokio::task::yield_now().await;
            std::net::TcpListener::bind((one, port)).unwrap();
        };
        tokio::task::LocalSet::new().run_until(work).await;
    }

    #[test]
    fn a_target_is_an_address_of_this_machine() {
        let to = |address| target(address, 80).unwrap().to_string();
        assert_eq!(to("127.0.0.1"), "127.0.0.1:80");
        assert_eq!(to("0.0.0.0"), "127.0.0.1:80");
        assert_eq!(to("::ffff:127.0.0.2"), "127.0.0.2:80");
        assert_eq!(to("::1"), "[::1]:80");
        assert_eq!(to("::"), "[::1]:80");
        for (address, port) in [
            ("192.0.2.1", 80),
            ("2001:db8::1", 80),
            ("224.0.0.1", 80),
            ("255.255.255.255", 80),
            ("localhost", 80),
            ("", 80),
            ("127.0.0.1", 0),
        ] {
            assert_eq!(
                target(address, port).unwrap_err().code,
                "invalid",
                "{address}"
            );
        }
    }
}
