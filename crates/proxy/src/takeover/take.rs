//! The new process' side.

use std::future::Future;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyperfleet_wire::control::{Machine, ToProxy};
use hyperfleet_wire::{decode, length};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::give::{frame, frames};
use super::{door, sockets, Hello, APPLIED, READY, VERSION};
use crate::log;
use crate::routes::{Change, Drain};

/// How long the old process may take for its next word.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the old one may take to apply a change: a stop waits for it.
const FOLLOW_LIMIT: Duration = Duration::from_secs(1);

/// What was handed over.
pub struct Inherited {
    pub control: UnixListener,
    pub door: UnixListener,
    pub listen: SocketAddr,
    pub listeners: Vec<TcpListener>,
    /// `None`: it had none yet.
    pub routes: Option<Vec<Machine>>,
    stream: UnixStream,
}

/// Takes over from the process behind `control`'s door. `None`: there is none, or it has died.
///
/// # Errors
/// There is one, and it does not hand over.
pub fn take(control: &Path) -> io::Result<Option<Inherited>> {
    match UnixStream::connect(door(control)).and_then(receive) {
        Ok(inherited) => Ok(Some(inherited)),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn receive(mut stream: UnixStream) -> io::Result<Inherited> {
    stream.set_read_timeout(Some(LIMIT))?;
    let hello: Hello = read(&mut stream)?;
    if hello.version != VERSION {
        return Err(invalid(format!(
            "it speaks version {} of the take-over, not {VERSION}",
            hello.version
        )));
    }
    let count = hello.listeners as usize + 2;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    while descriptors.len() < count {
        descriptors.extend(sockets::receive(&stream)?);
    }
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or(io::ErrorKind::InvalidData);
    let control = next()?.into();
    let door = next()?.into();
    let mut routes = None;
    if hello.known {
        let mut machines = Vec::new();
        loop {
            match read(&mut stream)? {
                ToProxy::SnapshotBegin { .. } => {}
                ToProxy::SnapshotPart { machines: part } => machines.extend(part),
                ToProxy::SnapshotEnd { .. } => break,
                _ => return Err(invalid("routes were expected".to_owned())),
            }
        }
        routes = Some(machines);
    }
    Ok(Inherited {
        control,
        door,
        listen: hello.listen,
        listeners: descriptors.map(TcpListener::from).collect(),
        routes,
        stream,
    })
}

impl Inherited {
    /// The sockets of control and door, and where the old process hears that this one serves.
    pub fn into_sockets(self) -> ((UnixListener, UnixListener), UnixStream) {
        ((self.control, self.door), self.stream)
    }
}

/// The process before this one, as long as it has connections.
pub struct Predecessor(mpsc::UnboundedSender<Passed>);

/// What is passed on.
enum Passed {
    /// Frames of a change. It counts as applied when nobody holds it any more.
    Change(
        Vec<Vec<u8>>,
        #[expect(dead_code, reason = "held")] Arc<Change>,
    ),
    Drain(Vec<u8>),
}

impl Predecessor {
    /// Tells the old process that this one serves; when this returns, it accepts no more. It is
    /// passed every change from here on. One that is dead, or hangs, has nothing to be told.
    ///
    /// # Errors
    /// When the stream can't be used.
    pub async fn relieve(stream: UnixStream) -> io::Result<Predecessor> {
        stream.set_nonblocking(true)?;
        let mut stream = tokio::net::UnixStream::from_std(stream)?;
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let told = async {
            stream.write_u8(READY).await?;
            stream.read_u8().await
        };
        let heard = tokio::time::timeout(LIMIT, told).await;
        if let Ok(Ok(APPLIED)) = heard {
            tokio::spawn(async move {
                loop {
                    let passed = tokio::select! {
                        passed = receiver.recv() => passed,
                        // It says nothing unasked: this is its end.
                        _ = stream.read_u8() => return,
                    };
                    let Some(passed) = passed else {
                        return;
                    };
                    let told = tokio::time::timeout(FOLLOW_LIMIT, pass_on(&mut stream, &passed));
                    match told.await {
                        Ok(Ok(())) => {}
                        // Its last connection has ended.
                        Ok(Err(_)) => return,
                        Err(_) => {
                            log::line("the process before this one hangs: it is told no more");
                            return;
                        }
                    }
                }
            });
        }
        Ok(Predecessor(sender))
    }

    /// Passes a change on.
    pub fn change(&self, change: &Arc<Change>) {
        if self.0.is_closed() {
            return;
        }
        let upsert: Vec<_> = change.upsert.iter().map(|it| it.to_machine()).collect();
        let remove: Vec<_> = change.remove.iter().map(|it| it.id.to_string()).collect();
        let message = |upsert, remove| ToProxy::Change {
            number: 0,
            upsert,
            remove,
        };
        let mut frames = frames(&upsert, &|upsert| message(upsert, Vec::new()));
        frames.push(frame(&message(Vec::new(), remove)));
        let _ = self.0.send(Passed::Change(frames, change.clone()));
    }

    /// Ends when the old process does, or hangs.
    pub fn gone(&self) -> impl Future<Output = ()> {
        let passed = self.0.clone();
        async move { passed.closed().await }
    }

    /// This process ends: the old one does so too.
    pub fn drain(&self, drain: Drain) {
        let timeout_ms = drain.limit.as_millis().try_into().unwrap_or(u32::MAX);
        let frame = frame(&ToProxy::Drain { timeout_ms });
        let _ = self.0.send(Passed::Drain(frame));
    }
}

/// Tells the old process, and waits until it has applied what it was told.
async fn pass_on(stream: &mut tokio::net::UnixStream, passed: &Passed) -> io::Result<()> {
    match passed {
        Passed::Drain(frame) => stream.write_all(frame).await,
        Passed::Change(frames, _) => {
            for frame in frames {
                stream.write_all(frame).await?;
                if stream.read_u8().await? != APPLIED {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            Ok(())
        }
    }
}

fn read<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = u32::from_be_bytes(size) as usize;
    if size > length::MAX_PAYLOAD {
        return Err(invalid("a message is too long".to_owned()));
    }
    let mut payload = vec![0; size];
    stream.read_exact(&mut payload)?;
    decode(&payload).map_err(|error| invalid(error.to_string()))
}

/// No socket, or a process that is dead, or died while it spoke.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof
    )
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
