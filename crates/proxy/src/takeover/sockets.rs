//! Descriptors over a Unix socket (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Most in one message; the kernel takes 253 (SCM_MAX_FD).
pub const AT_ONCE: usize = 128;
/// Each message carries this byte: descriptors do not travel alone.
const BYTE: u8 = b'D';

/// Sends at most [`AT_ONCE`] descriptors.
///
/// # Errors
/// The socket's, [`io::ErrorKind::WouldBlock`] among them.
pub fn send(to: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        to,
        &[IoSlice::new(&[BYTE])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The descriptors of one message, closed in programs that this process should execute.
///
/// # Errors
/// The socket's; [`io::ErrorKind::InvalidData`] when it is no such message.
pub fn receive(from: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let message = recvmsg(
        from,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if message.bytes != 1 || byte != [BYTE] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = part {
            descriptors.extend(some);
        }
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_in_order_and_bytes_around_them_are_not_touched() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let pipes: Vec<_> = (0..AT_ONCE)
            .map(|_| rustix::pipe::pipe().unwrap())
            .collect();
        here.write_all(b"before").unwrap();
        let ends: Vec<_> = pipes.iter().map(|(read, _)| read.as_fd()).collect();
        send(&here, &ends).unwrap();
        here.write_all(b"after").unwrap();
        let mut text = [0; 6];
        there.read_exact(&mut text).unwrap();
        let received = receive(&there).unwrap();
        assert_eq!(received.len(), AT_ONCE);
        for (number, ((_, write), read)) in pipes.iter().zip(&received).enumerate() {
            rustix::io::write(write, &[number as u8]).unwrap();
            let mut got = [0];
            rustix::io::read(read, &mut got).unwrap();
            assert_eq!(got, [number as u8]);
        }
        there.read_exact(&mut text[..5]).unwrap();
        assert_eq!(&text[..5], b"after");
        here.write_all(b"x").unwrap();
        assert!(receive(&there).is_err());
    }
}
