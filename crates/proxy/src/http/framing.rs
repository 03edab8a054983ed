//! What Content-Length and Transfer-Encoding say (RFC 9112 section 6).

use super::fields;

/// A `Content-Length` value: digits only, no overflow.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        let digit = match byte {
            b'0'..=b'9' => u64::from(byte - b'0'),
            _ => return None,
        };
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// What all `Transfer-Encoding` lines of a head say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Coding {
    /// No such line.
    #[default]
    Absent,
    /// One line, exactly `chunked`.
    Chunked,
    /// A coding that is not chunked, alone or among others.
    Other,
    /// Chunked twice, with parameters, or no list of codings at all.
    Malformed,
}

impl Coding {
    /// Takes one more line into account.
    pub(super) fn add(self, value: &[u8]) -> Coding {
        let this = if value.eq_ignore_ascii_case(b"chunked") {
            Coding::Chunked
        } else if !fields::list(value).all(|element| fields::is_token(coding(element)))
            || value.is_empty()
        {
            Coding::Malformed
        } else if fields::list(value)
            .any(|element| !coding(element).eq_ignore_ascii_case(b"chunked"))
        {
            Coding::Other
        } else {
            Coding::Malformed
        };
        match (self, this) {
            (Coding::Absent, this) => this,
            (Coding::Malformed, _) | (_, Coding::Malformed) => Coding::Malformed,
            (Coding::Other, _) | (_, Coding::Other) => Coding::Other,
            _ => Coding::Malformed,
        }
    }
}

/// A coding's name, its parameters cut off.
fn coding(element: &[u8]) -> &[u8] {
    let name = element.split(|&byte| byte == b';').next();
    fields::trim_end(name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_digits_only() {
        assert_eq!(length(b"0"), Some(0));
        assert_eq!(length(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+1", "-1", "1 ", "0x1", "1,1", "18446744073709551616"] {
            assert_eq!(length(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn codings_add_up_over_lines() {
        let all = |lines: &[&str]| {
            lines
                .iter()
                .fold(Coding::Absent, |sum, line| sum.add(line.as_bytes()))
        };
        assert_eq!(all(&["Chunked"]), Coding::Chunked);
        assert_eq!(all(&["gzip"]), Coding::Other);
        assert_eq!(all(&["gzip, chunked"]), Coding::Other);
        assert_eq!(all(&["gzip", "chunked"]), Coding::Other);
        assert_eq!(all(&["chunked", "chunked"]), Coding::Malformed);
        assert_eq!(all(&["chunked, chunked"]), Coding::Malformed);
        assert_eq!(all(&["chunked,"]), Coding::Malformed);
        assert_eq!(all(&["chunked;q=1"]), Coding::Malformed);
        assert_eq!(all(&[""]), Coding::Malformed);
        assert_eq!(all(&["\"chunked\""]), Coding::Malformed);
    }
}
