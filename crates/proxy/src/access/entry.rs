//! What a line of the access log says. Pure: the times are given.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::answer::Answer;
use crate::http::request::RequestHead;

/// Most bytes of a method and of a path that are kept: what waits in the queue is bounded.
const LONGEST_METHOD: usize = 32;
const LONGEST_PATH: usize = 2048;

/// Where the destination was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Path,
    Host,
}

/// One request, as far as it was understood.
#[derive(Debug)]
pub struct Entry {
    began: SystemTime,
    client: IpAddr,
    /// Of a head that was understood.
    method: Option<String>,
    path: Option<String>,
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

/// In the order in which they are written.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    method: Option<&'a str>,
    mode: Option<Mode>,
    machine: Option<&'a str>,
    port: Option<u16>,
    path: Option<&'a str>,
    status: Option<u16>,
    error: Option<&'static str>,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: Option<f64>,
    first_byte_ms: Option<f64>,
    client: IpAddr,
    protocol: &'static str,
}

impl Entry {
    /// Of a request of `client` that began then; the rest is not known yet.
    pub fn new(client: IpAddr, began: SystemTime) -> Entry {
        Entry {
            began,
            client: client.to_canonical(),
            method: None,
            path: None,
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
        self.method = Some(kept(head.method_text.of(bytes), LONGEST_METHOD));
        self.path = Some(kept(&path[..query], LONGEST_PATH));
    }

    /// The proxy answers by itself.
    pub fn answered(&mut self, answer: Answer) {
        self.status = Some(answer.status());
        self.error = Some(answer.code());
    }

    /// Appends the line, its end included.
    pub fn write(&self, out: &mut Vec<u8>) {
        let ms = |us: u64| us as f64 / 1000.0;
        let line = Line {
            time: &rfc3339(self.began),
            method: self.method.as_deref(),
            mode: self.mode,
            machine: self.machine.as_deref(),
            port: self.port,
            path: self.path.as_deref(),
            status: self.status,
            error: self.error,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_ms: self.duration_us.map(ms),
            first_byte_ms: self.first_byte_us.map(ms),
            client: self.client,
            protocol: if self.websocket { "websocket" } else { "http" },
        };
        // Writing to a Vec cannot fail, and no key of the map is anything but text.
        let _ = serde_json::to_writer(&mut *out, &line);
        out.push(b'\n');
    }
}

fn kept(bytes: &[u8], longest: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(longest)]).into_owned()
}

/// In UTC with milliseconds (RFC 3339 section 5.6); before 1970 it is 1970.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
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
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599_050, "2024-12-31T23:59:59.050Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(rfc3339(time), text);
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
            let mut entry = Entry::new([10, 0, 0, 1].into(), UNIX_EPOCH);
            entry.asked(&head, bytes.as_bytes());
            let mut out = Vec::new();
            entry.write(&mut out);
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
