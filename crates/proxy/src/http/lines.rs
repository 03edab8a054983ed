//! Finds the lines of a head in a buffer that grows, never looking at a byte twice.

/// What [`Lines::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A line: `start..end` without its ending; `crlf` is false for a bare LF.
    Line {
        start: usize,
        end: usize,
        crlf: bool,
    },
    /// No line end yet.
    Partial,
    /// The bound came before the line's end.
    TooLong,
}

/// A cursor that is kept from one call to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines {
    /// Where the current line starts.
    pub start: usize,
    /// Up to here no LF was found in the current line.
    seen: usize,
}

impl Lines {
    /// The next line of `bytes`, which must begin with all the bytes of the calls before.
    /// A line, ending included, has to lie within the first `bound` bytes.
    pub fn next(&mut self, bytes: &[u8], bound: usize) -> Found {
        let window = bytes.get(..bound).unwrap_or(bytes);
        let fresh = window.get(self.seen..).unwrap_or_default();
        let Some(at) = memchr::memchr(b'\n', fresh) else {
            self.seen = self.seen.max(window.len());
            return if bytes.len() >= bound {
                Found::TooLong
            } else {
                Found::Partial
            };
        };
        let lf = self.seen + at;
        let start = self.start;
        self.start = lf + 1;
        self.seen = lf + 1;
        let crlf = lf > start && window.get(lf - 1) == Some(&b'\r');
        let end = if crlf { lf - 1 } else { lf };
        Found::Line { start, end, crlf }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_whatever_the_cut() {
        let bytes = b"one\r\ntwo\n\r\nrest";
        for cut in 0..bytes.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[..]] {
                while let Found::Line { start, end, crlf } = lines.next(part, 100) {
                    seen.push((&bytes[start..end], crlf));
                }
            }
            let expected: Vec<(&[u8], bool)> = vec![(b"one", true), (b"two", false), (b"", true)];
            assert_eq!(seen, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_ends_within_the_bound_or_is_too_long() {
        let line = Found::Line {
            start: 0,
            end: 3,
            crlf: true,
        };
        assert_eq!(Lines::default().next(b"one\r\ntwo", 5), line);
        assert_eq!(Lines::default().next(b"one\r\ntwo", 4), Found::TooLong);
        assert_eq!(Lines::default().next(b"one\r", 4), Found::TooLong);
        assert_eq!(Lines::default().next(b"one\r", 5), Found::Partial);
    }
}
