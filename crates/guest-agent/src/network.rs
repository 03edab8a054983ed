//! The guest's network cards, and loopback, by the ioctls of netdevice(7).

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{socket_with, AddressFamily, SocketFlags, SocketType};

use crate::answers::Refusal;
use crate::failure::{Failure, OrCannot};

/// ARPHRD_ETHER (linux/if_arp.h).
const ETHERNET: &str = "1";

/// The card's address, mask and gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv4 {
    pub address: Ipv4Addr,
    prefix: u8,
    pub gateway: Option<Ipv4Addr>,
}

impl Ipv4 {
    /// Reads `10.0.2.15/24` and a gateway.
    ///
    /// # Errors
    /// `invalid`, naming what is not an address.
    pub fn parse(address: &str, gateway: Option<&str>) -> Result<Self, Refusal> {
        let whole = || {
            let (ip, prefix) = address.split_once('/')?;
            let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = prefix.parse().ok().filter(|bits| digits && *bits <= 32)?;
            Some((ip.parse().ok()?, prefix))
        };
        let (ip, prefix) = whole().ok_or_else(|| {
            Refusal::invalid(format!(
                "{address:?} is not an IPv4 address with its prefix length"
            ))
        })?;
        let gateway = match gateway {
            Some(told) => Some(told.parse().map_err(|_| {
                Refusal::invalid(format!("gateway {told:?} is not an IPv4 address"))
            })?),
            None => None,
        };
        Ok(Self {
            address: ip,
            prefix,
            gateway,
        })
    }

    fn mask(&self) -> Ipv4Addr {
        let bits = u32::MAX
            .checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(0);
        Ipv4Addr::from_bits(bits)
    }
}

/// Brings loopback up, with its addresses.
///
/// # Errors
/// When the kernel would not.
pub fn loopback_up() -> Result<(), Failure> {
    Card::named("lo")
        .and_then(|card| card.up())
        .or_cannot("bring loopback up")
}

/// A card's hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac([u8; 6]);

impl Mac {
    /// Reads `52:00:00:00:00:01`.
    ///
    /// # Errors
    /// `invalid`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let octet = |digits: &str| {
            let both = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            both.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
        };
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        let octets = octets.and_then(|octets| octets.try_into().ok());
        octets
            .map(Self)
            .ok_or_else(|| Refusal::invalid(format!("{text:?} is not a hardware address")))
    }
}

/// The name of the card with this hardware address, or of the first there is.
///
/// # Errors
/// When the kernel does not tell.
pub fn find(mac: Option<Mac>) -> Result<Option<String>, Failure> {
    cards(mac).or_cannot("find the network card")
}

/// Gives the card another hardware address. It must be down, or one (virtio's) that can live with it;
/// then its peers are told at once, who would go on to send to the old one (ip-sysctl, `arp_notify`).
///
/// # Errors
/// When the kernel, or the device, would not.
pub fn set_mac(name: &str, mac: Mac) -> Result<(), Failure> {
    let tells = format!("/proc/sys/net/ipv4/conf/{name}/arp_notify");
    let before = fs::read_to_string(&tells).unwrap_or_default();
    // Without it they learn it later, from the first packet.
    let _ = fs::write(&tells, "1");
    let set = || {
        let card = Card::named(name)?;
        let mut request = card.request();
        let mut data = [0; 14];
        for (to, from) in data.iter_mut().zip(mac.0) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_hwaddr = libc::sockaddr {
            sa_family: libc::ARPHRD_ETHER,
            sa_data: data,
        };
        card.ask(libc::SIOCSIFHWADDR, &mut request)
    };
    let set = set().or_cannot(format_args!("give {name} its hardware address"));
    let _ = fs::write(&tells, before);
    set
}

/// Brings the card up with exactly `wanted`, and with its gateway's route if it has one. What is so
/// already is left untouched, and with it the connections that use it.
///
/// # Errors
/// When the kernel would not.
pub fn bring_up(name: &str, wanted: &Ipv4) -> Result<(), Failure> {
    let card = Card::named(name).or_cannot("open a socket")?;
    card.set_address(wanted.address)
        .and_then(|()| card.set_mask(wanted.mask()))
        .and_then(|()| card.up())
        .or_cannot(format_args!("give {name} its address {}", wanted.address))?;
    let table = fs::read_to_string("/proc/net/route").or_cannot("read the routes")?;
    let present = default_gateways(&table, name);
    for old in present.iter().filter(|old| Some(**old) != wanted.gateway) {
        card.route(libc::SIOCDELRT, *old)
            .or_cannot(format_args!("remove the route through {old}"))?;
    }
    match wanted.gateway {
        Some(gateway) if !present.contains(&gateway) => card
            .route(libc::SIOCADDRT, gateway)
            .or_cannot(format_args!("route through {gateway}")),
        _ => Ok(()),
    }
}

/// The Ethernet card with this address, or the first by name.
fn cards(mac: Option<Mac>) -> io::Result<Option<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        let says = |what| fs::read_to_string(entry.path().join(what)).unwrap_or_default();
        // A bridge or a tunnel of the user's own has no device behind it.
        let is_card = says("type").trim() == ETHERNET && entry.path().join("device").exists();
        let is_it = || mac.is_none_or(|mac| Mac::parse(says("address").trim()).ok() == Some(mac));
        if is_card && is_it() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names.into_iter().next())
}

/// Gateways of the default routes over `card`, from /proc/net/route: interface, destination,
/// gateway, flags, three counters, mask; addresses as the number the kernel has in memory.
fn default_gateways(table: &str, card: &str) -> Vec<Ipv4Addr> {
    let gateway = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, "00000000", gateway, _, _, _, _, "00000000", ..] = fields[..] else {
            return None;
        };
        let number = u32::from_str_radix(gateway, 16).ok()?;
        (name == card).then(|| Ipv4Addr::from(number.to_ne_bytes()))
    };
    table.lines().filter_map(gateway).collect()
}

/// An interface, and the socket to ask the kernel through.
struct Card {
    socket: OwnedFd,
    name: String,
}

impl Card {
    fn named(name: &str) -> io::Result<Self> {
        Ok(Self {
            socket: socket_with(
                AddressFamily::INET,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC,
                None,
            )?,
            name: name.to_owned(),
        })
    }

    fn up(&self) -> io::Result<()> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS filled in this member.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        self.ask(libc::SIOCSIFFLAGS, &mut request)
    }

    fn set_address(&self, address: Ipv4Addr) -> io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.ask(libc::SIOCSIFADDR, &mut request)
    }

    fn set_mask(&self, mask: Ipv4Addr) -> io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_netmask = socket_address(mask);
        self.ask(libc::SIOCSIFNETMASK, &mut request)
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: all zeroes is a valid ifreq: plain numbers and a null pointer.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name[..room].iter_mut().zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        request
    }

    fn ask(&self, what: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the socket is open and `request` the ifreq that each of these ioctls takes.
        let done = unsafe { libc::ioctl(self.socket.as_raw_fd(), what as _, request) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Adds or deletes the default route through `gateway` over this card.
    fn route(&self, what: libc::c_ulong, gateway: Ipv4Addr) -> io::Result<()> {
        let mut name = self.request().ifr_name;
        // SAFETY: all zeroes is a valid rtentry: plain numbers and null pointers.
        let mut request: libc::rtentry = unsafe { std::mem::zeroed() };
        request.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        request.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        request.rt_gateway = socket_address(gateway);
        request.rt_flags = (libc::RTF_UP | libc::RTF_GATEWAY) as _;
        request.rt_dev = name.as_mut_ptr();
        // SAFETY: the socket is open, `request` is the rtentry these ioctls take, and `name`, which
        // ends in NUL, outlives the call.
        let done = unsafe { libc::ioctl(self.socket.as_raw_fd(), what as _, &request) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// A `sockaddr_in` in the generic type that the requests hold.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    // sin_port takes the first two bytes, sin_addr the next four (ip(7)).
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_as_many_ones_as_the_prefix() {
        let mask = |text| Ipv4::parse(text, None).unwrap().mask().to_string();
        assert_eq!(mask("10.0.2.15/24"), "255.255.255.0");
        assert_eq!(mask("10.0.2.15/30"), "255.255.255.252");
        assert_eq!(mask("10.0.2.15/32"), "255.255.255.255");
        assert_eq!(mask("10.0.2.15/0"), "0.0.0.0");
    }

    #[test]
    fn a_hardware_address_has_six_octets() {
        assert_eq!(
            Mac::parse("52:00:00:00:0a:FF").unwrap(),
            Mac([0x52, 0, 0, 0, 10, 255])
        );
        for bad in [
            "",
            "52:00:00:00:0a",
            "52:00:00:00:0a:ff:1",
            "52:0:00:00:0a:ff",
            "52:+0:00:00:0a:ff",
        ] {
            assert!(Mac::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn default_routes_of_the_card_alone_are_found() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                     eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     tun0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(
            default_gateways(table, "eth0"),
            [Ipv4Addr::new(10, 0, 2, 2)]
        );
        assert!(default_gateways("", "eth0").is_empty());
    }
}
