//! Whether a listener on `::` takes IPv6 alone: only NETLINK_SOCK_DIAG knows (sock_diag(7)).

use std::collections::HashMap;
use std::io;

use rustix::net::netlink;
use rustix::net::{
    bind, recv, send, socket_with, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
};

/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// linux/netlink.h.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// linux/inet_diag.h: size of `struct inet_diag_msg`, where its inode stands, and the attribute.
const DIAG_MSG: usize = 72;
const DIAG_INODE: usize = 68;
const INET_DIAG_SKV6ONLY: u16 = 11;
/// TCP_LISTEN (include/net/tcp_states.h) as a bit of `idiag_states`.
const LISTENING: u32 = 1 << 10;
/// More than the kernel puts into one datagram of a dump (it fills at most 32 KiB).
const DATAGRAM: usize = 64 * 1024;

/// For each listening IPv6 TCP socket, by inode, whether it is IPv6-only.
///
/// # Errors
/// Those of the socket; `Unsupported` for a kernel without inet_diag.
pub fn only_v6() -> io::Result<HashMap<u32, bool>> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        // Dumps are made while one asks: an answer that is not there will not come.
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::SOCK_DIAG),
    )?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut found = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let (count, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if read_dump(&buffer[..count], &mut found)? {
            return Ok(found);
        }
    }
}

/// nlmsghdr, then inet_diag_req_v2 with an empty inet_diag_sockid.
fn request() -> Vec<u8> {
    let mut body = vec![libc::AF_INET6 as u8, libc::IPPROTO_TCP as u8, 0, 0];
    body.extend_from_slice(&LISTENING.to_ne_bytes());
    body.extend_from_slice(&[0; 48]);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&body);
    message
}

/// Reads one datagram of the dump; true when it was the last.
fn read_dump(mut datagram: &[u8], found: &mut HashMap<u32, bool>) -> io::Result<bool> {
    while let Some(length) = u32_at(datagram, 0) {
        let length = length as usize;
        let Some(message) = datagram.get(..length).filter(|_| length >= HEADER) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match u16_at(message, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => return Err(io::ErrorKind::Unsupported.into()),
            Some(SOCK_DIAG_BY_FAMILY) => found.extend(read_socket(&message[HEADER..])),
            _ => {}
        }
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(false)
}

fn read_socket(body: &[u8]) -> Option<(u32, bool)> {
    let inode = u32_at(body, DIAG_INODE)?;
    let mut attributes = body.get(DIAG_MSG..)?;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let value = attributes.get(4..usize::from(length))?;
        if kind == INET_DIAG_SKV6ONLY {
            return Some((inode, *value.first()? != 0));
        }
        attributes = attributes
            .get(usize::from(length).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket_message(inode: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; DIAG_MSG];
        body[DIAG_INODE..].copy_from_slice(&inode.to_ne_bytes());
        for (kind, value) in attributes {
            body.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
            body.extend_from_slice(&kind.to_ne_bytes());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        message(SOCK_DIAG_BY_FAMILY, &body)
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&[0; 10]);
        message.extend_from_slice(body);
        message
    }

    #[test]
    fn a_dump_is_read_socket_by_socket() {
        let mut datagram = socket_message(7, &[(9, b"x"), (INET_DIAG_SKV6ONLY, &[1])]);
        datagram.extend(socket_message(8, &[(INET_DIAG_SKV6ONLY, &[0])]));
        datagram.extend(socket_message(9, &[]));
        let mut found = HashMap::new();
        assert!(!read_dump(&datagram, &mut found).unwrap());
        assert_eq!(found, HashMap::from([(7, true), (8, false)]));
        assert!(read_dump(&message(NLMSG_DONE, &[0; 4]), &mut found).unwrap());
        assert!(read_dump(&message(NLMSG_ERROR, &[0; 20]), &mut found).is_err());
    }

    #[test]
    fn lengths_that_lie_are_errors_or_nothing() {
        let whole = socket_message(7, &[(INET_DIAG_SKV6ONLY, &[1])]);
        for cut in 4..whole.len() {
            assert!(
                read_dump(&whole[..cut], &mut HashMap::new()).is_err(),
                "{cut}"
            );
        }
        let mut attribute_lies = whole.clone();
        attribute_lies[HEADER + DIAG_MSG] = 200;
        let mut found = HashMap::new();
        read_dump(&attribute_lies, &mut found).unwrap();
        attribute_lies[HEADER + DIAG_MSG] = 0;
        read_dump(&attribute_lies, &mut found).unwrap();
        assert!(found.is_empty());
        assert!(read_dump(&[0; 16], &mut found).is_err());
    }

    #[test]
    fn the_kernel_is_understood_where_it_has_inet_diag() {
        let Ok(found) = only_v6() else { return };
        let dual = std::net::TcpListener::bind("[::]:0").unwrap();
        let with = only_v6().unwrap();
        drop(dual);
        assert!(with
            .iter()
            .any(|(inode, only)| !only && !found.contains_key(inode)));
    }
}
