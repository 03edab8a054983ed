//! One worker: a thread with its own runtime, listening socket, table and pool. Workers share
//! nothing that a request would have to lock.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, Notify};

use crate::access::Access;
use crate::backlog::Backlog;
use crate::bounds::Bound;
use crate::buffers::Buffers;
use crate::client::Client;
use crate::clients::{Clients, Place, Room};
use crate::clock::Clock;
use crate::connection;
use crate::counters::Counters;
use crate::forward::Peer;
use crate::log::{self, Sparing};
use crate::pool::{self, Pool};
use crate::probe::Prober;
use crate::routes::{Change, Command, Drain};
use crate::runtime::{self, spawn, spawn_with, yield_now, Listener, Stream};
use crate::settings::Settings;
use crate::table::Table;
use crate::upstream;

/// How long accepting rests when the system has nothing left for a connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What a worker is made of; `Send`, for its thread.
pub struct Parts {
    pub listener: std::net::TcpListener,
    pub settings: Arc<Settings>,
    pub counters: Arc<Counters>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// `None` when there is no control plane to ask.
    pub prober: Option<Prober>,
    /// Of all workers.
    pub clients: Arc<Clients>,
    /// `None` when no access log is kept.
    pub access: Option<Access>,
}

/// What a worker's tasks share.
pub struct Worker {
    pub settings: Arc<Settings>,
    pub counters: Arc<Counters>,
    pub prober: Option<Prober>,
    pub access: Option<Rc<Access>>,
    pub table: RefCell<Table>,
    pub pool: Rc<RefCell<Pool>>,
    pub clock: Rc<Clock>,
    pub buffers: Buffers,
    /// Whether there has been a table at all.
    known: Cell<bool>,
    first_table: Notify,
    draining: Cell<Option<Drain>>,
    everybody: Arc<Clients>,
    /// Clients of this worker.
    clients: Cell<usize>,
    last_client_gone: Notify,
}

impl Worker {
    /// Waits for the first table; false when it has not come within the time limit.
    pub async fn has_table(&self) -> bool {
        let arrival = async {
            while !self.known.get() {
                self.first_table.notified().await;
            }
        };
        self.known.get()
            || runtime::timeout(self.settings.times.snapshot, arrival)
                .await
                .is_some()
    }

    /// Whether a table has come, so that nothing needs to be waited for.
    pub fn knows(&self) -> bool {
        self.known.get()
    }

    /// The process is ending: connections close when they can.
    pub fn draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// The same, and there is no time for those that are idle.
    pub fn hurries(&self) -> bool {
        self.draining.get().is_some_and(|drain| !drain.patient)
    }

    /// Takes a slice of a step; its last one makes the table one to decide by.
    fn change(&self, change: &Change) {
        self.table.borrow_mut().reserve(change.machines);
        for record in &change.upsert {
            let ended = self.table.borrow_mut().upsert(record.clone());
            if let Some(life) = ended {
                self.pool.borrow_mut().end(life);
            }
        }
        for record in &change.remove {
            self.remove(record.id.as_bytes());
        }
        if change.applied.is_some() {
            self.known.set(true);
            self.first_table.notify_waiters();
        }
    }

    fn remove(&self, id: &[u8]) {
        let ended = self.table.borrow_mut().remove(id);
        if let Some(life) = ended {
            self.pool.borrow_mut().end(life);
        }
    }
}

/// Runs a worker on this thread until it has drained.
///
/// # Errors
/// When the runtime or the listening socket can't be set up.
pub fn run(parts: Parts) -> io::Result<()> {
    let counters = parts.counters.clone();
    let panicked = move || {
        counters.errors.count("task_panicked");
        log::line("a connection ended by a fault of the proxy; the others go on");
    };
    runtime::block_on(panicked, async {
        let listener = Listener::new(parts.listener)?;
        let settings = parts.settings;
        let worker = Rc::new(Worker {
            counters: parts.counters,
            table: RefCell::new(Table::default()),
            pool: Rc::new(RefCell::new(Pool::new(
                settings.pool,
                settings.pool_per_port,
            ))),
            clock: Clock::new(),
            buffers: Buffers::new(),
            // A file's table comes as a command too, after the port is open.
            known: Cell::new(false),
            prober: parts.prober,
            access: parts.access.map(Rc::new),
            first_table: Notify::new(),
            draining: Cell::new(None),
            everybody: parts.clients,
            clients: Cell::new(0),
            last_client_gone: Notify::new(),
            settings,
        });
        serve(worker, listener, parts.commands).await;
        Ok(())
    })?
}

async fn serve(
    worker: Rc<Worker>,
    listener: Listener,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let idle = worker.settings.times.idle;
    let pool = worker.pool.clone();
    let mut looked = 0;
    spawn(worker.clock.clone().run(move |now| {
        // Idle connections are few and their limit is long: once a second will do.
        if now >= looked + 1000 {
            looked = now;
            pool.borrow_mut().expire(now, idle);
        }
        !pool.borrow().is_empty()
    }));
    spawn(pool::sweep(worker.pool.clone()));
    let mut backlog = Backlog::new(&listener);
    let mut listener = Some(listener);
    let mut rest = None;
    let mut complaint = Sparing::default();
    let mut deadline = None;
    loop {
        tokio::select! {
            accepted = accept(listener.as_ref(), rest) => match accepted {
                Ok((stream, peer)) => {
                    rest = None;
                    admit(&worker, stream, peer);
                    backlog.accepted(listener.as_ref(), &worker.counters);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Anything else is refused: a filter of the host's, say.
                    if upstream::is_of_this_host(&error) {
                        worker.counters.met(Bound::HostSockets);
                    }
                    complaint.line(format_args!("accept: {error}; trying again"));
                    rest = Some(Instant::now() + ACCEPT_REST);
                }
            },
            command = commands.recv() => match command {
                Some(Command::Change(change)) => {
                    worker.change(&change);
                    drop(change);
                    // Many slices may wait: requests are served between two of them.
                    yield_now().await;
                }
                Some(Command::Drain(drain)) => {
                    worker.draining.set(Some(drain));
                    if let Some(listener) = listener.take() {
                        // Another process has the socket too: what waits there is its.
                        if !drain.patient {
                            take_backlog(&worker, &listener).await;
                        }
                    }
                    worker.pool.borrow_mut().clear();
                    worker.clock.wake_all();
                    deadline = Some(Instant::now() + drain.limit);
                }
                // The process is going down without a word.
                None => return,
            },
            () = worker.last_client_gone.notified(), if worker.clients.get() > 0 => {}
            () = until(deadline) => return,
        }
        if deadline.is_some() && worker.clients.get() == 0 {
            return;
        }
    }
}

async fn accept(
    listener: Option<&Listener>,
    rest: Option<Instant>,
) -> io::Result<(Stream, SocketAddr)> {
    if rest.is_some() {
        until(rest).await;
    }
    match listener {
        Some(listener) => listener.accept().await,
        None => pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => runtime::sleep_until(at).await,
        None => pending().await,
    }
}

/// Connections that the kernel has made are served, not reset by closing the listener.
async fn take_backlog(worker: &Rc<Worker>, listener: &Listener) {
    poll_fn(|cx| {
        while let Poll::Ready(Ok((stream, peer))) = listener.poll_accept(cx) {
            admit(worker, stream, peer);
        }
        Poll::Ready(())
    })
    .await;
}

/// What accept says of a connection that is gone already (accept(2), "Error handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn admit(worker: &Rc<Worker>, stream: Stream, from: SocketAddr) {
    worker.counters.accepted.add(1);
    let address = from.ip();
    let trusted = worker.settings.site.trusts(address);
    let peer = Peer { address, trusted };
    let (place, room) = worker.everybody.take(address, trusted);
    if let Room::None(bound) = room {
        worker.counters.met(bound);
        return;
    }
    let place = ClientPlace::take(worker.clone(), place);
    spawn_with(|waker| {
        let mut client = Client::new(worker.clone(), stream, peer, waker);
        // Both are used where they were captured: a connection has no room for them twice.
        async move {
            let _place = &place;
            connection::serve(&mut client, room).await;
        }
    });
}

/// A client's place in the counts.
struct ClientPlace {
    worker: Rc<Worker>,
    _place: Place,
}

impl ClientPlace {
    fn take(worker: Rc<Worker>, place: Place) -> ClientPlace {
        worker.clients.set(worker.clients.get() + 1);
        worker.counters.connections.add(1);
        ClientPlace {
            worker,
            _place: place,
        }
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let worker = &self.worker;
        worker.clients.set(worker.clients.get() - 1);
        worker.counters.connections.sub(1);
        if worker.clients.get() == 0 {
            worker.last_client_gone.notify_one();
        }
    }
}
