//! The agent's one loop: takes the host's messages from the channel, answers or starts calls, and
//! writes what calls have to tell. The rules of a session are those of `hyperfleet_wire::guest`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hyperfleet_wire::guest::{Command, Exec, FromGuest, ToGuest, PROTOCOL};
use hyperfleet_wire::WireError;
use rustix::process::{Pid, Signal};
use serde::Deserialize;

use crate::answers::{Answers, Queue, Refusal};
use crate::confines::Confine;
use crate::credit::Credit;
use crate::exec;
use crate::failure::say;
use crate::flow::Flow;
use crate::leftovers::Leftovers;
use crate::listeners;
use crate::news::{News, Watch};
use crate::processes::Processes;
use crate::random;
use crate::relay::Relays;
use crate::stdin::Stdin;
use crate::supervisor::{self, Supervisor};
use crate::system::System;
use crate::terminal::Terminal;
use crate::transport::{Channel, Read};

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
    execs: Execs,
    watch: Option<Watch>,
}

/// Exec calls of one session that have not ended, by id.
type Execs = Rc<RefCell<HashMap<u32, ExecCall>>>;

struct ExecCall {
    pid: Pid,
    stdin: Option<Rc<Stdin>>,
    confine: Option<Rc<Confine>>,
    credit: Option<Rc<Credit>>,
    terminal: Option<Rc<Terminal>>,
}

impl Service {
    /// A service without a session.
    pub fn new(system: System, processes: Processes) -> Self {
        Self {
            boot_id: None,
            system,
            processes,
            leftovers: Leftovers::default(),
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
            for call in session.execs.borrow().values() {
                if let Some(stdin) = &call.stdin {
                    stdin.end();
                }
                if let Some(credit) = &call.credit {
                    credit.lift();
                }
                if call.terminal.is_some() {
                    // As a terminal whose line is cut.
                    self.processes.signal_group(call.pid, Signal::HUP);
                    self.processes.signal_group(call.pid, Signal::CONT);
                }
            }
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
            .is_some_and(|session| session.execs.borrow().contains_key(&id));
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
            if id == 0 || session.execs.borrow().contains_key(&id) {
                let refusal = Refusal::invalid(format!("id {id} is taken"));
                flow.push(&refusal.into_message(0));
                return None;
            }
        }
        let needs_the_disk = matches!(
            message,
            ToGuest::Exec { .. }
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
            ToGuest::Stdin { id, data, eof } => self.stdin(id, data.into_vec(), eof, flow),
            ToGuest::OutputTaken { id, bytes } => {
                if let Some(credit) = session
                    .execs
                    .borrow()
                    .get(&id)
                    .and_then(|call| call.credit.as_ref())
                {
                    credit.grant(bytes as usize);
                }
            }
            ToGuest::Resize { id, size } => {
                let execs = session.execs.borrow();
                if let Some(terminal) = execs.get(&id).and_then(|call| call.terminal.as_ref()) {
                    if let Err(why) = terminal.resize(size) {
                        say(format_args!("cannot resize a terminal: {why}"));
                    }
                }
            }
            ToGuest::Kill { id, signal } => self.kill(id, signal, flow),
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
                execs: Rc::default(),
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
        let execs = Rc::clone(&session.execs);
        execs.borrow_mut().insert(
            id,
            ExecCall {
                pid: running.pid,
                stdin: running.stdin.clone(),
                confine: running.confine.clone(),
                credit: running.credit.clone(),
                terminal: running.terminal.clone(),
            },
        );
        let (processes, leftovers) = (self.processes.clone(), self.leftovers.clone());
        let answers = session.answers.clone();
        tokio::task::spawn_local(async move {
            let exited = exec::carry(id, call, running, processes, leftovers, &answers).await;
            // Before the host can know that the id is free.
            execs.borrow_mut().remove(&id);
            answers.send(exited).await;
        });
        Ok(())
    }

    fn stdin(&self, id: u32, data: Vec<u8>, eof: bool, flow: &mut Flow) {
        let Some(session) = &self.session else { return };
        let execs = session.execs.borrow();
        let Some(call) = execs.get(&id) else { return };
        let pushed = match &call.stdin {
            Some(stdin) => stdin.push(data, eof),
            None => Err(Refusal::invalid(format!("exec {id} asked for no stdin"))),
        };
        if let Err(mut refusal) = pushed {
            // The call ends with its process, not with this.
            refusal.message = format!("exec {id} is killed: {}", refusal.message);
            flow.push(&refusal.into_message(0));
            exec::kill(call.pid, call.confine.as_deref(), &self.processes);
        }
    }

    fn kill(&self, id: u32, signal: i32, flow: &mut Flow) {
        let Some(session) = &self.session else { return };
        let Some(signal) = Signal::from_named_raw(signal) else {
            flow.push(&Refusal::invalid(format!("{signal} is no signal")).into_message(0));
            return;
        };
        let execs = session.execs.borrow();
        let Some(call) = execs.get(&id) else { return };
        if signal == Signal::KILL {
            exec::kill(call.pid, call.confine.as_deref(), &self.processes);
        } else {
            self.processes.signal_group(call.pid, signal);
        }
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
