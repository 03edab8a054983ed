//! The port that clients connect to.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::settings::Settings;
use crate::takeover::Inherited;

/// Connections that the kernel holds for each worker until they are accepted.
const BACKLOG: i32 = 4096;

/// The port's listening sockets: those of the process before, if it listens there too, and as many
/// more as there are workers. Fewer workers than sockets are not possible without losing what waits
/// at the others, so each gets one.
///
/// # Errors
/// When the port is taken, or may not be bound.
pub fn open(
    settings: &Settings,
    inherited: Option<&mut Inherited>,
) -> io::Result<Vec<TcpListener>> {
    // Taken out in any case: a port that was given up is to be closed.
    let inherited = inherited.map(|it| (it.listen, std::mem::take(&mut it.listeners)));
    let mut listeners = match inherited {
        Some((address, listeners)) if address == settings.listen => listeners,
        _ => return listen(settings.listen, settings.workers),
    };
    let address = match listeners.first() {
        Some(listener) => listener.local_addr()?,
        None => settings.listen,
    };
    while listeners.len() < settings.workers {
        listeners.push(listen_shared(address)?);
    }
    Ok(listeners)
}

/// One listening socket a worker, all on one port; the kernel spreads the connections.
fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let free = bind(address, false)?;
    // With SO_REUSEPORT a second process of this user would share the port in silence: so it is
    // bound without it first.
    let address = free.local_addr()?.as_socket().unwrap_or(address);
    drop(free);
    (0..workers).map(|_| listen_shared(address)).collect()
}

fn listen_shared(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // Linux gives it to what is accepted: a system call less for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_does_not_wait_to_fill_a_packet() {
        let listeners = listen(([127, 0, 0, 1], 0).into(), 1).unwrap();
        let listener = &listeners[0];
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        assert!(listener.accept().unwrap().0.nodelay().unwrap());
    }
}
