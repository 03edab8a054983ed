//! Which TCP ports listen, from `/proc/net/tcp` and `/proc/net/tcp6` (proc_net_tcp in the kernel's
//! documentation). Parsing and judging are pure; [`listening`] alone asks the kernel.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyperfleet_wire::guest::{Listener, MAX_LISTENERS};

use crate::sock_diag;

/// `st` of a listening socket (TCP_LISTEN, include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// A listening socket as /proc tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    at: SocketAddr,
    inode: u32,
}

/// Every listening TCP socket of this network namespace, one entry a port and address; whether
/// there were more than can be told. `own` is the guest's IPv4 address, if it has one.
///
/// # Errors
/// Those of reading /proc. A kernel without IPv6 has no tcp6, which is none.
pub fn listening(
    own: Option<Ipv4Addr>,
    hidden: &[SocketAddr],
) -> io::Result<(Vec<Listener>, bool)> {
    let mut sockets = sockets_in("/proc/net/tcp")?;
    match sockets_in("/proc/net/tcp6") {
        Ok(more) => sockets.extend(more),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(why),
    }
    sockets.retain(|socket| !hidden.contains(&socket.at));
    let any_v6 = |socket: &Socket| socket.at.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let only_v6 = if sockets.iter().any(any_v6) {
        // A kernel without inet_diag: the default that sockets are made with is the best guess.
        sock_diag::only_v6().unwrap_or_default()
    } else {
        HashMap::new()
    };
    let default = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only")
        .is_ok_and(|value| value.trim() == "1");
    Ok(judge(&sockets, own, |inode| {
        only_v6.get(&inode).copied().unwrap_or(default)
    }))
}

fn sockets_in(path: &str) -> io::Result<Vec<Socket>> {
    let table = BufReader::new(std::fs::File::open(path)?);
    let mut sockets = Vec::new();
    for line in table.lines().skip(1) {
        sockets.extend(parse(&line?));
    }
    Ok(sockets)
}

/// One line of the table, if it is of a listening socket.
fn parse(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    // The kernel prints each 32 bits as the number they make in its own byte order.
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = if address.len() == 8 {
        IpAddr::from(word(0)?)
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?];
        let mut bytes = [0; 16];
        bytes.copy_from_slice(words.as_flattened());
        IpAddr::from(bytes)
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Socket {
        at: SocketAddr::new(ip, port),
        inode,
    })
}

/// What of it a connection to the guest's IPv4 address reaches. Several sockets may share a port
/// and address (SO_REUSEPORT): one that is reached is enough.
fn judge(
    sockets: &[Socket],
    own: Option<Ipv4Addr>,
    only_v6: impl Fn(u32) -> bool,
) -> (Vec<Listener>, bool) {
    let mut found: BTreeMap<(u16, IpAddr), bool> = BTreeMap::new();
    for socket in sockets {
        let reached = |v4: Ipv4Addr| v4.is_unspecified() || Some(v4) == own;
        let direct = match socket.at.ip() {
            IpAddr::V4(v4) => reached(v4),
            IpAddr::V6(v6) if v6.is_unspecified() => !only_v6(socket.inode),
            IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some_and(reached),
        };
        *found.entry((socket.at.port(), socket.at.ip())).or_default() |= direct;
    }
    let truncated = found.len() > MAX_LISTENERS;
    let listeners = found
        .into_iter()
        .take(MAX_LISTENERS)
        .map(|((port, address), direct)| Listener {
            port,
            address: address.to_string(),
            direct,
        })
        .collect();
    (listeners, truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

    /// Lines as a little-endian kernel prints them.
    const V4: &str = "   0: 0F02000A:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0";
    const V6: &str = "   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0000000000000000 100 0 0 10 0";
    const ESTABLISHED: &str = "   2: 0F02000A:1F90 0202000A:9999 01 00000000:00000000 00:00000000 00000000     0        0 12346 1 0000000000000000 100 0 0 10 0";

    fn socket(at: &str, inode: u32) -> Socket {
        Socket {
            at: at.parse().unwrap(),
            inode,
        }
    }

    #[test]
    fn listening_lines_are_read() {
        assert_eq!(parse(V4), Some(socket("10.0.2.15:8080", 12345)));
        assert_eq!(parse(V6), Some(socket("[::1]:80", 77)));
        assert_eq!(parse(ESTABLISHED), None);
    }

    #[test]
    fn a_line_that_is_cut_is_no_listener() {
        for line in [V4, V6] {
            let inode_ends = line.find(" 1 0000").unwrap();
            for cut in 0..inode_ends - 4 {
                assert_eq!(parse(&line[..cut]), None, "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_the_guests_address_reaches_is_direct() {
        let sockets = [
            socket("0.0.0.0:1", 1),
            socket("10.0.2.15:2", 2),
            socket("127.0.0.1:3", 3),
            socket("172.17.0.1:4", 4),
            socket("[::]:5", 5),
            socket("[::]:6", 6),
            socket("[::1]:7", 7),
            socket("[::ffff:10.0.2.15]:8", 8),
            socket("[::ffff:0.0.0.0]:9", 9),
            socket("[::ffff:127.0.0.1]:10", 10),
        ];
        let (found, truncated) = judge(&sockets, Some(OWN), |inode| inode == 6);
        assert!(!truncated);
        let direct: Vec<(u16, bool)> = found.iter().map(|l| (l.port, l.direct)).collect();
        let expected = [
            (1, true),
            (2, true),
            (3, false),
            (4, false),
            (5, true),
            (6, false),
            (7, false),
            (8, true),
            (9, true),
            (10, false),
        ];
        assert_eq!(direct, expected);
        assert_eq!(found[7].address, "::ffff:10.0.2.15");
    }

    #[test]
    fn sockets_that_share_port_and_address_are_one_entry() {
        let sockets = [socket("[::]:80", 1), socket("[::]:80", 2)];
        let (found, _) = judge(&sockets, None, |inode| inode == 1);
        assert_eq!(found.len(), 1);
        assert!(found[0].direct);
    }

    #[test]
    fn a_flood_of_listeners_is_cut_to_what_fits_a_frame() {
        let sockets: Vec<Socket> = (1..=60000)
            .map(|port| Socket {
                at: SocketAddr::new(
                    "fd00:1111:2222:3333:4444:5555:6666:7777".parse().unwrap(),
                    port,
                ),
                inode: 0,
            })
            .collect();
        let (listeners, truncated) = judge(&sockets, None, |_| true);
        assert!(truncated);
        let payload = hyperfleet_wire::encode(&hyperfleet_wire::guest::FromGuest::Listeners {
            id: u32::MAX,
            listeners,
            truncated,
        });
        assert!(payload.len() <= hyperfleet_wire::slip::MAX_PAYLOAD);
    }

    #[test]
    fn the_kernel_tells_of_sockets_of_this_test() {
        let dual = std::net::TcpListener::bind("[::]:0").unwrap();
        let local = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (found, _) = listening(None, &[local.local_addr().unwrap()]).unwrap();
        let port = dual.local_addr().unwrap().port();
        assert!(found.contains(&Listener {
            port,
            address: "::".into(),
            direct: true
        }));
        let hidden = local.local_addr().unwrap().port();
        assert!(!found
            .iter()
            .any(|l| l.port == hidden && l.address == "127.0.0.1"));
    }
}
