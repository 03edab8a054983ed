//! Reads and writes the case files; `README.md` here describes them.

use std::fmt::Write;

/// One case of a file.
pub struct Case {
    pub name: String,
    /// The lines before the outcome, as they stand in the file.
    pub source: String,
    pub settings: Vec<(String, String)>,
    pub input: Vec<u8>,
    /// The outcome as it stands in the file.
    pub outcome: String,
}

/// A file: notes, then cases.
pub struct File {
    pub notes: String,
    pub cases: Vec<Case>,
}

/// Reads a case file.
pub fn read(text: &str) -> File {
    let mut file = File {
        notes: String::new(),
        cases: Vec::new(),
    };
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            file.cases.push(Case {
                name: name.to_owned(),
                source: String::new(),
                settings: Vec::new(),
                input: Vec::new(),
                outcome: String::new(),
            });
        }
        let Some(case) = file.cases.last_mut() else {
            writeln!(file.notes, "{line}").unwrap();
            continue;
        };
        match line.as_bytes().first() {
            None => {}
            Some(b'=' | b'<' | b'!') => writeln!(case.outcome, "{line}").unwrap(),
            first => {
                assert!(case.outcome.is_empty(), "{}: {line}", case.name);
                writeln!(case.source, "{line}").unwrap();
                match first {
                    Some(b'>') => add_line(&line[1..], &mut case.input),
                    Some(b'%') => {
                        let setting = line[1..].trim();
                        let (key, value) = setting.split_once(' ').unwrap_or((setting, ""));
                        case.settings.push((key.to_owned(), value.to_owned()));
                    }
                    Some(b'#') => {}
                    _ => panic!("{}: a line of no known kind: {line}", case.name),
                }
            }
        }
    }
    file
}

/// Writes a case file back, with the outcomes given.
pub fn write(file: &File, outcomes: &[String]) -> String {
    let mut text = file.notes.clone();
    for (at, (case, outcome)) in file.cases.iter().zip(outcomes).enumerate() {
        let gap = if at == 0 { "" } else { "\n" };
        write!(text, "{gap}{}{outcome}", case.source).unwrap();
    }
    text
}

/// Appends the bytes of one `>` line, given without its mark.
fn add_line(line: &str, out: &mut Vec<u8>) {
    let (times, line) = match line.strip_prefix('*') {
        Some(rest) => {
            let (times, line) = rest.split_once(' ').expect("`>*N line`");
            (times.parse().expect("a number"), line)
        }
        None => (1, line.strip_prefix(' ').unwrap_or(line)),
    };
    let mut bytes = Vec::new();
    let open = unescape(line.as_bytes(), &mut bytes);
    if !open {
        bytes.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(&bytes.repeat(times));
}

/// Appends what `text` stands for; true if it ends in a single `\`.
fn unescape(text: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return false,
            [b'\\'] => return true,
            [b'\\', b'r', rest @ ..] => push(out, b'\r', rest),
            [b'\\', b'n', rest @ ..] => push(out, b'\n', rest),
            [b'\\', b't', rest @ ..] => push(out, b'\t', rest),
            [b'\\', b'0', rest @ ..] => push(out, 0, rest),
            [b'\\', b'\\', rest @ ..] => push(out, b'\\', rest),
            [b'\\', b'x', high, low, rest @ ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                push(out, u8::from_str_radix(digits, 16).expect("`\\xHH`"), rest)
            }
            [b'\\', b'*', rest @ ..] => {
                let open = rest.iter().position(|&b| b == b'(').expect("`\\*N(text)`");
                let close = rest.iter().position(|&b| b == b')').expect("`\\*N(text)`");
                let times = std::str::from_utf8(&rest[..open]).unwrap();
                let mut part = Vec::new();
                unescape(&rest[open + 1..close], &mut part);
                out.extend_from_slice(&part.repeat(times.parse().expect("a number")));
                &rest[close + 1..]
            }
            [b'\\', ..] => panic!("unknown escape: {}", String::from_utf8_lossy(rest)),
            [byte, rest @ ..] => push(out, *byte, rest),
        }
    }
}

fn push<'a>(out: &mut Vec<u8>, byte: u8, rest: &'a [u8]) -> &'a [u8] {
    out.push(byte);
    rest
}

/// Appends `<` lines for `bytes`.
pub fn show(bytes: &[u8], out: &mut String) {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, end, after) = match rest.windows(2).position(|pair| pair == b"\r\n") {
            Some(at) => (&rest[..at], "", &rest[at + 2..]),
            None => (rest, "\\", &[][..]),
        };
        rest = after;
        let line = escape(line) + end;
        match lines.last_mut() {
            Some((times, last)) if *last == line => *times += 1,
            _ => lines.push((1, line)),
        }
    }
    for (times, line) in lines {
        match times {
            1 => writeln!(out, "< {line}").unwrap(),
            _ => writeln!(out, "<*{times} {line}").unwrap(),
        }
    }
    // No white space at the ends of lines.
    *out = out.replace("< \n", "<\n").replace(" \n", "\\x20\n");
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let run = rest.iter().take_while(|&&other| other == byte).count();
        let one = match byte {
            b'\r' => "\\r".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\t' => "\\t".to_owned(),
            0 => "\\0".to_owned(),
            b'\\' => "\\\\".to_owned(),
            0x20..=0x7e => char::from(byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        };
        if run >= 32 {
            write!(text, "\\*{run}({one})").unwrap();
            rest = &rest[run..];
        } else {
            text.push_str(&one);
            rest = &rest[1..];
        }
    }
    text
}
