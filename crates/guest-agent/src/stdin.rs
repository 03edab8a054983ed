//! Standard input of one process: a bounded queue between the channel and its pipe, so that a
//! process that does not read holds up nobody but itself.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use hyperfleet_wire::guest::{KEPT_STDIN, MAX_CHUNK, STDIN_WINDOW};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use crate::answers::Refusal;
use crate::way::Way;

/// Taken bytes are told in portions of this size, or when all has been taken.
const PORTION: usize = STDIN_WINDOW / 4;

/// The queue. Its last owner's drop ends the input.
pub struct Stdin {
    /// What tells the process that it ended, where closing does not.
    end_of_file: Option<u8>,
    pipe: RefCell<Option<pipe::Sender>>,
    waiting: RefCell<VecDeque<Vec<u8>>>,
    /// Bytes waiting, plus bytes taken and not told yet: what the host counts as under way.
    under_way: Cell<usize>,
    ended: Cell<bool>,
    news: Notify,
}

impl Stdin {
    /// `end_of_file` is written after all else, for terminals.
    pub fn new(pipe: pipe::Sender, end_of_file: Option<u8>) -> Rc<Self> {
        Rc::new(Self {
            end_of_file,
            pipe: RefCell::new(Some(pipe)),
            waiting: RefCell::new(VecDeque::new()),
            under_way: Cell::new(0),
            ended: Cell::new(false),
            news: Notify::new(),
        })
    }

    /// Puts `data` in the queue; with `eof` it is the last. One that is kept has room for more.
    ///
    /// # Errors
    /// `invalid` when the host breaks a bound, or sends more after the end.
    pub fn push(&self, data: Vec<u8>, eof: bool, is_kept: bool) -> Result<(), Refusal> {
        let limit = if is_kept { KEPT_STDIN } else { STDIN_WINDOW };
        if self.ended.get() {
            return Err(Refusal::invalid("stdin after its end"));
        }
        if data.len() > MAX_CHUNK || self.under_way.get() + data.len() > limit {
            return Err(Refusal::invalid(format!(
                "stdin is over {MAX_CHUNK} bytes at once or {limit} not yet taken"
            )));
        }
        self.under_way.set(self.under_way.get() + data.len());
        if !data.is_empty() {
            self.waiting.borrow_mut().push_back(data);
        }
        self.ended.set(eof);
        self.news.notify_one();
        Ok(())
    }

    /// Ends the input after what waits.
    pub fn end(&self) {
        self.ended.set(true);
        self.news.notify_one();
    }

    /// Bytes that the host counts as under way.
    pub fn under_way(&self) -> usize {
        self.under_way.get()
    }

    /// Whether nothing may be pushed any more.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Writes what is pushed into the pipe and tells of it, until the end.
    pub async fn carry(&self, way: &Way) {
        let Some(pipe) = self.pipe.borrow_mut().take() else {
            return;
        };
        let mut pipe = Some(pipe);
        let mut taken = 0;
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(data) = next else {
                if self.ended.get() {
                    if let (Some(open), Some(byte)) = (&pipe, self.end_of_file) {
                        let _ = write_all(open, &[byte]).await;
                    }
                    return;
                }
                self.news.notified().await;
                continue;
            };
            if let Some(open) = &pipe {
                if write_all(open, &data).await.is_err() {
                    // The process closed its standard input: the rest is dropped as it comes.
                    pipe = None;
                }
            }
            taken += data.len();
            if taken >= PORTION || self.waiting.borrow().is_empty() {
                self.under_way.set(self.under_way.get() - taken);
                let bytes = std::mem::take(&mut taken) as u32;
                way.input_taken(bytes).await;
            }
        }
    }
}

async fn write_all(pipe: &pipe::Sender, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        pipe.writable().await?;
        match pipe.try_write(data) {
            Ok(count) => data = &data[count..],
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}
