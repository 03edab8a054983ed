//! One body on its way through: where it ends in what comes in, how it is framed going out. Pure.

use crate::http::chunked::{self, Decoder, Step};
use crate::http::{Framing, Reject};
use crate::limits::Limits;

/// A body that is being passed on.
pub struct Body {
    source: Source,
    /// Whether it goes out in chunks.
    chunked: bool,
}

enum Source {
    Ended,
    Length(u64),
    /// Boxed: most bodies have a length, and every connection holds two of these.
    Chunked(Box<Decoder>),
    UntilClose,
}

impl Source {
    fn new(framing: Framing, decoder: impl FnOnce() -> Decoder) -> Source {
        match framing {
            Framing::None | Framing::Length(0) => Source::Ended,
            Framing::Length(length) => Source::Length(length),
            Framing::Chunked => Source::Chunked(Box::new(decoder())),
            Framing::UntilClose => Source::UntilClose,
        }
    }
}

impl Body {
    /// A request's body; it goes out as it came, chunks written anew.
    pub fn request(framing: Framing, limits: &Limits) -> Body {
        Body {
            source: Source::new(framing, || Decoder::request(limits)),
            chunked: framing == Framing::Chunked,
        }
    }

    /// A response's body, to go out in chunks if `chunked`.
    pub fn response(framing: Framing, chunked: bool) -> Body {
        Body {
            source: Source::new(framing, Decoder::response),
            chunked,
        }
    }

    /// All of it has come in; what is to go out was given.
    pub fn ended(&self) -> bool {
        matches!(self.source, Source::Ended)
    }

    /// Whether what is still to come is known to be over `limit` bytes.
    pub fn is_over(&self, limit: u64) -> bool {
        matches!(self.source, Source::Length(left) if left > limit)
    }

    /// Bytes that are still to come and can go out without being looked at, if so many are left.
    pub fn blind(&self) -> Option<u64> {
        match self.source {
            Source::Length(left) if !self.chunked => Some(left),
            _ => None,
        }
    }

    /// `count` bytes of what is [`Body::blind`] were taken.
    pub fn took(&mut self, count: u64) {
        if let Source::Length(left) = &mut self.source {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.source = Source::Ended;
            }
        }
    }

    /// How many bytes from the start of `input` can go out as they are, now taken as sent.
    /// `None` when they have to be framed by [`Body::pass`].
    pub fn pass_as_is(&mut self, input: &[u8]) -> Option<usize> {
        match &mut self.source {
            Source::Length(left) if !self.chunked => {
                let take = input
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                if *left == 0 {
                    self.source = Source::Ended;
                }
                Some(take)
            }
            Source::UntilClose if !self.chunked => Some(input.len()),
            _ => None,
        }
    }

    /// Takes what is the body's from the start of `input`, appends to `out` what goes out, and
    /// says how many bytes were taken: all of them, unless the body has ended.
    ///
    /// # Errors
    /// The chunks are invalid or too many; what came before is in `out`.
    pub fn pass(
        &mut self,
        input: &[u8],
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<usize, Reject> {
        if let Some(taken) = self.pass_as_is(input) {
            out.extend_from_slice(&input[..taken]);
            return Ok(taken);
        }
        match &mut self.source {
            Source::Ended => Ok(0),
            Source::Length(left) => {
                let take = input
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                let ended = *left == 0;
                write_chunk(&input[..take], out);
                if ended {
                    self.source = Source::Ended;
                    chunked::write_end(&[], out);
                }
                Ok(take)
            }
            Source::UntilClose => {
                write_chunk(input, out);
                Ok(input.len())
            }
            Source::Chunked(decoder) => {
                let mut taken = 0;
                loop {
                    match decoder.next(&input[taken..], limits)? {
                        Step::More => return Ok(input.len()),
                        Step::Data(range) => {
                            let data = &input[taken..][range.clone()];
                            taken += range.end;
                            if self.chunked {
                                write_chunk(data, out);
                            } else {
                                out.extend_from_slice(data);
                            }
                        }
                        Step::End(rest) => {
                            taken += rest;
                            if self.chunked {
                                chunked::write_end(decoder.trailers(), out);
                            }
                            self.source = Source::Ended;
                            return Ok(taken);
                        }
                    }
                }
            }
        }
    }

    /// Nothing more will come in. False when the body is cut short; else its end is in `out`.
    pub fn close(&mut self, out: &mut Vec<u8>) -> bool {
        match self.source {
            Source::Ended => true,
            Source::UntilClose => {
                if self.chunked {
                    chunked::write_end(&[], out);
                }
                self.source = Source::Ended;
                true
            }
            _ => false,
        }
    }
}

fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        chunked::write_size(data.len(), out);
        out.extend_from_slice(data);
        out.extend_from_slice(chunked::CHUNK_END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(framing: Framing, chunked: bool, input: &[u8]) -> (Vec<u8>, usize, bool) {
        let limits = Limits::default();
        let mut out = Vec::new();
        let mut body = Body::response(framing, chunked);
        let taken = body.pass(input, &limits, &mut out).unwrap();
        (out, taken, body.ended())
    }

    #[test]
    fn a_body_takes_no_byte_that_is_not_its_own() {
        let whole = (b"hello".to_vec(), 5, true);
        assert_eq!(passed(Framing::Length(5), false, b"helloGET"), whole);
        assert_eq!(passed(Framing::None, false, b"GET"), (vec![], 0, true));
        let (out, taken, ended) = passed(Framing::Chunked, true, b"5;a=b\r\nhello\r\n0\r\n\r\nGET");
        assert_eq!(out, b"5\r\nhello\r\n0\r\n\r\n");
        assert_eq!((taken, ended), (19, true));
        let (out, taken, ended) =
            passed(Framing::Chunked, false, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
        assert_eq!((out.as_slice(), taken, ended), (&b"hello"[..], 20, true));
    }

    #[test]
    fn only_a_body_until_close_ends_by_closing() {
        let mut out = Vec::new();
        let mut body = Body::response(Framing::UntilClose, true);
        body.pass(b"hi", &Limits::default(), &mut out).unwrap();
        assert!(body.close(&mut out));
        assert_eq!(out, b"2\r\nhi\r\n0\r\n\r\n");
        assert!(!Body::response(Framing::Length(1), false).close(&mut out));
        assert!(!Body::response(Framing::Chunked, true).close(&mut out));
    }
}
