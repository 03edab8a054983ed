//! Output of a process that nobody has taken yet, in order. What was told and not taken is told
//! again to the next who asks; what is too much is dropped from its beginning, and counted.

use std::collections::VecDeque;

use hyperfleet_wire::guest::MAX_CHUNK;

use crate::output::Kind;

/// Most bytes held of one process while nobody is there, the cost of its pieces with them.
pub const LIMIT: usize = 1024 * 1024;
/// What a piece costs besides its bytes: a process that writes to both streams in turn makes one of
/// each byte.
const PIECE_COST: usize = size_of::<Piece>();

/// So many bytes of one stream in a row.
#[derive(Debug, Clone, Copy)]
struct Piece {
    kind: Kind,
    size: u32,
}

/// How far the telling is.
#[derive(Default)]
struct Reached {
    piece: usize,
    bytes: u32,
}

/// What is held.
#[derive(Default)]
pub struct Backlog {
    bytes: VecDeque<u8>,
    pieces: VecDeque<Piece>,
    /// Bytes at the beginning that were told; the last of them are so many of that piece.
    told: usize,
    reached: Reached,
    /// Bytes that came before those that are held.
    offset: u64,
    /// How many of these, right before those that are held, were taken by nobody.
    dropped: u64,
}

impl Backlog {
    /// Adds `data`, which came last.
    pub fn add(&mut self, kind: Kind, data: &[u8]) {
        self.bytes.extend(data);
        match self.pieces.back_mut() {
            Some(last) if last.kind == kind => last.size += data.len() as u32,
            _ => self.pieces.push_back(Piece {
                kind,
                size: data.len() as u32,
            }),
        }
    }

    /// Drops from the beginning until [`LIMIT`] is kept. To be called while nobody is told.
    pub fn trim(&mut self) {
        while self.size() > LIMIT {
            let excess = self.size() - LIMIT;
            let first = self.pieces.front().map_or(0, |piece| piece.size as usize);
            let dropped = excess.min(first);
            self.remove(dropped);
            self.dropped += dropped as u64;
        }
    }

    /// The next bytes to tell, while at most `window` are told and not taken.
    pub fn next(&mut self, window: usize) -> Option<(Kind, Vec<u8>)> {
        let most = window.saturating_sub(self.told).min(MAX_CHUNK);
        let mut piece = *self.pieces.get(self.reached.piece)?;
        if self.reached.bytes == piece.size {
            piece = *self.pieces.get(self.reached.piece + 1)?;
            self.reached.piece += 1;
            self.reached.bytes = 0;
        }
        let count = most.min((piece.size - self.reached.bytes) as usize);
        let end = self.told + count;
        let data: Vec<u8> = self.bytes.range(self.told..end).copied().collect();
        self.told = end;
        self.reached.bytes += count as u32;
        (count > 0).then_some((piece.kind, data))
    }

    /// So many of the bytes that were told first were taken; more than were told count as those.
    pub fn taken(&mut self, bytes: usize) {
        let taken = bytes.min(self.told);
        self.remove(taken);
        self.told -= taken;
        if taken > 0 {
            self.dropped = 0;
        }
        if self.bytes.is_empty() {
            // Nobody may say a word for a long time.
            self.bytes = VecDeque::new();
            self.pieces = VecDeque::new();
            self.reached = Reached::default();
        }
    }

    /// Whoever was told has gone: all is to be told again.
    pub fn untell(&mut self) {
        self.told = 0;
        self.reached = Reached::default();
    }

    /// Whether there is nothing that was not told.
    pub fn is_told(&self) -> bool {
        self.told == self.bytes.len()
    }

    /// Bytes held.
    pub fn held(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What it costs.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.pieces.len() * PIECE_COST
    }

    /// How much came before the first byte held.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How much of that, right before it, was lost.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn remove(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.offset += count as u64;
        let mut left = count;
        while let Some(first) = self.pieces.front_mut() {
            let size = first.size as usize;
            let is_reached = self.reached.piece == 0;
            if size > left {
                first.size -= left as u32;
                if is_reached {
                    self.reached.bytes = self.reached.bytes.saturating_sub(left as u32);
                }
                return;
            }
            left -= size;
            self.pieces.pop_front();
            if is_reached {
                self.reached.bytes = 0;
            } else {
                self.reached.piece -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(backlog: &mut Backlog, window: usize) -> Vec<(Kind, Vec<u8>)> {
        std::iter::from_fn(|| backlog.next(window)).collect()
    }

    fn bytes(said: &[(Kind, Vec<u8>)]) -> Vec<u8> {
        said.iter().flat_map(|(_, data)| data).copied().collect()
    }

    #[test]
    fn what_came_is_told_in_order_each_stream_by_itself() {
        let mut backlog = Backlog::default();
        backlog.add(Kind::Stdout, b"one ");
        backlog.add(Kind::Stdout, b"two");
        backlog.add(Kind::Stderr, b"three");
        backlog.add(Kind::Stdout, b"four");
        assert_eq!(
            all(&mut backlog, 1000),
            [
                (Kind::Stdout, b"one two".to_vec()),
                (Kind::Stderr, b"three".to_vec()),
                (Kind::Stdout, b"four".to_vec()),
            ]
        );
        assert!(backlog.is_told());
        backlog.add(Kind::Stdout, b"five");
        assert_eq!(all(&mut backlog, 1000), [(Kind::Stdout, b"five".to_vec())]);
    }

    #[test]
    fn no_more_is_told_than_may_be_under_way_and_what_is_taken_makes_room() {
        let mut backlog = Backlog::default();
        backlog.add(Kind::Stdout, b"abcdefgh");
        assert_eq!(bytes(&all(&mut backlog, 3)), b"abc");
        assert_eq!(backlog.next(3), None);
        backlog.taken(2);
        assert_eq!(bytes(&all(&mut backlog, 3)), b"de");
        backlog.taken(1000);
        assert_eq!((backlog.held(), backlog.offset()), (3, 5));
        assert_eq!(bytes(&all(&mut backlog, 3)), b"fgh");
    }

    #[test]
    fn what_was_told_and_not_taken_is_told_again() {
        let mut backlog = Backlog::default();
        backlog.add(Kind::Stdout, b"abc");
        backlog.add(Kind::Stderr, b"def");
        all(&mut backlog, 1000);
        backlog.taken(2);
        backlog.untell();
        backlog.add(Kind::Stderr, b"g");
        assert_eq!(backlog.offset(), 2);
        assert_eq!(
            all(&mut backlog, 1000),
            [
                (Kind::Stdout, b"c".to_vec()),
                (Kind::Stderr, b"defg".to_vec())
            ]
        );
    }

    #[test]
    fn what_is_too_much_is_lost_from_its_beginning_and_counted_until_more_is_taken() {
        let mut backlog = Backlog::default();
        let mut came = Vec::new();
        for number in 0..40u8 {
            let data = vec![number; MAX_CHUNK];
            backlog.add(Kind::Stdout, &data);
            backlog.trim();
            came.extend(data);
            assert!(backlog.size() <= LIMIT);
        }
        let dropped = backlog.dropped() as usize;
        assert_eq!(backlog.offset(), dropped as u64);
        assert_eq!(dropped as u64 + backlog.held(), came.len() as u64);
        assert!(LIMIT - backlog.held() as usize <= PIECE_COST);
        assert_eq!(bytes(&all(&mut backlog, usize::MAX)), came[dropped..]);
        backlog.untell();
        assert_eq!(backlog.dropped() as usize, dropped);
        backlog.next(usize::MAX);
        backlog.taken(1);
        assert_eq!(
            (backlog.dropped(), backlog.offset()),
            (0, dropped as u64 + 1)
        );
    }

    /// Whatever is added, told, taken and told again, in whatever pieces: as a list of bytes has it.
    #[test]
    fn it_is_a_list_of_bytes_however_it_is_cut() {
        for seed in 1..200u64 {
            let mut state = seed;
            let mut random = move |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let (mut backlog, mut all, mut taken, mut told) = (Backlog::default(), vec![], 0, 0);
            for _ in 0..300 {
                match random(5) {
                    0 | 1 => {
                        let kind = [Kind::Stdout, Kind::Stderr][random(2) as usize];
                        let data: Vec<u8> = (0..=random(9)).map(|_| random(256) as u8).collect();
                        backlog.add(kind, &data);
                        all.extend(data.into_iter().map(|byte| (kind, byte)));
                    }
                    2 => {
                        let next = backlog.next(random(30) as usize);
                        let next = next.into_iter().flat_map(|(kind, data)| {
                            data.into_iter()
                                .map(move |byte| (kind, byte))
                                .collect::<Vec<_>>()
                        });
                        for byte in next {
                            assert_eq!(byte, all[told], "{seed}");
                            told += 1;
                        }
                    }
                    3 => {
                        let count = random(20) as usize;
                        backlog.taken(count);
                        taken = told.min(taken + count);
                    }
                    _ if random(4) == 0 => {
                        backlog.untell();
                        told = taken;
                    }
                    _ => {}
                }
                assert_eq!(backlog.offset() as usize, taken, "{seed}");
                assert_eq!(backlog.held() as usize, all.len() - taken, "{seed}");
                assert_eq!(backlog.is_told(), told == all.len(), "{seed}");
            }
        }
    }

    #[test]
    fn a_process_that_says_a_byte_here_and_a_byte_there_is_bounded_too() {
        let mut backlog = Backlog::default();
        for _ in 0..LIMIT {
            backlog.add(Kind::Stdout, b"o");
            backlog.add(Kind::Stderr, b"e");
            backlog.trim();
        }
        assert!(backlog.size() <= LIMIT);
        assert!(backlog.held() as usize >= LIMIT / (PIECE_COST + 1) - 1);
        assert_eq!(backlog.next(2), Some((Kind::Stdout, b"o".to_vec())));
        assert_eq!(backlog.next(2), Some((Kind::Stderr, b"e".to_vec())));
    }
}
