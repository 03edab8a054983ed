//! Appends a JSON object's members one by one: a line is written for each request, and the general
//! way took half of what the log costs. Pure.

use std::net::IpAddr;

use crate::address;
use crate::http::fields::every;

/// An object that is being written.
pub struct Object<'a>(&'a mut Vec<u8>);

/// A member's key with what stands around it: `key!(first "time")` begins the object, `key!("path")`
/// follows another member. Plain text of ours.
macro_rules! key {
    (first $name:literal) => {
        concat!("{\"", $name, "\":")
    };
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(super) use key;

impl<'a> Object<'a> {
    pub fn begin(out: &'a mut Vec<u8>) -> Object<'a> {
        Object(out)
    }

    pub fn end(self) {
        self.0.push(b'}');
    }

    /// A value that is there, or null.
    fn member<T>(&mut self, key: &str, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
        self.0.extend(key.as_bytes());
        match value {
            Some(value) => write(self.0, value),
            None => self.0.extend(b"null"),
        }
    }

    /// A text in which every byte stands for itself: one of ours.
    pub fn plain(&mut self, key: &str, value: Option<&str>) {
        self.member(key, value, quoted);
    }

    pub fn text(&mut self, key: &str, value: Option<&str>) {
        self.member(key, value, |out, text| {
            if every(text.as_bytes(), |byte| !is_special(byte)) {
                quoted(out, text);
            } else {
                // Writing text to a Vec cannot fail.
                drop(serde_json::to_writer(out, text));
            }
        });
    }

    pub fn number(&mut self, key: &str, value: Option<u64>) {
        self.member(key, value, |out, value| digits(out, value, 1));
    }

    /// A number of thousandths.
    pub fn thousandths(&mut self, key: &str, value: Option<u64>) {
        self.member(key, value, |out, value| {
            digits(out, value / 1000, 1);
            out.push(b'.');
            digits(out, value % 1000, 3);
        });
    }

    pub fn address(&mut self, key: &str, value: IpAddr) {
        self.member(key, Some(value), |out, value| {
            out.push(b'"');
            address::write(value, out);
            out.push(b'"');
        });
    }
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend(text.as_bytes());
    out.push(b'"');
}

/// Whether a byte does not stand for itself in a string (RFC 8259 section 7).
fn is_special(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

/// With at least so many digits, up to 20.
fn digits(out: &mut Vec<u8>, mut value: u64, least: usize) {
    let mut text = [b'0'; 20];
    let mut begin = text.len();
    while value > 0 {
        begin -= 1;
        text[begin] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend(&text[begin.min(text.len() - least)..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn members_are_read_as_they_were_meant() {
        for text in [
            "",
            "GET",
            "/a/ü?",
            "\"",
            "a\\b",
            "\u{1}\n\r\t\u{7f}\u{2028}",
            "日",
        ] {
            for number in [
                0,
                7,
                10,
                999,
                1000,
                1001,
                65_535,
                1_234_567_890,
                u64::MAX / 1000,
            ] {
                let mut out = Vec::new();
                let mut object = Object::begin(&mut out);
                object.text(key!(first "text"), Some(text));
                object.text(key!("no_text"), None);
                object.plain(key!("plain"), Some("as it is"));
                object.number(key!("number"), Some(number));
                object.number(key!("no_number"), None);
                object.thousandths(key!("thousandths"), Some(number));
                object.thousandths(key!("no_thousandths"), None);
                object.address(key!("four"), Ipv4Addr::new(10, 0, 255, 7).into());
                object.address(key!("six"), Ipv6Addr::LOCALHOST.into());
                object.end();
                let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
                let meant = serde_json::json!({
                    "text": text, "no_text": null, "plain": "as it is",
                    "number": number, "no_number": null,
                    "thousandths": number as f64 / 1000.0, "no_thousandths": null,
                    "four": "10.0.255.7", "six": "::1",
                });
                assert_eq!(read, meant);
            }
        }
    }
}
