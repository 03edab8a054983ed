//! The old process' side.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hyperfleet_wire::control::{Machine, ToProxy};
use hyperfleet_wire::{decode, encode, length};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::{sockets, Hello, APPLIED, READY, VERSION};
use crate::routes::{Drain, Routes};
use crate::socket::Socket;

/// How long a new process may take until it serves.
const LIMIT: Duration = Duration::from_secs(30);
/// Most machines in one part of the routes.
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
        to.write_all(&frame(&hello)).await?;
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

/// Tells the successor that this process accepts no more, and applies what it passes on from then
/// on. A drain of the successor is a drain of this process too.
///
/// # Errors
/// When the successor is gone, or says what is not understood.
pub async fn follow(successor: &mut UnixStream, routes: &mut Routes) -> io::Result<()> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    successor.write_u8(APPLIED).await?;
    loop {
        let size = successor.read_u32().await? as usize;
        if size > length::MAX_PAYLOAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; size];
        successor.read_exact(&mut payload).await?;
        let applied = match decode(&payload).map_err(|error| invalid(error.to_string()))? {
            ToProxy::Change { upsert, remove, .. } => {
                let records = upsert.iter().map(|machine| routes.record(machine));
                let records: Vec<_> = records.collect::<Result<_, _>>().map_err(invalid)?;
                routes.change(&records, &remove)
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

/// One message, framed; empty when it is over a frame's bound.
pub fn frame(message: &impl Serialize) -> Vec<u8> {
    let mut frame = Vec::new();
    let _ = length::write(&encode(message), &mut frame);
    frame
}

/// Frames of messages that hold these machines, in order, few in each if they are large: one
/// always fits, since it came in a frame.
pub fn frames(machines: &[Machine], make: &impl Fn(Vec<Machine>) -> ToProxy) -> Vec<Vec<u8>> {
    let framed = frame(&make(machines.to_vec()));
    if !framed.is_empty() || machines.len() < 2 {
        return vec![framed];
    }
    let (first, second) = machines.split_at(machines.len() / 2);
    [frames(first, make), frames(second, make)].concat()
}

/// A whole table, framed.
fn snapshot(machines: &[Machine]) -> Vec<u8> {
    let number = 0;
    let mut bytes = frame(&ToProxy::SnapshotBegin { number });
    for part in machines.chunks(PART) {
        bytes.extend(frames(part, &|machines| ToProxy::SnapshotPart { machines }).concat());
    }
    bytes.extend(frame(&ToProxy::SnapshotEnd { number }));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyperfleet_wire::control::Port;

    #[test]
    fn large_machines_are_divided_among_frames_and_none_is_lost() {
        let port = |port| Port::new(port, Some("127.0.0.1:65535".to_owned()), true);
        let machines: Vec<_> = (0..PART)
            .map(|number| Machine {
                id: format!("m{number}"),
                name: format!("n{number}"),
                status: "running".to_owned(),
                lifecycle: 1,
                ports: (1..500).map(port).collect(),
            })
            .collect();
        let mut bytes = snapshot(&machines);
        let mut found = Vec::new();
        let mut count = 0;
        while let Some((payload, taken)) = length::read(&bytes).unwrap() {
            if let ToProxy::SnapshotPart { machines } = decode(payload).unwrap() {
                found.extend(machines);
            }
            count += 1;
            bytes.drain(..taken);
        }
        assert!(count > 4, "{count} frames");
        assert!(bytes.is_empty() && found == machines);
    }
}
