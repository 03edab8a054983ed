//! Addresses as text. Pure.

use std::io::Write;
use std::net::IpAddr;

/// Appends the text of an address, in its canonical form. Each request has one, and a line of the log
/// another; `fmt` takes ten times the instructions.
pub fn write(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mut text = [b'.'; 4 * "255.".len()];
            let mut length = 0;
            for octet in address.octets() {
                for (unit, least) in [(100, 100), (10, 10), (1, 0)] {
                    if octet >= least {
                        text[length] = b'0' + octet / unit % 10;
                        length += 1;
                    }
                }
                text[length] = b'.';
                length += 1;
            }
            out.extend_from_slice(&text[..length - 1]);
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(address) => _ = write!(out, "{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_displayed() {
        let octets = (0..=255).flat_map(|octet| [[octet; 4], [127, 0, octet, 1]]);
        let v4 = octets.map(IpAddr::from);
        let others = ["::1", "2001:db8::a:1", "::ffff:10.2.30.255"];
        let others = others.map(|text| text.parse().unwrap());
        for address in v4.chain(others) {
            let mut out = b"before ".to_vec();
            write(address, &mut out);
            let text = format!("before {}", address.to_canonical());
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
