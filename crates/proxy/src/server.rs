//! The process: sockets, worker threads, signals, and where the routes come from.

use std::fmt::{self, Display};
use std::future::pending;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::access::{AccessLog, Sink};
use crate::cli;
use crate::clients::Clients;
use crate::control::{Link, Process};
use crate::counters::Counters;
use crate::descriptors;
use crate::held;
use crate::log;
use crate::port;
use crate::privileges;
use crate::probe::Prober;
use crate::routes::{read_file, Command, Drain, Routes};
use crate::settings::{Settings, Source};
use crate::signals::{Signal, Signals};
use crate::socket::Socket;
use crate::takeover::{self, Door, Inherited, Predecessor};
use crate::turns::Turns;
use crate::worker::{self, Parts};

/// What the processes before this one may take longer than it.
const ELDERS_REST: Duration = Duration::from_secs(1);

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

/// Serves until a signal, the control plane or a successor ends it, and has drained then.
///
/// # Errors
/// [`Failure`], to be shown to whoever started the process.
pub fn run(settings: Settings) -> Result<(), Failure> {
    descriptors::raise_limit();
    held::limit(settings.max_held_bytes);
    let settings = Arc::new(settings);
    let mut inherited = match &settings.source {
        Some(Source::Control(path)) if settings.take_over => takeover::take(path)
            .map_err(|error| Failure::Start(format!("take-over at {}: {error}", path.display())))?,
        _ => None,
    };
    let listeners = port::open(&settings, inherited.as_mut())
        .map_err(|error| Failure::Start(format!("listen on {}: {error}", settings.listen)))?;
    let address = listeners
        .first()
        .and_then(|listener| listener.local_addr().ok())
        .unwrap_or(settings.listen);
    let sink = match &settings.access_log {
        Some(path) => Some(Sink::open(path).map_err(|error| {
            Failure::Start(format!("--access-log {}: {error}", path.display()))
        })?),
        None => None,
    };
    let machines = match (&settings.source, &mut inherited) {
        (Some(Source::File(path)), _) => Some(read_file(path).map_err(Failure::Start)?),
        (Some(Source::Control(_)), Some(inherited)) => inherited.routes.take(),
        (Some(Source::Control(_)), None) => None,
        (None, _) => Some(Vec::new()),
    };
    let broken = |error: io::Error| Failure::Run(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(broken)?;
    let guard = runtime.enter();
    let (prober, asks) = Prober::new();
    let (sockets, predecessor) = match &settings.source {
        Some(Source::Control(path)) => {
            let (sockets, predecessor) = Sockets::open(path, &settings, &listeners, inherited)
                .map_err(|error| {
                    Failure::Start(format!("control socket {}: {error}", path.display()))
                })?;
            (Some(sockets), predecessor)
        }
        _ => (None, None),
    };
    let signals = Signals::new().map_err(broken)?;
    drop(guard);

    let turns = Turns::of_process();
    privileges::give_up(&settings.user, settings.seccomp).map_err(Failure::Start)?;
    let prober = sockets.is_some().then_some(prober);
    let log = sink
        .map(|sink| AccessLog::start(sink, turns))
        .transpose()
        .map_err(broken)?;
    let (mut workers, senders) =
        Workers::start(&settings, listeners, prober, log.as_ref(), turns).map_err(broken)?;
    turns.behind();
    let mut routes = Routes::new(senders);
    let applied = match machines {
        Some(machines) => Some(routes.read(&machines).map_err(Failure::Start)?),
        None => None,
    };
    if let Some(predecessor) = predecessor {
        runtime
            .block_on(relieve(predecessor, applied, &mut routes))
            .map_err(broken)?;
    }
    // For people and supervisors; nobody has to listen.
    let _ = writeln!(io::stdout(), "hyperfleet-proxy listens on {address}");
    let mut counters = workers.counters.clone();
    counters.extend(log.as_ref().map(|log| log.counters.clone()));
    let process = Process {
        routes,
        asks,
        arguments: cli::arguments(&settings),
        counters: Box::new(move || Counters::total(counters.iter().map(|worker| &**worker))),
    };
    let ended = runtime.block_on(supervise(
        &settings,
        sockets,
        process,
        signals,
        &mut workers,
        log.as_ref(),
    ));
    if let Some(log) = log {
        log.close();
    }
    ended
}

/// The sockets that are not clients': the control plane's, and the next process'.
struct Sockets {
    control: Socket,
    door: Door,
}

impl Sockets {
    /// Binds them, or takes those that were handed over; then also the process to be relieved.
    fn open(
        path: &Path,
        settings: &Settings,
        listeners: &[TcpListener],
        inherited: Option<Inherited>,
    ) -> io::Result<(Sockets, Option<UnixStream>)> {
        let door = takeover::door(path);
        let (control, door, predecessor) = match inherited {
            Some(inherited) => {
                let (sockets, stream) = inherited.into_sockets();
                let control = Socket::inherit(sockets.0, path)?;
                let door = Socket::inherit(sockets.1, &door)?;
                (control, door, Some(stream))
            }
            None => {
                let control = Socket::bind(path)?;
                (control, Socket::bind(&door)?, None)
            }
        };
        let listeners = listeners.iter().map(TcpListener::try_clone);
        let door = Door {
            socket: door,
            listeners: listeners.collect::<io::Result<_>>()?,
            listen: settings.listen,
        };
        Ok((Sockets { control, door }, predecessor))
    }

    /// Another process has them.
    fn leave(self) {
        self.control.leave();
        self.door.socket.leave();
    }
}

/// Serves in place of the process before, once every worker has the routes.
async fn relieve(
    stream: UnixStream,
    applied: Option<oneshot::Receiver<()>>,
    routes: &mut Routes,
) -> io::Result<()> {
    if let Some(applied) = applied {
        // Closed when the last worker has them.
        let _ = applied.await;
    }
    routes.pass_on(Predecessor::relieve(stream).await?);
    Ok(())
}

/// Why a process ends.
enum Ending {
    Asked(Duration),
    Relieved(tokio::net::UnixStream),
}

/// Waits for what ends the process, then drains.
async fn supervise(
    settings: &Settings,
    sockets: Option<Sockets>,
    process: Process,
    mut signals: Signals,
    workers: &mut Workers,
    log: Option<&AccessLog>,
) -> Result<(), Failure> {
    let mut link = Link::new(process);
    let ending = await_end(
        settings,
        sockets.as_ref(),
        &mut link,
        &mut signals,
        workers,
        log,
    )
    .await?;
    let mut routes = link.into_routes();
    let elders = routes.elders_gone();
    let (limit, successor) = match ending {
        Ending::Asked(limit) => {
            // The names and the port are free for the next data plane from here on.
            drop(sockets);
            let patient = false;
            routes.drain(Drain { limit, patient });
            (limit, None)
        }
        Ending::Relieved(stream) => {
            log::line("another process has taken over; this one finishes what it has");
            if let Some(sockets) = sockets {
                sockets.leave();
            }
            let (limit, patient) = (settings.times.retire, true);
            routes.drain(Drain { limit, patient });
            (limit, Some(stream))
        }
    };
    let follow = async {
        if let Some(mut stream) = successor {
            // When it is gone, what is in flight here is still finished.
            let _ = takeover::follow(&mut stream, &mut routes).await;
        }
        pending::<()>().await
    };
    tokio::select! {
        () = async {
            workers.all_ended().await;
            // They have the same limit, or had theirs before.
            let _ = tokio::time::timeout(limit + ELDERS_REST, elders).await;
        } => {}
        // Asked twice: at once.
        () = signals.stop() => {}
        () = follow => {}
    }
    Ok(())
}

/// Serves the control plane, and whoever wants to take over.
async fn await_end(
    settings: &Settings,
    sockets: Option<&Sockets>,
    link: &mut Link,
    signals: &mut Signals,
    workers: &mut Workers,
    log: Option<&AccessLog>,
) -> Result<Ending, Failure> {
    let mut handing_over = None;
    loop {
        let idle = handing_over.is_none();
        tokio::select! {
            limit = async {
                match sockets {
                    Some(sockets) => link.run(&sockets.control).await,
                    None => pending().await,
                }
            } => return Ok(Ending::Asked(limit)),
            (sockets, stream) = async {
                match sockets {
                    Some(sockets) => (sockets, sockets.door.knock().await),
                    None => pending().await,
                }
            }, if idle => {
                let routes = link.routes().snapshot();
                let hand_over = sockets.door.hand_over(stream, &sockets.control, routes);
                handing_over = Some(Box::pin(hand_over));
            }
            relieved = async {
                match &mut handing_over {
                    Some(hand_over) => hand_over.await,
                    None => pending().await,
                }
            } => {
                handing_over = None;
                if let Some(stream) = relieved {
                    return Ok(Ending::Relieved(stream));
                }
            }
            signal = signals.next() => {
                if signal == Signal::Stop {
                    return Ok(Ending::Asked(settings.times.drain));
                }
                if let Some(log) = log {
                    log.reopen();
                }
                if let Some(Source::File(path)) = &settings.source {
                    reload(path, link.routes());
                }
            },
            () = workers.one_ended() => {
                return Err(Failure::Run("a worker ended by itself".to_owned()));
            }
        }
    }
}

fn reload(path: &Path, routes: &mut Routes) {
    let replaced = read_file(path).and_then(|machines| routes.read(&machines));
    match replaced {
        Ok(_) => log::line(format_args!("{} read again", path.display())),
        Err(why) => log::line(format_args!("the routes stay as they were: {why}")),
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
        listeners: Vec<TcpListener>,
        prober: Option<Prober>,
        log: Option<&AccessLog>,
        turns: Turns,
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
                access: log.map(|log| log.access(mine.clone(), settings.access_log_sample)),
            };
            let over = Over(over.clone());
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let _over = over;
                    turns.first();
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
