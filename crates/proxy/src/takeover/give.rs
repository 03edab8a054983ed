//! The old process' side.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hyperfleet_wire::control::{Machine, ToProxy};
use hyperfleet_wire::{decode, encode, length};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::{sockets, Hello, APPLIED, READY, VERSION};
use crate::routes::{Drain, Routes};
use crate::socket::Socket;

/// How long a new process may take until it serves.
const LIMIT: Duration = Duration::from_secs(30);
/// Most machines in one part of the routes: far below a frame's bound.
const PART: usize = 256;

/// What a process hands over.
pub struct Door {
    pub socket: Socket,
    /// The port's listening sockets; the workers have the same ones.
    pub listeners: Vec<TcpListener>,
    pub listen: SocketAddr,
}

impl Door {
    /// The next that wants to take over. Safe to cancel.
    pub async fn knock(&self) -> UnixStream {
        loop {
            match self.socket.listener.accept().await {
                Ok((stream, _)) => return stream,
                // Out of descriptors: it waits in the kernel meanwhile.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Hands everything over to `to`; returns the stream when the new process serves, and `None`
    /// when it will not: then nothing has changed. `routes`: those in force, if there are any.
    pub async fn hand_over(
        &self,
        to: UnixStream,
        control: &Socket,
        routes: Option<Vec<Machine>>,
    ) -> Option<UnixStream> {
        let said = async {
            let mut to = to;
            self.say(&mut to, control, routes).await?;
            let ready = to.read_u8().await?;
            if ready != READY {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok::<_, io::Error>(to)
        };
        tokio::time::timeout(LIMIT, said).await.ok()?.ok()
    }

    async fn say(
        &self,
        to: &mut UnixStream,
        control: &Socket,
        routes: Option<Vec<Machine>>,
    ) -> io::Result<()> {
        let hello = Hello {
            version: VERSION,
            listen: self.listen,
            listeners: self.listeners.len() as u32,
            known: routes.is_some(),
        };
        to.write_all(&frame(&encode(&hello))).await?;
        let mut descriptors: Vec<BorrowedFd<'_>> =
            vec![control.listener.as_fd(), self.socket.listener.as_fd()];
        descriptors.extend(self.listeners.iter().map(AsFd::as_fd));
        for some in descriptors.chunks(sockets::AT_ONCE) {
            to.async_io(Interest::WRITABLE, || sockets::send(&*to, some))
                .await?;
        }
        if let Some(machines) = routes {
            to.write_all(&snapshot(&machines)).await?;
        }
        Ok(())
    }
}

/// Applies what the successor passes on, for as long as it does. A drain of the successor is a
/// drain of this process too.
///
/// # Errors
/// When the successor is gone, or says what is not understood.
pub async fn follow(successor: &mut UnixStream, routes: &mut Routes) -> io::Result<()> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut snapshot = Vec::new();
    loop {
        let size = successor.read_u32().await? as usize;
        if size > length::MAX_PAYLOAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; size];
        successor.read_exact(&mut payload).await?;
        let applied = match decode(&payload).map_err(|error| invalid(error.to_string()))? {
            ToProxy::SnapshotBegin { .. } => {
                snapshot.clear();
                continue;
            }
            ToProxy::SnapshotPart { machines } => {
                snapshot.extend(machines);
                continue;
            }
            ToProxy::SnapshotEnd { .. } => {
                let machines = std::mem::take(&mut snapshot);
                routes.replace(&machines).map_err(invalid)?
            }
            ToProxy::Change { upsert, remove, .. } => {
                routes.change(&upsert, remove).map_err(invalid)?
            }
            ToProxy::Drain { timeout_ms } => {
                routes.drain(Drain {
                    limit: Duration::from_millis(timeout_ms.into()),
                    patient: false,
                });
                continue;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        // Closed when every worker has it.
        let _ = applied.await;
        successor.write_u8(APPLIED).await?;
    }
}

/// One message, framed.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 4);
    // Parts are far smaller than a frame's bound.
    let _ = length::write(payload, &mut frame);
    frame
}

/// A whole table, framed.
pub fn snapshot(machines: &[Machine]) -> Vec<u8> {
    let number = 0;
    let mut frames = frame(&encode(&ToProxy::SnapshotBegin { number }));
    for part in machines.chunks(PART) {
        let machines = part.to_vec();
        frames.extend(frame(&encode(&ToProxy::SnapshotPart { machines })));
    }
    frames.extend(frame(&encode(&ToProxy::SnapshotEnd { number })));
    frames
}
