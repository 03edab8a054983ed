//! What is on its way in and out of a channel: frames read and not taken yet, bytes not written yet.

use std::collections::VecDeque;
use std::io;

use hyperfleet_wire::guest::FromGuest;
use hyperfleet_wire::{slip, WireError};

use crate::failure::say;
use crate::transport::{Channel, Read};

/// Bytes read from the channel at once.
const PIECE: usize = 64 * 1024;
/// While more than this waits to be written, no message of the host is taken: one that does not
/// read its answers gets no more of them. One answer more may come on top.
const MAX_UNWRITTEN: usize = 128 * 1024;
/// What of one channel is on its way in or out.
pub struct Flow {
    reader: slip::Reader,
    landing: Box<[u8]>,
    inbox: VecDeque<Result<Vec<u8>, WireError>>,
    /// The last message encoded; kept for its memory.
    payload: Vec<u8>,
    unwritten: Vec<u8>,
    written: usize,
    readable: bool,
    writable: bool,
    /// No host is there.
    deserted: bool,
}

impl Flow {
    pub fn new() -> Self {
        Self {
            reader: slip::Reader::new(),
            landing: vec![0; PIECE].into(),
            inbox: VecDeque::new(),
            payload: Vec::new(),
            unwritten: Vec::new(),
            written: 0,
            readable: true,
            writable: true,
            deserted: false,
        }
    }

    /// For the next host: nothing of the last one's, and nothing to read until the channel says so.
    pub fn after_host() -> Self {
        Self {
            readable: false,
            ..Self::new()
        }
    }

    /// The channel may be ready again; `deserted`: without a host.
    pub fn edge(&mut self, deserted: bool) {
        self.deserted = deserted;
        self.readable = true;
        self.writable = true;
    }

    /// Whether it waits for a host to take what is written, and there is none: its end would not be
    /// read, since nothing is.
    pub fn is_stuck(&self) -> bool {
        self.deserted && !self.has_room()
    }

    pub fn has_room(&self) -> bool {
        self.unwritten.len() - self.written < MAX_UNWRITTEN
    }

    pub fn wants_to_read(&self) -> bool {
        self.readable && self.inbox.is_empty() && self.has_room()
    }

    pub fn next_frame(&mut self) -> Option<Result<Vec<u8>, WireError>> {
        if self.has_room() {
            self.inbox.pop_front()
        } else {
            None
        }
    }

    pub fn push(&mut self, message: &FromGuest) {
        hyperfleet_wire::encode_into(message, &mut self.payload);
        if let Err(why) = slip::write(&self.payload, &mut self.unwritten) {
            // Every message is bounded well below the frame's bound.
            say(format_args!("dropped an answer: {why}"));
        }
    }

    pub fn drop_unwritten(&mut self) {
        self.unwritten.clear();
        self.written = 0;
    }

    /// Writes until nothing is left or nothing fits; true when something is left.
    pub fn write(&mut self, channel: &Channel) -> io::Result<bool> {
        while self.writable && self.written < self.unwritten.len() {
            match channel.write(&self.unwritten[self.written..])? {
                Some(count) => self.written += count,
                None => self.writable = false,
            }
        }
        if self.written == self.unwritten.len() {
            self.drop_unwritten();
            self.unwritten.shrink_to(MAX_UNWRITTEN);
        }
        Ok(!self.unwritten.is_empty())
    }

    pub fn read(&mut self, channel: &Channel) -> io::Result<Read> {
        let read = channel.read(&mut self.landing)?;
        match read {
            Read::Bytes(count) => {
                let inbox = &mut self.inbox;
                self.reader.feed(&self.landing[..count], |frame| {
                    inbox.push_back(frame.map(<[u8]>::to_vec))
                });
            }
            Read::Nothing | Read::HostGone => self.readable = false,
        }
        Ok(read)
    }
}
