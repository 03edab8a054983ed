//! Runs the case files: what http.md says of requests and responses, as bytes.

mod format;
mod request;
mod response;

use std::path::{Path, PathBuf};

use format::Case;

#[test]
fn requests() {
    run("requests", 150, request::outcome);
}

#[test]
fn responses() {
    run("responses", 60, response::outcome);
}

/// Every short case with one byte changed, put in or taken out, in turn, at every place: whatever
/// comes of it, the cuts agree, and the checks within the runners hold.
#[test]
fn spoiled() {
    for (folder, outcome) in [
        ("requests", request::outcome as Outcome),
        ("responses", response::outcome),
    ] {
        let cases = paths(folder).into_iter().flat_map(|path| read(&path).cases);
        for (number, mut case) in cases.enumerate() {
            if case.input.len() > SHORT {
                continue;
            }
            let input = std::mem::take(&mut case.input);
            for at in 0..input.len() {
                let turn = number + at;
                let byte = &SPOILERS[turn % SPOILERS.len()..][..1];
                let (put, skip) = [(byte, 1), (byte, 0), (&[], 1)][turn % 3];
                case.input = [&input[..at], put, &input[at + skip..]].concat();
                let whole = outcome(&case, &[&case.input]);
                let bytes: Vec<&[u8]> = case.input.chunks(1).collect();
                let name = &case.name;
                assert_eq!(outcome(&case, &bytes), whole, "{name}: {put:?} at {at}");
            }
        }
    }
}

/// Bytes that mean something somewhere in HTTP.
const SPOILERS: &[u8] = b"\r\n\0 \t:;,=/-_0\"\x7f\xff.";

type Outcome = fn(&Case, &[&[u8]]) -> String;

/// The case files of `folder`, in order.
fn paths(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> format::File {
    format::read(&std::fs::read_to_string(path).unwrap())
}

/// Runs every file of `folder`; there have to be at least `least` cases.
fn run(folder: &str, least: usize, outcome: Outcome) {
    let update = std::env::var_os("UPDATE_CASES").is_some();
    let (mut count, mut failures) = (0, Vec::new());
    for path in paths(folder) {
        let file = read(&path);
        count += file.cases.len();
        let mut outcomes = Vec::new();
        for case in &file.cases {
            let whole = outcome(case, &[&case.input]);
            if whole != case.outcome && !update {
                failures.push(format!(
                    "{} in {}\nexpected:\n{}got:\n{whole}",
                    case.name,
                    path.display(),
                    case.outcome
                ));
            }
            failures.extend(split_failures(case, &whole, outcome));
            outcomes.push(whole);
        }
        if update {
            std::fs::write(&path, format::write(&file, &outcomes)).unwrap();
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count >= least, "only {count} cases in {folder}");
    println!("{count} cases in {folder}");
}

/// Inputs up to this size are cut at every place.
const SHORT: usize = 512;

/// So often every input is cut at many places at once.
const CUTS: usize = 16;

/// Numbers that come the same in each run (xorshift64).
struct Random(u64);

impl Random {
    /// From 0 on, below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % bound
    }

    /// `input` in pieces, all rather short or all rather long.
    fn cut<'a>(&mut self, input: &'a [u8]) -> Vec<&'a [u8]> {
        let longest = 1 << (1 + self.below(10));
        let (mut pieces, mut rest) = (Vec::new(), input);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + self.below(longest)).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}

/// Other cuts of the same bytes have to come out as `whole` did.
fn split_failures(case: &Case, whole: &str, outcome: Outcome) -> Option<String> {
    let check = |pieces: &[&[u8]], how: &str| {
        let got = outcome(case, pieces);
        (got != whole).then(|| format!("{}, {how}\nwhole:\n{whole}got:\n{got}", case.name))
    };
    let bytes: Vec<&[u8]> = case.input.chunks(1).collect();
    if let Some(failure) = check(&bytes, "one byte at a time") {
        return Some(failure);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..CUTS {
        if let Some(failure) = check(&random.cut(&case.input), &format!("cut at random, {round}")) {
            return Some(failure);
        }
    }
    if case.input.len() > SHORT {
        return None;
    }
    (1..case.input.len()).find_map(|cut| {
        let (head, tail) = case.input.split_at(cut);
        check(&[head, tail], &format!("cut at {cut}"))
    })
}
