//! A worker's own buffers. None is borrowed across an await: a connection that waits holds only
//! the bytes that it could not pass on.

use std::cell::{RefCell, RefMut};

use crate::http::request::RequestHead;
use crate::http::response::ResponseHead;
use crate::splice::Pipes;

/// Bytes of one read. Large, so that large bodies need few system calls.
const READ: usize = 256 * 1024;
/// Bytes of a read that a request's head is expected in. What of the body comes with it is copied once
/// more, to be sent with the head: a small body whole, of a large one no more than this, since the
/// rest can pass without a copy. What a client sends ahead is held until its turn: no more either.
pub const FIRST: usize = 68 * 1024;
/// A request's buffer that has grown beyond this is not kept for the next one, which may wait long.
const SMALL: usize = 8 * 1024;
/// Buffers kept, of requests and of what slow peers left.
const SPARES: usize = 64;
const LARGE_SPARES: usize = 4;

/// What all connections of a worker use in turn.
pub struct Buffers {
    /// What a socket gave.
    pub read: RefCell<Box<[u8]>>,
    pub request: RefCell<RequestHead>,
    pub response: RefCell<ResponseHead>,
    pub pipes: Pipes,
    out: RefCell<Vec<u8>>,
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    pub fn new() -> Buffers {
        Buffers {
            read: RefCell::new(vec![0; READ].into()),
            pipes: Pipes::default(),
            out: RefCell::default(),
            request: RefCell::default(),
            response: RefCell::default(),
            small: RefCell::default(),
            large: RefCell::default(),
        }
    }

    /// An empty buffer for what a socket is to be given now. Emptied when it is taken, whatever
    /// its last user left in it: one client's bytes must never reach another.
    pub fn out(&self) -> RefMut<'_, Vec<u8>> {
        let mut out = self.out.borrow_mut();
        out.clear();
        out
    }

    /// An empty buffer for a request's head.
    pub fn lend(&self) -> Vec<u8> {
        self.small.borrow_mut().pop().unwrap_or_default()
    }

    /// An empty buffer for what a peer does not take at once.
    pub fn lend_large(&self) -> Vec<u8> {
        self.large.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back what was lent. Reused rather than freed: an allocator gives such blocks back to
    /// the system late, and a long transfer would make it hold many.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        let (spare, most) = if buffer.capacity() <= SMALL {
            (&self.small, SPARES)
        } else {
            (&self.large, LARGE_SPARES)
        };
        let mut spare = spare.borrow_mut();
        if spare.len() < most && buffer.capacity() > 0 {
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
