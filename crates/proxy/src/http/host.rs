//! The authority of a request: what `Host` or an absolute-form target holds (RFC 3986 section 3.2).

/// Checks `host [":" port]` and gives the length of `host`.
///
/// User information, an empty host (RFC 9110 section 4.2.1), zones and future IP literals, and
/// ports over 65535 are refused.
pub(super) fn name_length(authority: &[u8]) -> Option<usize> {
    let name = if authority.first() == Some(&b'[') {
        let close = memchr::memchr(b']', authority)?;
        let address = std::str::from_utf8(authority.get(1..close)?).ok()?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        close + 1
    } else {
        let colon = memchr::memchr(b':', authority).unwrap_or(authority.len());
        let name = authority.get(..colon)?;
        if name.is_empty() || !is_registered_name(name) {
            return None;
        }
        colon
    };
    match authority.get(name..)? {
        [] => Some(name),
        [b':', port @ ..] if is_port(port) => Some(name),
        _ => None,
    }
}

/// reg-name: unreserved, sub-delims and whole percent-encoded bytes.
fn is_registered_name(mut name: &[u8]) -> bool {
    loop {
        name = match name {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if NAME[usize::from(*byte)] => rest,
            _ => return false,
        }
    }
}

/// What may stand in a name unencoded.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'
            | b'-' | b'.' | b'_' | b'~'
            | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        byte += 1;
    }
    table
};

/// Digits up to 65535; none at all is allowed by the grammar.
fn is_port(digits: &[u8]) -> bool {
    digits.iter().all(u8::is_ascii_digit)
        && digits
            .iter()
            .try_fold(0u16, |sum, digit| {
                sum.checked_mul(10)?.checked_add(u16::from(digit - b'0'))
            })
            .is_some()
}

#[cfg(test)]
mod tests {
    use super::name_length;

    #[test]
    fn hosts() {
        for (authority, name) in [
            ("a", Some(1)),
            ("a.local.dev.:4000", Some(12)),
            ("a:", Some(1)),
            ("127.0.0.1:80", Some(9)),
            ("[::1]", Some(5)),
            ("[::1]:65535", Some(5)),
            ("%41b", Some(4)),
            ("", None),
            (":80", None),
            ("a:65536", None),
            ("a:8x", None),
            ("a:80:80", None),
            ("u@a", None),
            ("a/b", None),
            ("a b", None),
            ("%4", None),
            ("%zz", None),
            ("[::1", None),
            ("[]", None),
            ("[::1]x", None),
            ("[fe80::1%25eth0]", None),
            ("[v1.x]", None),
            ("a\\b", None),
            ("\u{e4}", None),
        ] {
            assert_eq!(name_length(authority.as_bytes()), name, "{authority}");
        }
    }
}
