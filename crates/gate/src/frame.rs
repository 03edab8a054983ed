//! What becomes of a frame that the guest sends. Pure.
//!
//! Ethernet II; IPv4 by RFC 791, TCP's and UDP's ports by RFC 9293 and 768. The guest is trusted in
//! nothing: what passt would connect to is decided by the frame's bytes alone.

use std::net::Ipv4Addr;

/// The longest frame: passt's largest MTU and the Ethernet header.
pub const LONGEST: usize = 65_535 + ETHERNET;

pub const ETHERNET: usize = 14;
pub const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const DNS_PORT: u16 = 53;
const DHCP_SERVER_PORT: u16 = 67;

/// Addresses of the machine's network that passt answers at, and what of the host it may reach.
#[derive(Debug, Clone)]
pub struct Rules {
    /// passt takes it for the host's loopback.
    pub gateway: Ipv4Addr,
    /// passt takes it for the host's own resolver.
    pub dns: Ipv4Addr,
    /// TCP ports of the host's loopback that are let in, at the gateway's address.
    pub host_ports: Vec<u16>,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    /// It passes unless this address is the host's own.
    Abroad(Ipv4Addr),
}

impl Rules {
    pub fn verdict(&self, frame: &[u8]) -> Verdict {
        let Some((header, packet)) = frame.split_at_checked(ETHERNET) else {
            return Verdict::Drop;
        };
        match [header[12], header[13]] {
            // passt answers it, and learns nothing from it but the card's own address.
            ARP => Verdict::Pass,
            IPV4 => self.packet(packet).unwrap_or(Verdict::Drop),
            _ => Verdict::Drop,
        }
    }

    /// `None` for what is no whole packet.
    fn packet(&self, packet: &[u8]) -> Option<Verdict> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let (version, words) = (header[0] >> 4, usize::from(header[0] & 15));
        if version != 4 || words < 5 {
            return None;
        }
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let payload = packet.get(..total)?.get(words * 4..)?;
        // More fragments, or an offset: the ports of such a packet are not all there.
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
        if fragment != 0 {
            return None;
        }
        let protocol = header[9];
        let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
        let port = match protocol {
            TCP | UDP => Some(u16::from_be_bytes([*payload.get(2)?, *payload.get(3)?])),
            ICMP => None,
            _ => return None,
        };
        // Where clouds hand out the host's credentials, and networks that are the host's own link.
        if destination.is_link_local() {
            return None;
        }
        // passt answers it itself.
        if protocol == UDP && port == Some(DHCP_SERVER_PORT) {
            let here = [self.gateway, Ipv4Addr::BROADCAST].contains(&destination);
            return here.then_some(Verdict::Pass);
        }
        if destination == self.dns {
            return (port == Some(DNS_PORT)).then_some(Verdict::Pass);
        }
        if destination == self.gateway {
            let let_in =
                protocol == TCP && port.is_some_and(|port| self.host_ports.contains(&port));
            return let_in.then_some(Verdict::Pass);
        }
        Some(Verdict::Abroad(destination))
    }
}

/// Asks who has `wanted`, as the card `mac` with `own` (RFC 826).
pub fn arp_request(mac: [u8; 6], own: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend(ARP);
    // Ethernet, IPv4, lengths of their addresses, a request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(own.octets());
    frame.extend([0; 6]);
    frame.extend(wanted.octets());
    frame
}

/// Whether it says where `wanted` is.
pub fn is_arp_answer(frame: &[u8], wanted: Ipv4Addr) -> bool {
    frame.get(12..14) == Some(&ARP)
        && frame.get(20..22) == Some(&[0, 2])
        && frame.get(28..32) == Some(&wanted.octets())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 2);
    const DNS: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 3);
    const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn rules() -> Rules {
        Rules {
            gateway: GATEWAY,
            dns: DNS,
            host_ports: vec![5432],
        }
    }

    fn packet(protocol: u8, to: Ipv4Addr, port: u16) -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 213, 77, 15,
        ];
        packet.extend(to.octets());
        packet.extend([0x80, 0]);
        packet.extend(port.to_be_bytes());
        packet.extend([0; 4]);
        packet
    }

    fn frame(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[0x52; 12][..], &kind, packet].concat()
    }

    fn verdict(protocol: u8, to: Ipv4Addr, port: u16) -> Verdict {
        rules().verdict(&frame(IPV4, &packet(protocol, to, port)))
    }

    #[test]
    fn what_goes_abroad_is_asked_for_by_its_address() {
        for protocol in [ICMP, TCP, UDP] {
            for port in [80, 53, 5432] {
                assert_eq!(verdict(protocol, FAR, port), Verdict::Abroad(FAR));
                let loopback = Ipv4Addr::LOCALHOST;
                let found = verdict(protocol, loopback, port);
                assert_eq!(found, Verdict::Abroad(loopback), "{protocol} {port}");
            }
        }
    }

    #[test]
    fn of_the_host_only_what_is_let_in_is_reached() {
        assert_eq!(verdict(TCP, GATEWAY, 5432), Verdict::Pass);
        assert_eq!(verdict(TCP, GATEWAY, 5433), Verdict::Drop);
        assert_eq!(verdict(UDP, GATEWAY, 5432), Verdict::Drop);
        assert_eq!(verdict(ICMP, GATEWAY, 5432), Verdict::Drop);
    }

    #[test]
    fn names_and_addresses_are_asked_for() {
        assert_eq!(verdict(UDP, DNS, 53), Verdict::Pass);
        assert_eq!(verdict(TCP, DNS, 53), Verdict::Pass);
        assert_eq!(verdict(UDP, DNS, 54), Verdict::Drop);
        assert_eq!(verdict(UDP, Ipv4Addr::BROADCAST, 67), Verdict::Pass);
        assert_eq!(verdict(UDP, GATEWAY, 67), Verdict::Pass);
        assert_eq!(verdict(UDP, FAR, 67), Verdict::Drop);
        let asked = arp_request([2; 6], FAR, GATEWAY);
        assert_eq!(rules().verdict(&asked), Verdict::Pass);
        assert!(!is_arp_answer(&asked, GATEWAY));
        let mut answer = asked.clone();
        answer[21] = 2;
        answer[28..32].copy_from_slice(&GATEWAY.octets());
        assert!(is_arp_answer(&answer, GATEWAY));
    }

    #[test]
    fn options_move_the_ports() {
        let mut long = packet(TCP, GATEWAY, 0);
        // The words that a short header's ports would be in are options here.
        long[22..24].copy_from_slice(&5432_u16.to_be_bytes());
        long[0] = 0x46;
        long.extend([0; 4]);
        long[3] = 32;
        assert_eq!(rules().verdict(&frame(IPV4, &long)), Verdict::Drop);
        long[26..28].copy_from_slice(&5432_u16.to_be_bytes());
        assert_eq!(rules().verdict(&frame(IPV4, &long)), Verdict::Pass);
    }

    #[test]
    fn what_is_not_whole_or_not_known_is_dropped() {
        let good = packet(TCP, FAR, 80);
        assert_ne!(rules().verdict(&frame(IPV4, &good)), Verdict::Drop);
        for length in 0..ETHERNET + good.len() {
            let cut = &frame(IPV4, &good)[..length];
            assert_eq!(rules().verdict(cut), Verdict::Drop, "{length}");
        }
        let link_local = packet(TCP, Ipv4Addr::new(169, 254, 169, 254), 80);
        assert_eq!(rules().verdict(&frame(IPV4, &link_local)), Verdict::Drop);
        // IPv6, a VLAN, and no type at all.
        for kind in [[0x86, 0xdd], [0x81, 0x00], [0, 60]] {
            assert_eq!(rules().verdict(&frame(kind, &good)), Verdict::Drop);
        }
        // Version, header length, total length, fragments (one that more follow, one that follows),
        // and a protocol that passt does not carry.
        for (at, value) in [(0, 0x65), (0, 0x44), (3, 200), (6, 0x20), (7, 1), (9, 47)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(
                rules().verdict(&frame(IPV4, &bad)),
                Verdict::Drop,
                "byte {at}"
            );
        }
    }
}
