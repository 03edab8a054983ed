//! What Connection says (RFC 9110 section 7.6.1).

use super::fields::{self, Field, Name};

/// Most options that `Connection` may list; keeps the work of removing what they name bounded.
const MAX_OPTIONS: u32 = 64;

/// What all `Connection` lines of a head say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    /// There are other options; each names a field.
    named: bool,
    count: u32,
}

/// What is wrong with a `Connection` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadOption {
    /// An element is no token.
    Malformed,
    /// It names a field that is not for one hop only.
    Forbidden,
    /// There are too many.
    TooMany,
}

impl Options {
    /// Takes one more line into account, whole even where it tells an error.
    ///
    /// # Errors
    /// The last thing that is wrong with it. After `TooMany` no more was read.
    pub(super) fn add(&mut self, value: &[u8]) -> Result<(), BadOption> {
        let mut outcome = Ok(());
        for option in fields::list(value) {
            self.count += 1;
            if self.count > MAX_OPTIONS {
                return Err(BadOption::TooMany);
            }
            if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if fields::is_token(option) {
                self.named = true;
                if is_end_to_end(option) {
                    outcome = Err(BadOption::Forbidden);
                }
            } else {
                outcome = Err(BadOption::Malformed);
            }
        }
        outcome
    }

    /// Marks the fields that `Connection` names.
    pub(super) fn mark(&self, bytes: &[u8], fields: &mut [Field]) {
        if !self.named {
            return;
        }
        for at in 0..fields.len() {
            let value = match fields.get(at) {
                Some(field) if field.known == Name::Connection => field.value.of(bytes),
                _ => continue,
            };
            for option in fields::list(value) {
                for field in fields.iter_mut() {
                    field.hop |= option.eq_ignore_ascii_case(field.name.of(bytes));
                }
            }
        }
    }
}

/// Fields that frame, route or tell where a message came from; `Connection` cannot take them off.
fn is_end_to_end(name: &[u8]) -> bool {
    matches!(
        Name::of(name),
        Name::Host | Name::ContentLength | Name::TransferEncoding | Name::XMachineId
    ) || name
        .get(..12)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"x-forwarded-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(lines: &[&str]) -> Result<Options, BadOption> {
        let mut options = Options::default();
        for line in lines {
            options.add(line.as_bytes())?;
        }
        Ok(options)
    }

    #[test]
    fn options_add_up_over_lines() {
        let options = add(&["Keep-Alive,, UPGRADE", "", "close"]).unwrap();
        assert!(options.keep_alive && options.upgrade && options.close && !options.named);
        assert!(add(&["te"]).unwrap().named);
    }

    #[test]
    fn what_may_not_be_named_is_told() {
        assert_eq!(add(&["a b"]), Err(BadOption::Malformed));
        assert_eq!(add(&["x-forwarded-anything"]), Err(BadOption::Forbidden));
        assert_eq!(add(&["x_forwarded_for"]).map(|all| all.named), Ok(true));
        assert_eq!(add(&[&"a,".repeat(65)]), Err(BadOption::TooMany));
    }

    #[test]
    fn named_fields_are_marked_in_any_case() {
        let bytes = b"Connection: x-a\r\nX-A: 1\r\nX-B: 2\r\n";
        let field = |start, end| fields::parse(bytes, start, end, 2, false).unwrap();
        let mut all = [field(0, 15), field(17, 23), field(25, 31)];
        add(&["x-a"]).unwrap().mark(bytes, &mut all);
        assert_eq!(all.map(|field| field.hop), [false, true, false]);
    }
}
