//! A worker's own buffers. None is borrowed across an await: a connection that waits holds only
//! the bytes that it could not pass on.

use std::cell::RefCell;

use crate::http::request::RequestHead;
use crate::http::response::ResponseHead;

/// Bytes of one read. Large, so that large bodies need few system calls.
const READ: usize = 256 * 1024;
/// A buffer that has grown beyond this is not kept for the next request.
const SPARE_CAPACITY: usize = 64 * 1024;
/// Buffers kept for the next requests.
const SPARES: usize = 64;

/// What all connections of a worker use in turn.
pub struct Buffers {
    /// What a socket gave.
    pub read: RefCell<Box<[u8]>>,
    /// What a socket is to be given; empty between uses.
    pub out: RefCell<Vec<u8>>,
    pub request: RefCell<RequestHead>,
    pub response: RefCell<ResponseHead>,
    spare: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    pub fn new() -> Buffers {
        Buffers {
            read: RefCell::new(vec![0; READ].into()),
            out: RefCell::default(),
            request: RefCell::default(),
            response: RefCell::default(),
            spare: RefCell::default(),
        }
    }

    /// An empty buffer to be held for a while.
    pub fn lend(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back what was lent, or any other buffer.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARES && (1..=SPARE_CAPACITY).contains(&buffer.capacity()) {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers::new()
    }
}
