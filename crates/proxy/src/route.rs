//! Which machine and port a request is for, by syntax alone, and whether it may go there.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::answer::Answer;
use crate::http::request::{Form, Method, RequestHead};

/// Longest id or name of a machine: a DNS label.
const MAX_LABEL: usize = 63;

/// How this proxy's own addresses look, and whom it believes.
#[derive(Debug, Clone)]
pub struct Site {
    /// Without its last `/`: empty when path routes begin at the root.
    prefix: Vec<u8>,
    /// Lower case, with its leading dot.
    host_suffix: Option<Vec<u8>>,
    trusted: Vec<IpNet>,
}

impl Site {
    /// Takes the settings: `prefix` (`/proxy`; `/` or empty for the root), `host_suffix` (with or
    /// without its leading dot), and the peers whose `X-Forwarded-*` are believed.
    ///
    /// # Errors
    /// What is wrong, as a sentence about the value.
    pub fn new(
        prefix: &str,
        host_suffix: Option<&str>,
        trusted: Vec<IpNet>,
    ) -> Result<Self, String> {
        let bare = prefix.trim_end_matches('/');
        let valid = bare
            .bytes()
            .all(|byte| matches!(byte, 0x21..=0x7e) && !b"#?\\".contains(&byte));
        if !(bare.is_empty() || bare.starts_with('/') && !bare.starts_with("//")) || !valid {
            return Err(format!(
                "prefix {prefix:?} must be a path: `/`, then printable ASCII without `?`, `#`, `\\`"
            ));
        }
        if bare.len() > 255 {
            return Err("prefix must be at most 255 bytes".to_owned());
        }
        let host_suffix = match host_suffix {
            Some(suffix) => Some(normal_suffix(suffix).ok_or_else(|| {
                format!("host suffix {suffix:?} must be a domain name, such as .local.dev")
            })?),
            None => None,
        };
        Ok(Self {
            prefix: bare.as_bytes().to_vec(),
            host_suffix,
            trusted,
        })
    }

    /// Whether this peer's `X-Forwarded-*` are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(&peer))
    }

    /// Finds what `head`, parsed from `bytes`, is for.
    pub fn resolve(&self, head: &RequestHead, bytes: &[u8]) -> Resolved {
        if let Some(label) = self.label(head.host.of(bytes)) {
            return match split_label(label) {
                Some((machine, port)) => Resolved::To(Destination {
                    machine: MachineRef::folded(machine),
                    port,
                    place: Place::Host,
                }),
                None => Resolved::NotFound,
            };
        }
        if head.form == Form::Asterisk {
            return Resolved::NotFound;
        }
        self.resolve_path(head.method, head.path.of(bytes))
    }

    /// What stands before the suffix in `host`; `None` when it is not under the suffix.
    fn label<'a>(&self, host: &'a [u8]) -> Option<&'a [u8]> {
        let suffix = self.host_suffix.as_deref()?;
        let host = host.strip_suffix(b".").unwrap_or(host);
        let (label, end) = host.split_at_checked(host.len().checked_sub(suffix.len())?)?;
        end.eq_ignore_ascii_case(suffix).then_some(label)
    }

    fn resolve_path(&self, method: Method, path: &[u8]) -> Resolved {
        let query = memchr::memchr(b'?', path).unwrap_or(path.len());
        let whole = path.get(..query).unwrap_or_default();
        let Some(path) = whole
            .strip_prefix(self.prefix.as_slice())
            .and_then(|path| path.strip_prefix(b"/"))
        else {
            return Resolved::NotFound;
        };
        let Some(slash) = memchr::memchr(b'/', path) else {
            return Resolved::NotFound;
        };
        let (machine, after) = path.split_at(slash);
        let after = after.get(1..).unwrap_or_default();
        let end = memchr::memchr(b'/', after).unwrap_or(after.len());
        let (port, rest) = after.split_at(end);
        let Some(port) = parse_port(port) else {
            return Resolved::NotFound;
        };
        if machine.is_empty() {
            return Resolved::NotFound;
        }
        let machine = MachineRef::exact(machine);
        let at = whole.len() - rest.len();
        // A reference that no machine can have is not redirected: in `/\evil/80` a browser would
        // take it for another host.
        if rest.is_empty() && matches!(method, Method::Get | Method::Head) && !machine.is_empty() {
            return Resolved::Redirect { rest: at };
        }
        Resolved::To(Destination {
            machine,
            port,
            place: Place::Path { rest: at },
        })
    }
}

/// What [`Site::resolve`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// A port of a machine, which may or may not be there.
    To(Destination),
    /// 308 to the same path with `/` put in at `rest` ([`crate::answer::write_redirect`]).
    Redirect { rest: usize },
    /// No route looks like this: 404 not_found.
    NotFound,
}

/// A port of a machine, as the request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    pub machine: MachineRef,
    pub port: u16,
    pub place: Place,
}

/// Where in the request the destination was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the path; what the machine gets starts at `rest`, an offset into `RequestHead::path`.
    Path { rest: usize },
    /// In the host; the path goes to the machine whole.
    Host,
}

/// An id or a name, to be looked up; an id wins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MachineRef {
    bytes: [u8; MAX_LABEL],
    length: u8,
}

impl MachineRef {
    /// As it stands. What can be no id and no name becomes empty.
    fn exact(text: &[u8]) -> Self {
        let mut this = Self {
            bytes: [0; MAX_LABEL],
            length: 0,
        };
        let label = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        if let Some(room) = this.bytes.get_mut(..text.len()) {
            if text.iter().all(label) {
                room.copy_from_slice(text);
                // At most MAX_LABEL, which fits.
                this.length = text.len() as u8;
            }
        }
        this
    }

    fn folded(text: &[u8]) -> Self {
        let mut this = Self::exact(text);
        this.bytes.make_ascii_lowercase();
        this
    }

    /// The reference's bytes: letters, digits and `-`; empty if no machine can be called so.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }

    /// The same as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// No machine can be called so.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl std::fmt::Debug for MachineRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

/// What the table knows of a machine, as far as one port of it is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known<U> {
    /// Its state is `running`.
    pub running: bool,
    /// The table's entry of the port; `None`: not exposed.
    pub port: Option<U>,
}

/// Whether a request for `port` may go there: the entry to connect with, or the answer, in the
/// documented order: unknown, not running, not exposed.
pub fn check<U>(machine: Option<Known<U>>, port: u16) -> Result<U, Answer> {
    let machine = machine.ok_or(Answer::MachineNotFound)?;
    if !machine.running {
        return Err(Answer::MachineNotRunning);
    }
    machine.port.ok_or(Answer::PortNotExposed(port))
}

/// `{machine}-{port}`, divided at the last dash.
fn split_label(label: &[u8]) -> Option<(&[u8], u16)> {
    let dash = memchr::memrchr(b'-', label)?;
    let (machine, port) = label.split_at(dash);
    let port = parse_port(port.get(1..)?)?;
    (!machine.is_empty() && memchr::memchr(b'.', machine).is_none()).then_some((machine, port))
}

/// 1 to 65535, digits only, no leading zero.
fn parse_port(digits: &[u8]) -> Option<u16> {
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    digits.iter().try_fold(0u16, |sum, byte| match byte {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u16::from(byte - b'0')),
        _ => None,
    })
}

/// Lower case with one leading dot; `None` when it is no domain name.
fn normal_suffix(suffix: &str) -> Option<Vec<u8>> {
    let name = suffix.strip_prefix('.').unwrap_or(suffix);
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    (name.len() <= 253 && name.split('.').all(label))
        .then(|| format!(".{}", name.to_ascii_lowercase()).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(prefix: &str, suffix: Option<&str>) -> Result<Site, String> {
        Site::new(prefix, suffix, vec!["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn settings_are_checked_and_made_normal() {
        for prefix in ["", "/", "//", "/a", "/a/", "/a/b-c_d.~!"] {
            let site = site(prefix, None).unwrap();
            assert_eq!(site.prefix, prefix.trim_end_matches('/').as_bytes());
        }
        let long = format!("/{}", "p".repeat(254));
        assert!(site(&long, None).is_ok());
        for prefix in [
            "a",
            "//a",
            "/a b",
            "/a?b",
            "/a#b",
            "/\\a",
            "/\u{e4}",
            &(long + "p"),
        ] {
            assert!(site(prefix, None).is_err(), "{prefix}");
        }
        for suffix in ["local.dev", ".local.dev", ".Local.Dev."] {
            let site = site("", Some(suffix)).unwrap();
            assert_eq!(site.host_suffix.as_deref(), Some(&b".local.dev"[..]));
        }
        for suffix in [
            "",
            ".",
            "..",
            "..dev",
            "a..b",
            "a.dev:80",
            "a b",
            "*.dev",
            "\u{e4}.dev",
        ] {
            assert!(site("", Some(suffix)).is_err(), "{suffix}");
        }
    }

    #[test]
    fn mapped_addresses_are_trusted_as_what_they_are() {
        let site = site("", None).unwrap();
        for (peer, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.1.2.3", false),
            ("::1", false),
        ] {
            assert_eq!(site.trusts(peer.parse().unwrap()), trusted, "{peer}");
        }
    }

    #[test]
    fn denials_come_in_their_order() {
        fn known<U>(running: bool, port: Option<U>) -> Option<Known<U>> {
            Some(Known { running, port })
        }
        assert_eq!(check::<()>(None, 80), Err(Answer::MachineNotFound));
        assert_eq!(
            check::<()>(known(false, None), 80),
            Err(Answer::MachineNotRunning)
        );
        assert_eq!(
            check(known(false, Some(())), 80),
            Err(Answer::MachineNotRunning)
        );
        assert_eq!(
            check::<()>(known(true, None), 80),
            Err(Answer::PortNotExposed(80))
        );
        assert_eq!(check(known(true, Some("entry")), 80), Ok("entry"));
    }

    #[test]
    fn references_are_labels_or_nothing() {
        assert_eq!(MachineRef::exact(b"Web-1").as_str(), "Web-1");
        assert_eq!(MachineRef::folded(b"WEB-1").as_str(), "web-1");
        assert_eq!(MachineRef::exact(&[b'a'; 63]).as_bytes().len(), 63);
        for nothing in [&b""[..], b"a.b", b"a b", b"a/b", b"\xff", &[b'a'; 64]] {
            assert!(MachineRef::exact(nothing).is_empty());
        }
    }
}
