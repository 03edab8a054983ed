//! Field lines of heads and trailers (RFC 9110 section 5, RFC 9112 section 5).

/// A range of the bytes a head was parsed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        // Heads are bounded far below 4 GiB; were one not, the span would be empty, not wrong.
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if start <= end => Self { start, end },
            _ => Self::default(),
        }
    }

    /// The bytes meant, given those that were parsed (or more); empty for any others.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// Where it starts.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends.
    pub fn end(self) -> usize {
        self.end as usize
    }
}

/// The fields this proxy does something about; told apart once, when parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Passed on as it is.
    Other,
    /// One of the fields that say where a request came from, spelled with `_`: CGI-style servers
    /// take it for the real one.
    Alias,
    Accept,
    Connection,
    ContentLength,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    SecFetchMode,
    Te,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
    XForwardedHost,
    XForwardedPrefix,
    XForwardedProto,
    XHyperfleetError,
    XMachineId,
    XRealIp,
}

impl Name {
    /// Tells a field name, in any letter case.
    pub fn of(name: &[u8]) -> Name {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Name::Te,
            4 if is("host") => Name::Host,
            6 if is("accept") => Name::Accept,
            6 if is("expect") => Name::Expect,
            7 if is("upgrade") => Name::Upgrade,
            9 if is("forwarded") => Name::Forwarded,
            9 => origin(name, "x-real-ip", Name::XRealIp),
            10 if is("connection") => Name::Connection,
            10 if is("keep-alive") => Name::KeepAlive,
            12 => origin(name, "x-machine-id", Name::XMachineId),
            14 if is("content-length") => Name::ContentLength,
            14 if is("sec-fetch-mode") => Name::SecFetchMode,
            15 => origin(name, "x-forwarded-for", Name::XForwardedFor),
            16 if is("proxy-connection") => Name::ProxyConnection,
            16 => origin(name, "x-forwarded-host", Name::XForwardedHost),
            17 if is("transfer-encoding") => Name::TransferEncoding,
            17 => origin(name, "x-forwarded-proto", Name::XForwardedProto),
            18 if is("proxy-authenticate") => Name::ProxyAuthenticate,
            18 if is("x-hyperfleet-error") => Name::XHyperfleetError,
            18 => origin(name, "x-forwarded-prefix", Name::XForwardedPrefix),
            19 if is("proxy-authorization") => Name::ProxyAuthorization,
            _ => Name::Other,
        }
    }
}

/// `known` if `name` is `text`, [`Name::Alias`] if it is but for `_` in place of `-`.
fn origin(name: &[u8], text: &str, known: Name) -> Name {
    let mut alias = false;
    for (&byte, &wanted) in name.iter().zip(text.as_bytes()) {
        if byte == b'_' && wanted == b'-' {
            alias = true;
        } else if byte.to_ascii_lowercase() != wanted {
            return Name::Other;
        }
    }
    if alias {
        Name::Alias
    } else {
        known
    }
}

/// One field line of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The whole line, its ending included.
    pub line: Span,
    /// The field name, as sent.
    pub name: Span,
    /// The value, as sent, without white space around it.
    pub value: Span,
    /// Which field it is.
    pub known: Name,
    /// `Connection` names it: it is for this hop only.
    pub hop: bool,
    /// The line cannot be copied as it stands (bare LF, white space before the colon).
    pub rewrite: bool,
}

/// What is wrong with a field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadField(pub &'static str);

/// Reads the field line `bytes[start..end]`, given without its ending of `ending` bytes.
/// `blanks` allows white space before the colon (responses, RFC 9112 section 5.1).
pub(crate) fn parse(
    bytes: &[u8],
    start: usize,
    end: usize,
    ending: usize,
    blanks: bool,
) -> Result<Field, BadField> {
    let line = bytes.get(start..end).unwrap_or_default();
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(BadField("a field line is folded"));
    }
    // Names are short: a plain loop beats a search.
    let end_of_name = line.iter().position(|&byte| !is_token_byte(byte));
    let Some(end_of_name) = end_of_name else {
        return Err(BadField("a field line has no colon"));
    };
    let (name, mut after) = line.split_at(end_of_name);
    if blanks {
        after = trim_start(after);
    }
    let [b':', raw @ ..] = after else {
        return Err(BadField("a field name is invalid"));
    };
    if name.is_empty() {
        return Err(BadField("a field name is empty"));
    }
    if !is_value(raw) {
        return Err(BadField("a field value is invalid"));
    }
    let right = trim_end(raw);
    let value = trim_start(right);
    let value_end = end - (raw.len() - right.len());
    Ok(Field {
        line: Span::new(start, end + ending),
        name: Span::new(start, start + name.len()),
        value: Span::new(value_end - value.len(), value_end),
        known: Name::of(name),
        hop: false,
        rewrite: ending != 2 || name.len() + 1 + raw.len() != line.len(),
    })
}

/// Whether `bytes` is a token (RFC 9110 section 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `byte` may stand in a token.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'
            | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// Whether `bytes` may be a field value: no controls but HTAB.
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    every(bytes, |byte| {
        ((byte >= 0x20) | (byte == b'\t')) & (byte != 0x7f)
    })
}

/// Whether `holds` is true of every byte: by pieces of a length that is known, which the compiler
/// makes vectors of. Of the rest that is no whole piece the last bytes are looked at twice: one by
/// one they would cost more than all before them, as short as what is in heads is.
pub(crate) fn every(bytes: &[u8], holds: impl Fn(u8) -> bool) -> bool {
    fn all<const N: usize>(piece: &[u8; N], holds: &impl Fn(u8) -> bool) -> bool {
        piece.iter().fold(true, |all, &byte| all & holds(byte))
    }
    if let Some(last) = bytes.last_chunk::<16>() {
        let mut rest = bytes;
        while let Some((piece, after)) = rest.split_first_chunk::<16>() {
            if !all(piece, &holds) {
                return false;
            }
            rest = after;
        }
        return all(last, &holds);
    }
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => all(first, &holds) & all(last, &holds),
        _ => bytes.iter().all(|&byte| holds(byte)),
    }
}

/// The elements of a comma-separated list, trimmed, empty ones left out (RFC 9110 section 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(|element| trim_start(trim_end(element)))
        .filter(|element| !element.is_empty())
}

pub(crate) fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

pub(crate) fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_aliases_told_apart() {
        assert_eq!(Name::of(b"hOST"), Name::Host);
        assert_eq!(Name::of(b"X-Forwarded-For"), Name::XForwardedFor);
        assert_eq!(Name::of(b"x_forwarded-for"), Name::Alias);
        assert_eq!(Name::of(b"X_MACHINE_ID"), Name::Alias);
        assert_eq!(Name::of(b"X_Forwarded_Prefix"), Name::Alias);
        assert_eq!(Name::of(b"X-Real_IP"), Name::Alias);
        assert_eq!(Name::of(b"X-Forwarded-Port"), Name::Other);
        assert_eq!(Name::of(b"x-machine.id"), Name::Other);
        assert_eq!(Name::of(b""), Name::Other);
    }

    #[test]
    fn a_wrong_byte_is_found_at_every_place_of_every_length() {
        for length in 0..70 {
            let mut bytes = vec![b'a'; length];
            assert!(is_value(&bytes), "{length}");
            for at in 0..length {
                bytes[at] = 0x7f;
                assert!(!is_value(&bytes), "{at} of {length}");
                bytes[at] = b'\t';
            }
            assert!(is_value(&bytes), "{length}");
        }
        for byte in 0..=255u8 {
            let wanted = byte == b'\t' || !byte.is_ascii_control();
            for length in [1, 9, 17] {
                assert_eq!(is_value(&vec![byte; length]), wanted, "{byte:#x}");
            }
        }
    }

    #[test]
    fn a_field_of_a_response_may_have_blanks_before_its_colon() {
        let bytes = b"Name \t: a b \n";
        let field = parse(bytes, 0, bytes.len() - 1, 1, true).unwrap();
        assert_eq!(field.name.of(bytes), b"Name");
        assert_eq!(field.value.of(bytes), b"a b");
        assert!(field.rewrite);
        assert!(parse(bytes, 0, bytes.len() - 1, 1, false).is_err());
    }
}
