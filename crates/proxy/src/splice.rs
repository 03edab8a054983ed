//! Large bodies from one socket to another without a copy: splice(2) through a pipe. What is in a
//! pipe has left one socket and not reached the other, as what is in an [`crate::io::Outbox`].

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{ready, Context, Poll};

use rustix::pipe::{fcntl_setpipe_size, pipe_with, PipeFlags, SpliceFlags};

use crate::runtime::{Interest, Stream};

/// Least rest of a body that goes this way: below it, one copy costs less than two system calls
/// and a pipe.
pub const LEAST: u64 = 64 * 1024;
/// Bytes that a pipe holds: also the most that a slow peer makes one hold.
const CAPACITY: usize = 256 * 1024;
/// Pipes of one worker, each of two descriptors. With more slow peers than these the next ones'
/// bodies are copied.
const MOST: usize = 64;
/// Of these, kept when nobody uses them.
const SPARES: usize = 4;

/// A worker's pipes.
#[derive(Default)]
pub struct Pipes {
    spare: RefCell<Vec<Pipe>>,
    /// All of them, in use and spare.
    count: Rc<Cell<usize>>,
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    count: Rc<Cell<usize>>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.count.set(self.count.get() - 1);
    }
}

impl Pipes {
    fn lend(&self) -> Option<Pipe> {
        if let Some(pipe) = self.spare.borrow_mut().pop() {
            return Some(pipe);
        }
        if self.count.get() >= MOST {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A user may have only so much in pipes (pipe(7)); a smaller one moves less at a time.
        let _ = fcntl_setpipe_size(&write, CAPACITY);
        self.count.set(self.count.get() + 1);
        let count = self.count.clone();
        Some(Pipe { read, write, count })
    }

    /// Takes an empty pipe back.
    fn give_back(&self, pipe: Pipe) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARES {
            spare.push(pipe);
        }
    }
}

/// One direction of an exchange. It has a pipe only while there are bytes in it, and closes it if
/// it ends before they do: they are one client's and nobody else's.
#[derive(Default)]
pub struct Splice {
    pipe: Option<Pipe>,
    held: usize,
}

impl Splice {
    /// Nothing waits for the socket that it goes to.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes at most `most` bytes that `from` has, and says how many: 0 at its end. `None`: there
    /// is no pipe for it, they have to be copied. Only when [`Splice::is_empty`].
    pub fn poll_fill(
        &mut self,
        from: &Stream,
        cx: &mut Context<'_>,
        most: u64,
        pipes: &Pipes,
    ) -> Poll<Option<io::Result<usize>>> {
        let Some(pipe) = pipes.lend() else {
            return Poll::Ready(None);
        };
        let most = CAPACITY.min(usize::try_from(most).unwrap_or(CAPACITY));
        let filled = loop {
            match from.poll_read_ready(cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            match from.try_io(Interest::READABLE, || splice(from, &pipe.write, most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break Poll::Ready(result),
            }
        };
        self.held = match &filled {
            Poll::Ready(Ok(count)) => *count,
            _ => 0,
        };
        if self.held > 0 {
            self.pipe = Some(pipe);
        } else {
            pipes.give_back(pipe);
        }
        filled.map(Some)
    }

    /// Sends what is held, and counts it in `moved`; ready when nothing is any more.
    ///
    /// # Errors
    /// The connection's; it is of no more use for sending.
    pub fn poll_drain(
        &mut self,
        to: &Stream,
        cx: &mut Context<'_>,
        moved: &mut usize,
        pipes: &Pipes,
    ) -> Poll<io::Result<()>> {
        let Some(pipe) = &self.pipe else {
            return Poll::Ready(Ok(()));
        };
        while self.held > 0 {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || splice(&pipe.read, to, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A pipe that holds bytes has no end; were it so, this must not turn for ever.
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                result => {
                    let count = result?;
                    self.held -= count;
                    *moved += count;
                }
            }
        }
        if let Some(pipe) = self.pipe.take() {
            pipes.give_back(pipe);
        }
        Poll::Ready(Ok(()))
    }
}

fn splice(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(rustix::pipe::splice(from, None, to, None, most, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_with_bytes_in_it_is_never_lent_again_and_there_are_only_so_many() {
        let pipes = Pipes::default();
        let mut lent: Vec<Pipe> = std::iter::from_fn(|| pipes.lend()).collect();
        assert_eq!(lent.len(), MOST);
        drop(Splice {
            pipe: lent.pop(),
            held: 1,
        });
        assert_eq!(pipes.count.get(), MOST - 1);
        assert!(pipes.spare.borrow().is_empty());
        lent.into_iter().for_each(|pipe| pipes.give_back(pipe));
        assert_eq!(pipes.count.get(), SPARES);
        assert!(pipes.lend().is_some());
    }

    #[test]
    fn bytes_wait_in_the_pipe_for_a_slow_peer_and_all_arrive() {
        use std::io::{Read, Write};
        let moved = crate::runtime::block_on(|| (), async {
            let (from, mut sender) = pair().await;
            let (to, mut receiver) = pair().await;
            let body: Vec<u8> = (0..16 << 20).map(|at: u32| (at >> 8) as u8).collect();
            let sent = body.clone();
            let pipes = Pipes::default();
            let mut splice = Splice::default();
            let mut left = body.len() as u64;
            let writing = std::thread::spawn(move || {
                sender.write_all(&sent).unwrap();
                sender
            });
            let length = body.len();
            let reading = std::thread::spawn(move || {
                let mut got = vec![0; length];
                receiver.read_exact(&mut got).unwrap();
                got
            });
            std::future::poll_fn(|cx| loop {
                let mut moved = 0;
                ready!(splice.poll_drain(&to, cx, &mut moved, &pipes)).unwrap();
                if left == 0 {
                    return Poll::Ready(());
                }
                let filled = ready!(splice.poll_fill(&from, cx, left, &pipes));
                let count = filled.unwrap().unwrap();
                assert!(count > 0 && count <= CAPACITY);
                left -= count as u64;
            })
            .await;
            drop(writing.join().unwrap());
            assert!(reading.join().unwrap() == body);
            assert_eq!(pipes.spare.borrow().len(), 1);
        });
        moved.unwrap();
    }

    /// A connection's two ends; the second blocks.
    async fn pair() -> (Stream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = Stream::connect(listener.local_addr().unwrap());
        (near.await.unwrap(), listener.accept().unwrap().0)
    }
}
