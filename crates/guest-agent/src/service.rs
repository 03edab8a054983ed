//! The agent's one loop: takes the host's messages from the channel, answers or starts calls, and
//! writes what calls have to tell. The rules of a session are those of `hyperfleet_wire::guest`.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use hyperfleet_wire::guest::{Command, Exec, FromGuest, ToGuest, PROTOCOL};
use hyperfleet_wire::WireError;
use serde::Deserialize;

use crate::answers::{Answers, Queue, Refusal};
use crate::calls::{Call, Calls};
use crate::exec;
use crate::flow::Flow;
use crate::keeper::Keeper;
use crate::kept::Kept;
use crate::leftovers::Leftovers;
use crate::listeners;
use crate::news::{News, Watch};
use crate::processes::Processes;
use crate::random;
use crate::relay::Relays;
use crate::supervisor::{self, Supervisor};
use crate::system::System;
use crate::transport::{Channel, Read};
use crate::way::Way;

/// How long the answer to `shutdown` may take to reach the host.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// A channel that does not last has lost its host.
    HostGone,
    /// The host asked to power off; processes get so long to end by themselves.
    Shutdown { grace: Duration },
}

/// All that outlives a session, and the session there is.
pub struct Service {
    /// Read for the first welcome: before it, a clone's is not its own.
    boot_id: Option<String>,
    system: System,
    processes: Processes,
    leftovers: Leftovers,
    keeper: Keeper,
    relays: Relays,
    news: News,
    /// Whether the kernel tells of sockets: from the first `watch` on.
    hears: bool,
    supervisor: Supervisor,
    queue: Queue,
    session: Option<Session>,
}

struct Session {
    nonce: u64,
    answers: Answers,
    calls: Calls,
    watch: Option<Watch>,
}

impl Session {
    /// Attaches call `id` to a process, in place of whichever is; its first answer.
    fn attach(&self, id: u32, kept: &Rc<Kept>, window: u32) -> FromGuest {
        if let Some(before) = kept.attached() {
            self.calls.remove(before);
        }
        self.calls.add(id, Call::Attached(Rc::clone(kept)));
        kept.attach(id, window, self.answers.clone())
    }
}

impl Service {
    /// A service without a session.
    pub fn new(system: System, processes: Processes) -> Self {
        Self {
            boot_id: None,
            system,
            processes,
            leftovers: Leftovers::default(),
            keeper: Keeper::default(),
            relays: Relays::new(),
            news: News::new(),
            hears: false,
            supervisor: Supervisor::default(),
            queue: Queue::new(),
            session: None,
        }
    }

    /// Ends every process, the machine's command for good; what is left after `grace` by force.
    pub async fn end_all(&self, grace: Duration) {
        self.supervisor.end();
        self.system.end_all(&self.processes, grace).await;
    }

    /// Serves hosts on `channel`, one after the other.
    ///
    /// # Errors
    /// Those of the descriptor itself. Nothing that a host sends is one.
    pub async fn serve(&mut self, channel: &Channel) -> io::Result<End> {
        let mut flow = Flow::new();
        loop {
            flow.write(channel)?;
            if let Some(frame) = flow.next_frame() {
                if let Some(grace) = self.take(frame, &mut flow) {
                    let last_word = async {
                        while flow.write(channel)? {
                            flow.edge(channel.edge().await?);
                        }
                        io::Result::Ok(())
                    };
                    let _ = tokio::time::timeout(LAST_WORD, last_word).await;
                    return Ok(End::Shutdown { grace });
                }
                // Messages in a row must not keep the calls they started from running.
                tokio::task::yield_now().await;
                continue;
            }
            let gone = if flow.wants_to_read() {
                flow.read(channel)? == Read::HostGone
            } else if flow.is_stuck() {
                true
            } else {
                tokio::select! {
                    deserted = channel.edge() => flow.edge(deserted?),
                    message = self.queue.next(), if flow.has_room() => flow.push(&message),
                }
                false
            };
            if gone {
                self.end_session();
                flow = Flow::after_host();
                if !channel.is_lasting() {
                    return Ok(End::HostGone);
                }
            }
        }
    }

    /// Forgets the session's calls: their answers are dropped, their processes run on.
    fn end_session(&mut self) {
        self.queue.end_session();
        if let Some(session) = self.session.take() {
            session.calls.end(&self.processes);
        }
    }

    /// Takes one frame. The grace of a shutdown, if it asked for one.
    fn take(&mut self, frame: Result<Vec<u8>, WireError>, flow: &mut Flow) -> Option<Duration> {
        let payload = match frame {
            Ok(payload) => payload,
            // Half a frame of the host before this one, or noise: the checksum stopped it.
            Err(WireError::Corrupt(_)) => return None,
            Err(why) => {
                flow.push(&Refusal::invalid(why.to_string()).into_message(0));
                return None;
            }
        };
        match hyperfleet_wire::decode(&payload) {
            Ok(message) => self.handle(message, flow),
            Err(why) => {
                let id = self.id_for_refusal(&payload);
                let refusal = Refusal::new(
                    "unknown_message",
                    format!("{why}; this agent speaks protocol {PROTOCOL}"),
                );
                flow.push(&refusal.into_message(id));
                None
            }
        }
    }

    /// The call that a message not understood would have begun, so that its caller learns; 0 if
    /// it names none, or one that is under way and will end by itself.
    fn id_for_refusal(&self, payload: &[u8]) -> u32 {
        #[derive(Deserialize)]
        struct AnyCall {
            #[serde(default)]
            id: u32,
        }
        let id = hyperfleet_wire::decode::<AnyCall>(payload).map_or(0, |call| call.id);
        let taken = self
            .session
            .as_ref()
            .is_some_and(|session| session.calls.has(id));
        if taken {
            0
        } else {
            id
        }
    }

    fn handle(&mut self, message: ToGuest, flow: &mut Flow) -> Option<Duration> {
        if let ToGuest::Hello {
            nonce,
            min,
            max,
            seed,
        } = message
        {
            if (min..=max).contains(&PROTOCOL) {
                self.hello(nonce, seed.as_deref().map_or(&[], |seed| &**seed), flow);
            } else {
                let refusal = Refusal::new(
                    "version",
                    format!("the host speaks protocol {min} to {max}, this agent {PROTOCOL}"),
                );
                flow.push(&refusal.into_message(0));
            }
            return None;
        }
        let Some(session) = &self.session else {
            let id = message.call_id().unwrap_or(0);
            flow.push(&Refusal::invalid("no session: hello comes first").into_message(id));
            return None;
        };
        if let Some(id) = message.call_id() {
            if id == 0 || session.calls.has(id) {
                let refusal = Refusal::invalid(format!("id {id} is taken"));
                flow.push(&refusal.into_message(0));
                return None;
            }
        }
        let needs_the_disk = matches!(
            message,
            ToGuest::Exec { .. }
                | ToGuest::Keep { .. }
                | ToGuest::Ports { .. }
                | ToGuest::Supervise { .. }
                | ToGuest::Watch { .. }
                | ToGuest::Relay { .. }
        );
        if let (true, Some(id), Err(refusal)) =
            (needs_the_disk, message.call_id(), self.system.must_be_up())
        {
            flow.push(&refusal.into_message(id));
            return None;
        }
        match message {
            ToGuest::Hello { .. } => {}
            ToGuest::Configure { id, config } => {
                let answer = match self.system.configure(&config) {
                    Ok(()) => FromGuest::Done { id },
                    Err(refusal) => refusal.into_message(id),
                };
                flow.push(&answer);
            }
            ToGuest::Exec { id, exec } => {
                if let Err(refusal) = self.exec(id, exec) {
                    flow.push(&refusal.into_message(id));
                }
            }
            ToGuest::Keep {
                id,
                name,
                output_window,
                exec,
            } => {
                let attached = self.keep(id, name, output_window, exec);
                flow.push(&attached.unwrap_or_else(|refusal| refusal.into_message(id)));
            }
            ToGuest::Attach {
                id,
                name,
                output_window,
            } => flow.push(&match self.keeper.find(&name) {
                Ok(kept) => session.attach(id, &kept, output_window),
                Err(refusal) => refusal.into_message(id),
            }),
            ToGuest::Detach { id } => session.calls.detach(id),
            ToGuest::EndTaken { id } => {
                if let Some(kept) = session.calls.end_taken(id) {
                    self.keeper.forget(&kept);
                }
            }
            ToGuest::Kept { id } => flow.push(&FromGuest::KeptProcesses {
                id,
                processes: self.keeper.told(),
            }),
            ToGuest::Forget { id, name } => flow.push(&match self.keeper.find(&name) {
                Ok(kept) => {
                    if let Some(handles) = kept.handles() {
                        handles.kill(&self.processes);
                    }
                    self.keeper.forget(&kept);
                    FromGuest::Done { id }
                }
                Err(refusal) => refusal.into_message(id),
            }),
            ToGuest::Stdin { id, data, eof } => {
                let data = data.into_vec();
                if let Err(refusal) = session.calls.stdin(id, data, eof, &self.processes) {
                    flow.push(&refusal.into_message(0));
                }
            }
            ToGuest::OutputTaken { id, bytes } => session.calls.taken(id, bytes as usize),
            ToGuest::Resize { id, size } => session.calls.resize(id, size),
            ToGuest::Kill { id, signal } => {
                if let Err(refusal) = session.calls.signal(id, signal, &self.processes) {
                    flow.push(&refusal.into_message(0));
                }
            }
            ToGuest::Ports { id } => flow.push(&self.ports(id)),
            ToGuest::Supervise { id, command } => {
                self.supervise(command);
                flow.push(&FromGuest::Done { id });
            }
            ToGuest::Watch { id, seen } => self.watch(id, seen),
            ToGuest::Relay { id, address, port } => {
                let own = self.system.relay_address();
                flow.push(&match self.relays.open(own, &address, port) {
                    Ok(port) => FromGuest::Relay { id, port },
                    Err(refusal) => refusal.into_message(id),
                });
            }
            ToGuest::Shutdown { id, grace_ms } => {
                flow.push(&FromGuest::Done { id });
                return Some(Duration::from_millis(u64::from(grace_ms)));
            }
            ToGuest::Sync { id } => {
                rustix::fs::sync();
                flow.push(&FromGuest::Done { id });
            }
            ToGuest::Ping { id } => flow.push(&FromGuest::Done { id }),
        }
        None
    }

    /// Opens a session, or welcomes again the host that has it: a hello is repeated until its
    /// welcome comes, since either may be lost while the other end is not open yet.
    fn hello(&mut self, nonce: u64, seed: &[u8], flow: &mut Flow) {
        if self
            .session
            .as_ref()
            .is_none_or(|session| session.nonce != nonce)
        {
            self.end_session();
            self.system.seed(seed);
            // The last session's answers; a frame cut here ends at the welcome's first byte.
            flow.drop_unwritten();
            self.session = Some(Session {
                nonce,
                answers: self.queue.next_session(),
                calls: Calls::default(),
                watch: None,
            });
        }
        flow.push(&FromGuest::Welcome {
            nonce,
            protocol: PROTOCOL,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.boot_id.get_or_insert_with(random::boot_id).clone(),
        });
    }

    fn exec(&mut self, id: u32, call: Exec) -> Result<(), Refusal> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let running = exec::start(&call, &self.processes, self.system.confines())?;
        let (calls, answers) = (session.calls.clone(), session.answers.clone());
        let (handles, credit) = (running.handles.clone(), running.credit.clone());
        let way = Way::Call {
            id,
            credit: credit.clone(),
            answers: answers.clone(),
        };
        calls.add(id, Call::Own { handles, credit });
        let (processes, leftovers) = (self.processes.clone(), self.leftovers.clone());
        let confine = running.handles.confine.clone();
        let confines = Rc::clone(self.system.confines());
        tokio::task::spawn_local(async move {
            let ending = exec::carry(call, running, processes, leftovers, &way).await;
            // Before the host can know that the id is free.
            calls.remove(id);
            answers.send(ending.into_message(id)).await;
            // The answer goes out first: what is tidied up takes as long as a start.
            tokio::task::yield_now().await;
            drop(confine);
            confines.prepare();
        });
        Ok(())
    }

    fn keep(&self, id: u32, name: String, window: u32, call: Exec) -> Result<FromGuest, Refusal> {
        let Some(session) = &self.session else {
            return Err(Refusal::invalid("no session"));
        };
        self.keeper.admit(&name)?;
        let running = exec::start(&call, &self.processes, self.system.confines())?;
        let kept = Kept::new(name, &call, running.handles.clone());
        self.keeper.add(Rc::clone(&kept));
        let attached = session.attach(id, &kept, window);
        let (processes, leftovers) = (self.processes.clone(), self.leftovers.clone());
        tokio::task::spawn_local(async move {
            let way = Way::Kept(Rc::clone(&kept));
            kept.finish(exec::carry(call, running, processes, leftovers, &way).await);
        });
        Ok(attached)
    }

    fn watch(&mut self, id: u32, seen: u64) {
        if !self.hears {
            self.hears = true;
            let news = self.news.clone();
            self.system.watch_sockets(move || news.add());
        }
        if let Some(session) = &mut self.session {
            session.watch = Some(self.news.watch(id, seen, session.answers.clone()));
        }
    }

    fn supervise(&mut self, command: Command) {
        let tools = supervisor::Tools {
            processes: self.processes.clone(),
            confines: Rc::clone(self.system.confines()),
            console: Rc::new(self.system.console()),
            news: self.news.clone(),
        };
        self.supervisor.begin(command, tools);
    }

    fn ports(&self, id: u32) -> FromGuest {
        match listeners::listening(self.system.own_address(), &self.relays.addresses()) {
            Ok((listeners, truncated)) => FromGuest::Listeners {
                id,
                listeners,
                truncated,
            },
            Err(why) => {
                Refusal::failed(format!("cannot read listening ports: {why}")).into_message(id)
            }
        }
    }
}
