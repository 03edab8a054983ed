//! The new process' side.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use hyperfleet_wire::control::{Machine, ToProxy};
use hyperfleet_wire::{decode, encode, length};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::give::{frame, snapshot};
use super::{door, sockets, Hello, APPLIED, READY, VERSION};
use crate::routes::{Applied, Drain};

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
pub struct Predecessor(mpsc::UnboundedSender<(Vec<u8>, Option<Applied>)>);

impl Predecessor {
    /// Tells the old process that this one serves, and follows it from here on. An old process
    /// that is dead has nothing to be told.
    ///
    /// # Errors
    /// When the stream can't be used.
    pub fn relieve(mut stream: UnixStream) -> io::Result<Predecessor> {
        let told = stream.write_all(&[READY]);
        stream.set_nonblocking(true)?;
        let mut stream = tokio::net::UnixStream::from_std(stream)?;
        let (sender, mut receiver) = mpsc::unbounded_channel::<(Vec<u8>, Option<Applied>)>();
        if told.is_ok() {
            tokio::spawn(async move {
                while let Some((frames, applied)) = receiver.recv().await {
                    let passed = async {
                        stream.write_all(&frames).await?;
                        if applied.is_some() && stream.read_u8().await? != APPLIED {
                            return Err(io::ErrorKind::InvalidData.into());
                        }
                        Ok::<_, io::Error>(())
                    };
                    let passed = tokio::time::timeout(FOLLOW_LIMIT, passed).await;
                    drop(applied);
                    // It is gone, or hangs: nothing waits for it any more.
                    if !matches!(passed, Ok(Ok(()))) {
                        return;
                    }
                }
            });
        }
        Ok(Predecessor(sender))
    }

    /// Passes a whole table on; `applied` is dropped when the old process has it.
    pub fn replace(&self, machines: &[Machine], applied: &Applied) {
        if !self.0.is_closed() {
            let _ = self.0.send((snapshot(machines), Some(applied.clone())));
        }
    }

    /// Passes a change on, likewise.
    pub fn change(&self, upsert: &[Machine], remove: &[String], applied: &Applied) {
        if !self.0.is_closed() {
            let message = ToProxy::Change {
                number: 0,
                upsert: upsert.to_vec(),
                remove: remove.to_vec(),
            };
            let frames = frame(&encode(&message));
            let _ = self.0.send((frames, Some(applied.clone())));
        }
    }

    /// This process ends: the old one does so too.
    pub fn drain(&self, drain: Drain) {
        let timeout_ms = drain.limit.as_millis().try_into().unwrap_or(u32::MAX);
        let frames = frame(&encode(&ToProxy::Drain { timeout_ms }));
        let _ = self.0.send((frames, None));
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
