//! Moves frames both ways, each behind its length in four bytes, big-endian: the stream that QEMU
//! (`-netdev stream`) and passt speak.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{read, write, Errno};

use crate::frame::{is_arp_answer, Rules, Verdict, LONGEST};
use crate::own::Own;
use crate::refusal;

const PREFIX: usize = 4;
/// A few of the longest frames.
const ROOM: usize = 4 * (PREFIX + LONGEST);

/// Sends `request`, waits until passt has said where `wanted` is, and drops what else it says.
///
/// # Errors
/// It ended, or did not answer in `patience`.
pub fn greet(
    passt: BorrowedFd<'_>,
    request: &[u8],
    wanted: Ipv4Addr,
    patience: Duration,
) -> io::Result<()> {
    let limit = Instant::now() + patience;
    let mut out = Bytes::default();
    out.frame(request);
    let mut input = Bytes::default();
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut polled = [PollFd::new(&passt, wish(input.has_room(), &out))];
        poll(&mut polled, Some(&timespec(left))).or_else(interrupted)?;
        if input.fill(passt)? == Moved::End {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.drain(passt)?;
        while let Some(frame) = input.take()? {
            if is_arp_answer(frame, wanted) {
                return Ok(());
            }
        }
    }
}

/// Until either side ends.
///
/// # Errors
/// A side's socket fails otherwise, or the guest's side says what is no frame.
pub fn run(qemu: BorrowedFd<'_>, passt: BorrowedFd<'_>, rules: &Rules) -> io::Result<()> {
    let mut own = Own::default();
    let (mut from_guest, mut to_passt) = (Bytes::default(), Bytes::default());
    let (mut from_passt, mut to_guest) = (Bytes::default(), Bytes::default());
    loop {
        // Nothing is read that the other side would not take: QEMU and passt wait in turn.
        let reads_guest = from_guest.has_room() && to_passt.is_empty();
        let reads_passt = from_passt.has_room() && to_guest.is_empty();
        let mut polled = [
            PollFd::new(&qemu, wish(reads_guest, &to_guest)),
            PollFd::new(&passt, wish(reads_passt, &to_passt)),
        ];
        // What came with others, and found no room until now, is not announced again.
        let waiting = from_guest.has_frame() && to_passt.has_room()
            || from_passt.has_frame() && to_guest.has_room();
        let limit = waiting.then(|| timespec(Duration::ZERO));
        poll(&mut polled, limit.as_ref()).or_else(interrupted)?;
        let gone = PollFlags::ERR | PollFlags::HUP;
        if polled.iter().any(|side| side.revents().intersects(gone)) {
            return Ok(());
        }
        if reads_guest && from_guest.fill(qemu)? == Moved::End {
            return Ok(());
        }
        if reads_passt && from_passt.fill(passt)? == Moved::End {
            return Ok(());
        }
        while to_guest.has_room() {
            let Some(frame) = from_passt.take()? else {
                break;
            };
            refusal::mend(frame);
            to_guest.frame(frame);
        }
        while to_passt.has_room() {
            let Some(frame) = from_guest.take()? else {
                break;
            };
            let passes = match rules.verdict(frame) {
                Verdict::Pass => true,
                Verdict::Drop => false,
                Verdict::Abroad(address) => !own.has(address),
            };
            if passes {
                to_passt.frame(frame);
            } else if to_guest.has_room() {
                // One that finds no room is as good as lost on its way.
                if let Some(refusal) = refusal::of(frame) {
                    to_guest.frame(&refusal);
                }
            }
        }
        to_passt.drain(passt)?;
        to_guest.drain(qemu)?;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Moved {
    Some,
    None,
    End,
}

/// Bytes on their way.
struct Bytes {
    held: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Bytes {
    fn default() -> Bytes {
        Bytes {
            held: vec![0; ROOM].into(),
            start: 0,
            end: 0,
        }
    }
}

impl Bytes {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn room(&self) -> usize {
        self.held.len() - (self.end - self.start)
    }

    /// A whole frame fits, whatever of it is here.
    fn has_room(&self) -> bool {
        self.room() >= PREFIX + LONGEST
    }

    /// A frame is here, or the beginning of what is none.
    fn has_frame(&self) -> bool {
        let held = &self.held[self.start..self.end];
        held.first_chunk::<PREFIX>().is_some_and(|prefix| {
            let length = u32::from_be_bytes(*prefix) as usize;
            length > LONGEST || held.len() >= PREFIX + length
        })
    }

    /// What is held moves to the front.
    fn compact(&mut self) {
        self.held.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    /// Reads once, as much as there is room for.
    fn fill(&mut self, from: impl AsFd) -> io::Result<Moved> {
        if self.held.len() - self.end < PREFIX + LONGEST {
            self.compact();
        }
        match read(from, &mut self.held[self.end..]) {
            Ok(0) => Ok(Moved::End),
            Ok(count) => {
                self.end += count;
                Ok(Moved::Some)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Moved::None),
            Err(Errno::CONNRESET) => Ok(Moved::End),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what the other side takes.
    fn drain(&mut self, to: impl AsFd) -> io::Result<()> {
        while !self.is_empty() {
            match write(to.as_fd(), &self.held[self.start..self.end]) {
                Ok(count) => self.start += count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        (self.start, self.end) = (0, 0);
        Ok(())
    }

    /// The next whole frame, without its prefix.
    fn take(&mut self) -> io::Result<Option<&mut [u8]>> {
        let held = &self.held[self.start..self.end];
        let Some(prefix) = held.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > LONGEST {
            let what = format!("a frame of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if held.len() < PREFIX + length {
            return Ok(None);
        }
        let at = self.start + PREFIX;
        self.start = at + length;
        Ok(Some(&mut self.held[at..at + length]))
    }

    /// Adds a frame, for which there must be room.
    fn frame(&mut self, frame: &[u8]) {
        if self.held.len() - self.end < PREFIX + frame.len() {
            self.compact();
        }
        let at = self.end + PREFIX;
        self.held[self.end..at].copy_from_slice(&(frame.len() as u32).to_be_bytes());
        self.end = at + frame.len();
        self.held[at..self.end].copy_from_slice(frame);
    }
}

fn wish(reads: bool, out: &Bytes) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, reads);
    flags.set(PollFlags::OUT, !out.is_empty());
    flags
}

fn interrupted(error: Errno) -> Result<usize, Errno> {
    if error == Errno::INTR {
        Ok(0)
    } else {
        Err(error)
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::frame::arp_request;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 2);

    fn sides() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        (ours, theirs)
    }

    fn framed(frame: &[u8]) -> Vec<u8> {
        [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
    }

    fn rules() -> Rules {
        Rules {
            gateway: GATEWAY,
            dns: GATEWAY,
            host_ports: Vec::new(),
        }
    }

    #[test]
    fn frames_pass_in_any_pieces_and_others_do_not() {
        let (qemu, mut guest) = sides();
        let (passt, mut net) = sides();
        let pumped = std::thread::spawn(move || run(qemu.as_fd(), passt.as_fd(), &rules()));
        let good = arp_request([2; 6], GATEWAY, GATEWAY);
        let bad = vec![0x77; 5000];
        let stream = [framed(&good), framed(&bad), framed(&[]), framed(&good)].concat();
        for byte in stream {
            guest.write_all(&[byte]).unwrap();
        }
        let mut got = vec![0; 2 * framed(&good).len()];
        net.read_exact(&mut got).unwrap();
        assert_eq!(got, [framed(&good), framed(&good)].concat());
        // The other way everything passes.
        let answer: Vec<u8> = (0..5)
            .flat_map(|byte| framed(&vec![byte; 60_000]))
            .collect();
        let sent = answer.clone();
        let mut writer = net.try_clone().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut got = vec![0; answer.len()];
        guest.read_exact(&mut got).unwrap();
        assert!(got == answer);
        writing.join().unwrap();
        drop(guest);
        pumped.join().unwrap().unwrap();
        assert_eq!(net.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn what_comes_at_once_goes_on_without_more_to_come() {
        let (qemu, guest) = sides();
        let (passt, mut net) = sides();
        let pumped = std::thread::spawn(move || run(qemu.as_fd(), passt.as_fd(), &rules()));
        // Many small ones: more than the other side's room takes at once, and then silence.
        let frame = framed(&[&arp_request([2; 6], GATEWAY, GATEWAY)[..], &[0; 1000]].concat());
        let all = frame.repeat(2000);
        let sent = all.clone();
        let mut writer = guest.try_clone().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut got = vec![0; all.len()];
        net.read_exact(&mut got).unwrap();
        assert!(got == all);
        writing.join().unwrap();
        drop(guest);
        pumped.join().unwrap().unwrap();
    }

    #[test]
    fn a_frame_that_is_too_long_ends_it() {
        let (qemu, mut guest) = sides();
        let (passt, _net) = sides();
        guest
            .write_all(&(LONGEST as u32 + 1).to_be_bytes())
            .unwrap();
        let error = run(qemu.as_fd(), passt.as_fd(), &rules()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_side_that_does_not_read_holds_the_other_back() {
        let (qemu, guest) = sides();
        let (passt, net) = sides();
        let pumped = std::thread::spawn(move || run(qemu.as_fd(), passt.as_fd(), &rules()));
        guest
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let frame = framed(&[&arp_request([2; 6], GATEWAY, GATEWAY)[..], &[0; 60_000]].concat());
        let mut taken = 0;
        while (&guest).write_all(&frame).is_ok() {
            taken += 1;
            assert!(taken < 10_000, "nothing holds it back");
        }
        drop(net);
        pumped.join().unwrap().unwrap();
    }

    #[test]
    fn it_is_told_when_passt_answers_or_ends() {
        let request = arp_request([2; 6], GATEWAY, GATEWAY);
        let patience = Duration::from_secs(10);
        let (passt, mut net) = sides();
        let answering = std::thread::spawn(move || {
            let mut asked = vec![0; 4 + 42];
            net.read_exact(&mut asked).unwrap();
            let mut answer = asked[4..].to_vec();
            answer[21] = 2;
            answer[28..32].copy_from_slice(&GATEWAY.octets());
            net.write_all(&framed(&[1; 60])).unwrap();
            net.write_all(&framed(&answer)).unwrap();
            net
        });
        greet(passt.as_fd(), &request, GATEWAY, patience).unwrap();
        drop(answering.join().unwrap());
        let error = greet(passt.as_fd(), &request, GATEWAY, patience).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
            ),
            "{error}"
        );
    }
}
