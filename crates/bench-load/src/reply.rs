//! Reading an answer as it comes, and checking every byte of it.

use memchr::memmem;

use crate::content;

/// Why an answer is not the one that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    Connect,
    Status,
    Length,
    Bytes,
    /// Bytes after the answer that nobody asked for.
    Excess,
    /// The connection ended before the answer did.
    Closed,
}

/// What an answer has to be.
#[derive(Debug, Clone)]
pub enum Expected {
    /// A 200 with this body.
    Literal(Vec<u8>),
    /// A 200 with so many of [`content`]'s bytes.
    Content(u64),
    /// A 101.
    Switching,
    /// These bytes and no head.
    Raw(Vec<u8>),
}

/// One answer on its way in.
#[derive(Debug, Default)]
pub struct Reply {
    /// Its head, when it has not come in one piece.
    head: Vec<u8>,
    in_body: bool,
    /// Bytes of the body, or of raw ones, that have come.
    came: u64,
}

impl Reply {
    /// Takes what came; true when the answer is whole.
    ///
    /// # Errors
    /// It is not what was expected.
    pub fn take(&mut self, bytes: &[u8], expected: &Expected) -> Result<bool, Fault> {
        if self.in_body || matches!(expected, Expected::Raw(_)) {
            return self.take_body(bytes, expected);
        }
        if self.head.is_empty() {
            if let Some(length) = head_length(bytes) {
                check_head(&bytes[..length], expected)?;
                self.in_body = true;
                return self.take_body(&bytes[length..], expected);
            }
        }
        self.head.extend_from_slice(bytes);
        let Some(length) = head_length(&self.head) else {
            return Ok(false);
        };
        let head = std::mem::take(&mut self.head);
        check_head(&head[..length], expected)?;
        self.in_body = true;
        self.take_body(&head[length..], expected)
    }

    fn take_body(&mut self, bytes: &[u8], expected: &Expected) -> Result<bool, Fault> {
        let length = body_length(expected);
        let end = self.came + bytes.len() as u64;
        if end > length {
            return Err(Fault::Excess);
        }
        let right = match expected {
            Expected::Literal(body) | Expected::Raw(body) => {
                body.get(self.came as usize..end as usize) == Some(bytes)
            }
            Expected::Content(_) => content::is_at(self.came, bytes),
            Expected::Switching => true,
        };
        if !right {
            return Err(Fault::Bytes);
        }
        self.came = end;
        Ok(end == length)
    }
}

fn body_length(expected: &Expected) -> u64 {
    match expected {
        Expected::Literal(body) | Expected::Raw(body) => body.len() as u64,
        Expected::Content(length) => *length,
        Expected::Switching => 0,
    }
}

/// Bytes of the head at the start of `bytes`, its empty line included, when it is whole.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of the field `name` in a whole head.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let (found, value) = line.split_at(colon);
        let wanted = found.eq_ignore_ascii_case(name.as_bytes());
        wanted.then(|| value[1..].trim_ascii())
    })
}

/// The value of `Content-Length`.
pub fn content_length(head: &[u8]) -> Option<u64> {
    std::str::from_utf8(field(head, "content-length")?)
        .ok()?
        .parse()
        .ok()
}

fn check_head(head: &[u8], expected: &Expected) -> Result<(), Fault> {
    let switching = matches!(expected, Expected::Switching);
    let status: &[u8] = if switching { b"101" } else { b"200" };
    if !head.starts_with(b"HTTP/1.1 ") || head.get(9..12) != Some(status) {
        return Err(Fault::Status);
    }
    if !switching && content_length(head) != Some(body_length(expected)) {
        return Err(Fault::Length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(answer: &[u8], expected: &Expected) -> Result<bool, Fault> {
        Reply::default().take(answer, expected)
    }

    #[test]
    fn an_answer_is_whole_at_its_last_byte_however_it_is_cut() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello";
        let expected = Expected::Literal(b"hello".to_vec());
        for cut in 0..answer.len() {
            let mut reply = Reply::default();
            assert_eq!(reply.take(&answer[..cut], &expected), Ok(false), "{cut}");
            assert_eq!(reply.take(&answer[cut..], &expected), Ok(true), "{cut}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let hello = Expected::Literal(b"hello".to_vec());
        let of = |text: &str| whole(text.as_bytes(), &hello);
        let status = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(of(status), Err(Fault::Status));
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello";
        assert_eq!(of(length), Err(Fault::Length));
        let none = "HTTP/1.1 200 OK\r\n\r\nhello";
        assert_eq!(of(none), Err(Fault::Length));
        let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhallo";
        assert_eq!(of(bytes), Err(Fault::Bytes));
        let excess = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloo";
        assert_eq!(of(excess), Err(Fault::Excess));
        let raw = Expected::Raw(vec![1, 2]);
        assert_eq!(whole(&[1], &raw), Ok(false));
        assert_eq!(whole(&[1, 3], &raw), Err(Fault::Bytes));
        let content = Expected::Content(3);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        let right = [answer, content::from(0, 3)].concat();
        assert_eq!(whole(&right, &content), Ok(true));
    }
}
