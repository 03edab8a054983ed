//! A chunked body: the first byte is the flavour, the rest the body and what comes after it. The
//! decoder agrees with a plain reader, whatever the cuts, and what is written anew says the same.
#![no_main]

use hyperfleet_fuzz::chunks::{self, Bounds, Read};
use hyperfleet_fuzz::cuts;
use hyperfleet_fuzz::reader::value_of;
use hyperfleet_proxy::http::chunked::{self, Decoder, Step};
use hyperfleet_proxy::http::Reject;
use hyperfleet_proxy::limits::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&flavour, bytes)) = input.split_first() else {
        return;
    };
    let mut limits = Limits::default();
    if flavour & 2 != 0 {
        limits = Limits {
            head: 64,
            fields: 3,
            chunk_line: 24,
            body: Some(32),
            ..limits
        };
    }
    let request = flavour & 1 != 0;
    let new = || {
        if request {
            Decoder::request(&limits)
        } else {
            Decoder::response()
        }
    };
    let decoded = decode(new(), &limits, &[bytes]);
    assert_eq!(decode(new(), &limits, &cuts::some(bytes)), decoded);
    assert_eq!(decode(new(), &limits, &cuts::bytes(bytes)), decoded);

    let bounds = Bounds {
        line: limits.chunk_line,
        trailer_bytes: limits.head,
        trailer_lines: limits.fields,
        body: limits.body.filter(|_| request),
    };
    let plain = chunks::read(bytes, &bounds);
    match (&decoded.end, plain) {
        (
            End::Whole { taken, trailers },
            Read::Whole {
                data,
                trailers: all,
                taken: length,
            },
        ) => {
            assert_eq!((&decoded.data, *taken), (&data, length));
            let passed: Vec<u8> = all
                .iter()
                .filter(|line| may_trail(line))
                .flat_map(|line| [line, &b"\r\n"[..]].concat())
                .collect();
            assert_eq!(*trailers, passed);
            written_anew(&data, trailers);
        }
        (End::Partial, Read::Partial { data }) => assert_eq!(decoded.data, data),
        (End::Broken(_), Read::Bad) => {}
        // The decoder need not wait for a line's end to see what is wrong with it.
        (End::Broken(_), Read::Partial { data }) => assert_eq!(decoded.data, data),
        (end, plain) => panic!("{end:?} where a plain reader finds {plain:?}"),
    }
});

#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    data: Vec<u8>,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Whole { taken: usize, trailers: Vec<u8> },
    Partial,
    Broken(Reject),
}

fn decode(mut decoder: Decoder, limits: &Limits, pieces: &[&[u8]]) -> Decoded {
    let (mut data, mut taken) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match decoder.next(rest, limits) {
                Ok(Step::More) => {
                    taken += rest.len();
                    break;
                }
                Ok(Step::Data(range)) => {
                    assert!(!range.is_empty());
                    data.extend_from_slice(&rest[range.clone()]);
                    taken += range.end;
                    rest = &rest[range.end..];
                }
                Ok(Step::End(length)) => {
                    taken += length;
                    let trailers = decoder.trailers().to_vec();
                    assert!(decoder.is_done());
                    return Decoded {
                        data,
                        end: End::Whole { taken, trailers },
                    };
                }
                Err(reject) => {
                    assert_eq!(
                        decoder.next(b"0\r\n\r\n", limits),
                        Err(reject),
                        "an error stays"
                    );
                    return Decoded {
                        data,
                        end: End::Broken(reject),
                    };
                }
            }
        }
    }
    Decoded {
        data,
        end: End::Partial,
    }
}

/// Written in chunks and read back, it is the same.
fn written_anew(data: &[u8], trailers: &[u8]) {
    let mut out = Vec::new();
    for chunk in cuts::some(data) {
        chunked::write_size(chunk.len(), &mut out);
        out.extend_from_slice(chunk);
        out.extend_from_slice(chunked::CHUNK_END);
    }
    chunked::write_end(trailers, &mut out);
    let taken = out.len();
    out.extend_from_slice(b"GET / HTTP/1.1\r\n");
    let again = decode(Decoder::response(), &Limits::default(), &[&out]);
    let end = End::Whole {
        taken,
        trailers: trailers.to_vec(),
    };
    assert_eq!(
        again,
        Decoded {
            data: data.to_vec(),
            end
        }
    );
}

/// RFC 9110 section 6.5.1, and what tells where a request came from.
fn may_trail(line: &[u8]) -> bool {
    const NEVER: [&str; 35] = [
        "accept",
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "sec-fetch-mode",
        "te",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-hyperfleet-error",
        "x-machine-id",
        "x-real-ip",
        "authentication-info",
        "authorization",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "location",
        "max-forwards",
        "proxy-authentication-info",
        "range",
        "set-cookie",
        "set-cookie2",
        "trailer",
        "www-authenticate",
    ];
    let Some((name, _)) = value_of(line) else {
        return false;
    };
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    // CGI servers read `_` as `-`, so those that tell an origin are kept out in either spelling.
    let read = if name.starts_with('x') {
        name.replace('_', "-")
    } else {
        name
    };
    !NEVER.contains(&read.as_str())
}
