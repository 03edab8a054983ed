//! The process: sockets, worker threads, signals, and where the routes come from.

use std::fmt::{self, Display};
use std::future::pending;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::mpsc;

use crate::cli;
use crate::clients::Clients;
use crate::control::{self, Link, Process};
use crate::counters::Counters;
use crate::held;
use crate::log;
use crate::privileges;
use crate::probe::Prober;
use crate::routes::{read_file, Command, Drain, Routes};
use crate::settings::{Settings, Source};
use crate::worker::{self, Parts};

/// Connections that the kernel holds for each worker until they are accepted.
const BACKLOG: i32 = 4096;

/// Why the process ends without success.
#[derive(Debug)]
pub enum Failure {
    /// What it was told can't be done: a port that is taken, a file that can't be read.
    Start(String),
    /// Something broke while it ran.
    Run(String),
}

impl Failure {
    /// 2 for what its user can mend, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Start(_) => 2,
            Failure::Run(_) => 1,
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Start(why) | Failure::Run(why) => f.write_str(why),
        }
    }
}

/// Serves until a signal or the control plane ends it, and has drained then.
///
/// # Errors
/// [`Failure`], to be shown to whoever started the process.
pub fn run(settings: Settings) -> Result<(), Failure> {
    raise_descriptor_limit();
    held::limit(settings.max_held_bytes);
    let settings = Arc::new(settings);
    let listeners = listen(settings.listen, settings.workers)
        .map_err(|error| Failure::Start(format!("listen on {}: {error}", settings.listen)))?;
    let address = listeners
        .first()
        .and_then(|listener| listener.local_addr().ok())
        .unwrap_or(settings.listen);
    let machines = match &settings.source {
        Some(Source::File(path)) => read_file(path).map_err(Failure::Start)?,
        _ => Vec::new(),
    };
    let broken = |error: io::Error| Failure::Run(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(broken)?;
    let guard = runtime.enter();
    let (prober, asks) = Prober::new();
    let socket = match &settings.source {
        Some(Source::Control(path)) => Some(control::Socket::bind(path).map_err(|error| {
            Failure::Start(format!("control socket {}: {error}", path.display()))
        })?),
        _ => None,
    };
    let signals = Signals::new().map_err(broken)?;
    drop(guard);

    privileges::give_up(&settings.user, settings.seccomp).map_err(Failure::Start)?;
    let prober = socket.is_some().then_some(prober);
    let (mut workers, senders) = Workers::start(&settings, listeners, prober).map_err(broken)?;
    let mut routes = Routes::new(senders);
    if socket.is_none() {
        routes.read(&machines).map_err(Failure::Start)?;
    }
    // For people and supervisors; nobody has to listen.
    let _ = writeln!(io::stdout(), "hyperfleet-proxy listens on {address}");
    let counters = workers.counters.clone();
    let process = Process {
        routes,
        asks,
        arguments: cli::arguments(&settings),
        counters: Box::new(move || Counters::total(counters.iter().map(|worker| &**worker))),
    };
    runtime.block_on(supervise(&settings, socket, process, signals, &mut workers))
}

/// Waits for what ends the process, then drains.
async fn supervise(
    settings: &Settings,
    socket: Option<control::Socket>,
    process: Process,
    mut signals: Signals,
    workers: &mut Workers,
) -> Result<(), Failure> {
    let mut link = Link::new(process);
    let limit = loop {
        tokio::select! {
            limit = async {
                match &socket {
                    Some(socket) => link.run(socket).await,
                    None => pending().await,
                }
            } => break limit,
            signal = signals.next() => match (signal, &settings.source) {
                (Signal::Stop, _) => break settings.times.drain,
                (Signal::Reload, Some(Source::File(path))) => reload(path, link.routes()),
                // Nothing is read again; it must not end the process either.
                (Signal::Reload, _) => {}
            },
            () = workers.one_ended() => {
                return Err(Failure::Run("a worker ended by itself".to_owned()));
            }
        }
    };
    link.routes().drain(Drain {
        limit,
        patient: false,
    });
    // The name is free for the next data plane from here on.
    drop(socket);
    tokio::select! {
        () = workers.all_ended() => {}
        // Asked twice: at once.
        () = signals.stop() => {}
    }
    Ok(())
}

fn reload(path: &Path, routes: &mut Routes) {
    let replaced = read_file(path).and_then(|machines| routes.read(&machines));
    match replaced {
        Ok(()) => log::line(format_args!("{} read again", path.display())),
        Err(why) => log::line(format_args!("the routes stay as they were: {why}")),
    }
}

#[derive(PartialEq)]
enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    reload: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.reload.recv() => Signal::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}

/// The worker threads.
struct Workers {
    counters: Vec<Arc<Counters>>,
    /// One message for each worker that ended.
    ended: mpsc::UnboundedReceiver<()>,
    running: usize,
}

impl Workers {
    fn start(
        settings: &Arc<Settings>,
        listeners: Vec<std::net::TcpListener>,
        prober: Option<Prober>,
    ) -> io::Result<(Workers, Vec<mpsc::UnboundedSender<Command>>)> {
        let clients = Arc::new(Clients::new(
            settings.max_connections,
            settings.max_address_connections,
        ));
        let (over, ended) = mpsc::unbounded_channel();
        let mut counters = Vec::new();
        let mut senders = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            let (sender, commands) = mpsc::unbounded_channel();
            let mine = Arc::new(Counters::default());
            let parts = Parts {
                listener,
                settings: settings.clone(),
                counters: mine.clone(),
                commands,
                prober: prober.clone(),
                clients: clients.clone(),
            };
            let over = Over(over.clone());
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let _over = over;
                    if let Err(error) = worker::run(parts) {
                        log::line(format_args!("worker {index}: {error}"));
                    }
                })?;
            counters.push(mine);
            senders.push(sender);
        }
        let running = senders.len();
        Ok((
            Workers {
                counters,
                ended,
                running,
            },
            senders,
        ))
    }

    async fn one_ended(&mut self) {
        self.ended.recv().await;
        self.running -= 1;
    }

    async fn all_ended(&mut self) {
        while self.running > 0 {
            self.one_ended().await;
        }
    }
}

/// Says that a worker's thread is over, panics included.
struct Over(mpsc::UnboundedSender<()>);

impl Drop for Over {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// One listening socket a worker, all on one port; the kernel spreads the connections.
fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let free = bind(address, false)?;
    // With SO_REUSEPORT a second process of this user would share the port in silence: so it is
    // bound without it first.
    let address = free.local_addr()?.as_socket().unwrap_or(address);
    drop(free);
    (0..workers)
        .map(|_| {
            let socket = bind(address, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
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

/// Two descriptors a client: the soft limit, often 1024, is raised to what is allowed.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit fills the struct it is given, setrlimit reads it; both live on this stack.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
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
