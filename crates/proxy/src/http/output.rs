//! Field lines on their way out.

use super::fields::Field;

/// Appends one line: `name`, which brings its colon, then `value` and CRLF.
pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Lines that go through as they came; neighbours are copied at once.
#[derive(Default)]
pub(crate) struct Kept {
    start: usize,
    end: usize,
}

impl Kept {
    /// Keeps the line of `field`.
    pub(crate) fn add(&mut self, field: &Field, bytes: &[u8], out: &mut Vec<u8>) {
        if field.rewrite {
            self.flush(bytes, out);
            out.extend_from_slice(field.name.of(bytes));
            line(out, b": ", field.value.of(bytes));
            return;
        }
        if self.end != field.line.start() {
            self.flush(bytes, out);
            self.start = field.line.start();
        }
        self.end = field.line.end();
    }

    /// Writes what is kept so far.
    pub(crate) fn flush(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(bytes.get(self.start..self.end).unwrap_or_default());
        self.start = self.end;
    }
}
