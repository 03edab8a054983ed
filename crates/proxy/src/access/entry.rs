//! What a line of the access log says. Pure: the times are given.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::json::{key, Object};
use crate::answer::Answer;
use crate::http::request::RequestHead;

/// Most bytes of a method and of a path that are kept.
const LONGEST_METHOD: usize = 32;
const LONGEST_PATH: usize = 2048;

/// Where the destination was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Path,
    Host,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Path => "path",
            Mode::Host => "host",
        }
    }
}

/// One request, as far as it was understood.
#[derive(Debug)]
pub struct Entry {
    client: IpAddr,
    /// Method and path of a head that was understood, one after the other as they came: text is
    /// made of them only for a line that is written.
    asked: Option<Asked>,
    pub mode: Option<Mode>,
    /// The id, or what the request calls a machine that is not there.
    pub machine: Option<String>,
    pub port: Option<u16>,
    /// Of the last head that the client was sent.
    pub status: Option<u16>,
    /// The code of an answer of the proxy's own.
    pub error: Option<&'static str>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Microseconds from the first byte to the response's last.
    pub duration_us: Option<u64>,
    /// To the machine's first byte.
    pub first_byte_us: Option<u64>,
    pub websocket: bool,
}

#[derive(Debug)]
struct Asked {
    bytes: Box<[u8]>,
    /// Where the path begins.
    path: usize,
}

impl Entry {
    /// Of a request of `client`; the rest is not known yet.
    pub fn new(client: IpAddr) -> Entry {
        Entry {
            client: client.to_canonical(),
            asked: None,
            mode: None,
            machine: None,
            port: None,
            status: None,
            error: None,
            bytes_in: 0,
            bytes_out: 0,
            duration_us: None,
            first_byte_us: None,
            websocket: false,
        }
    }

    /// Its head, parsed from `bytes`, was understood.
    pub fn asked(&mut self, head: &RequestHead, bytes: &[u8]) {
        let path = head.path.of(bytes);
        let query = memchr::memchr(b'?', path).unwrap_or(path.len());
        let method = head.method_text.of(bytes);
        let method = &method[..method.len().min(LONGEST_METHOD)];
        let path = &path[..query.min(LONGEST_PATH)];
        self.asked = Some(Asked {
            bytes: [method, path].concat().into(),
            path: method.len(),
        });
    }

    /// The proxy answers by itself.
    pub fn answered(&mut self, answer: Answer) {
        self.status = Some(answer.status());
        self.error = Some(answer.code());
    }

    /// Appends the line of a request that began then, its end included.
    pub fn write(&self, began: SystemTime, calendar: &mut Calendar, out: &mut Vec<u8>) {
        let asked = self.asked.as_ref();
        let texts = asked.map(|asked| {
            let (method, path) = asked.bytes.split_at(asked.path);
            [method, path].map(as_text)
        });
        let [method, path] = texts.as_ref().map_or([None; 2], |texts| {
            texts.each_ref().map(|text| Some(&**text))
        });
        let mut line = Object::begin(out);
        line.plain(key!(first "time"), Some(calendar.text(began)));
        line.text(key!("method"), method);
        line.plain(key!("mode"), self.mode.map(Mode::name));
        line.text(key!("machine"), self.machine.as_deref());
        line.number(key!("port"), self.port.map(u64::from));
        line.text(key!("path"), path);
        line.number(key!("status"), self.status.map(u64::from));
        line.plain(key!("error"), self.error);
        line.number(key!("bytes_in"), Some(self.bytes_in));
        line.number(key!("bytes_out"), Some(self.bytes_out));
        line.thousandths(key!("duration_ms"), self.duration_us);
        line.thousandths(key!("first_byte_ms"), self.first_byte_us);
        line.address(key!("client"), self.client);
        let protocol = if self.websocket { "websocket" } else { "http" };
        line.plain(key!("protocol"), Some(protocol));
        line.end();
        out.push(b'\n');
    }
}

/// What is no UTF-8 becomes U+FFFD.
fn as_text(bytes: &[u8]) -> Cow<'_, str> {
    // Nearly all is UTF-8, and this looks at many bytes at a time.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Turns times into text, and remembers the last second's: most lines are of the same.
#[derive(Debug, Default)]
pub struct Calendar {
    second: u64,
    /// Of `second`, with the milliseconds asked for last; empty before the first time.
    text: String,
}

impl Calendar {
    /// In UTC with milliseconds (RFC 3339 section 5.6); before 1970 it is 1970.
    fn text(&mut self, time: SystemTime) -> &str {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (second, millis) = (since.as_secs(), since.subsec_millis());
        if second != self.second || self.text.is_empty() {
            let (year, month, day) = date(second / 86_400);
            let (hours, minutes, seconds) = (second / 3600 % 24, second / 60 % 60, second % 60);
            self.second = second;
            self.text =
                format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.000Z");
        }
        self.text.truncate(self.text.len() - "000Z".len());
        let digit = |of: u32| char::from_digit(millis / of % 10, 10);
        self.text.extend([100, 10, 1].into_iter().filter_map(digit));
        self.text.push('Z');
        &self.text
    }
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar. Years are counted
/// from March, so that the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    // Since 0000-03-01; 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months from March on have 153 days, and so have the next five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request;
    use crate::limits::Limits;

    #[test]
    fn times_are_utc_with_milliseconds() {
        let mut calendar = Calendar::default();
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (951_782_400_987, "2000-02-29T00:00:00.987Z"),
            (951_782_400_060, "2000-02-29T00:00:00.060Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599_050, "2024-12-31T23:59:59.050Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(calendar.text(time), text);
        }
    }

    #[test]
    fn a_line_is_json_without_a_query_whatever_is_in_the_path() {
        let long = "x".repeat(3000);
        for (target, path) in [
            ("/a\"b?token=secret", "/a\"b"),
            ("/?token=secret?", "/"),
            ("http://h?token=secret", ""),
            (&*format!("/{long}?secret"), &*format!("/{}", &long[..2047])),
        ] {
            let bytes = format!("M-X {target} HTTP/1.1\r\nHost: h\r\nCookie: secret\r\n\r\n");
            let mut head = RequestHead::new();
            request::parse(bytes.as_bytes(), &Limits::default(), &mut head).unwrap();
            let mut entry = Entry::new([10, 0, 0, 1].into());
            entry.asked(&head, bytes.as_bytes());
            let mut out = Vec::new();
            entry.write(UNIX_EPOCH, &mut Calendar::default(), &mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
            assert!(!text.contains("secret"), "{text}");
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(line["path"], path);
            assert_eq!(line["method"], "M-X");
            assert_eq!(line["client"], "10.0.0.1");
        }
    }
}
