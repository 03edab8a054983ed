//! A response as a strict reader understands it: whole, or not. Independent of the proxy's parser.

/// A response that is whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub status: u16,
    pub body: String,
    /// The value of the trailer `T`.
    pub trailer: Option<String>,
    /// The proxy's own code, when it answered in place of a machine.
    pub error: Option<String>,
    /// Bytes that follow it.
    pub left: usize,
}

/// Reads the response that begins `text` (RFC 9112 sections 4 to 7); `ended`: an orderly end
/// follows. `None` when it is not whole, or none at all.
pub fn read(text: &str, ended: bool) -> Option<Message> {
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let (first, lines) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = status(first)?;
    let fields = fields(lines)?;
    let (body, trailer, left) = match (
        all(&fields, "Content-Length").as_slice(),
        all(&fields, "Transfer-Encoding").as_slice(),
    ) {
        ([], []) => (ended.then_some(rest)?.to_owned(), None, 0),
        ([length], []) => {
            let length = number(length, 10)?;
            (rest.get(..length)?.to_owned(), None, rest.len() - length)
        }
        ([], ["chunked"]) => chunks(rest)?,
        _ => return None,
    };
    let error = all(&fields, "X-Hyperfleet-Error")
        .first()
        .map(ToString::to_string);
    Some(Message {
        status,
        body,
        trailer,
        error,
        left,
    })
}

fn status(line: &str) -> Option<u16> {
    let (code, reason) = line.strip_prefix("HTTP/1.1 ")?.split_once(' ')?;
    let right = code.len() == 3 && is_text(reason);
    right.then(|| number(code, 10))?.map(|code| code as u16)
}

/// Name and value of each line.
fn fields(lines: &str) -> Option<Vec<(&str, &str)>> {
    if lines.is_empty() {
        return Some(Vec::new());
    }
    lines.split("\r\n").map(field).collect()
}

fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let right = !name.is_empty() && name.bytes().all(token) && is_text(value);
    right.then(|| (name, value.trim()))
}

fn all<'a>(fields: &[(&'a str, &'a str)], name: &str) -> Vec<&'a str> {
    let named = fields
        .iter()
        .filter(|field| field.0.eq_ignore_ascii_case(name));
    named.map(|field| field.1).collect()
}

/// The data of a chunked body, its trailer `T`, and how many bytes follow.
fn chunks(mut rest: &str) -> Option<(String, Option<String>, usize)> {
    let mut data = String::new();
    loop {
        let (line, after) = rest.split_once("\r\n")?;
        let size = number(line, 16)?;
        if size == 0 {
            if let Some(after) = after.strip_prefix("\r\n") {
                return Some((data, None, after.len()));
            }
            let (lines, after) = after.split_once("\r\n\r\n")?;
            let trailer = all(&fields(lines)?, "T").first().map(ToString::to_string);
            return Some((data, trailer, after.len()));
        }
        data.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

fn number(text: &str, radix: u32) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| usize::from_str_radix(text, radix).ok())?
}

fn is_text(text: &str) -> bool {
    text.bytes().all(|byte| byte >= b' ' && byte != 0x7f)
}
