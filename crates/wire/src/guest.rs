//! Host ↔ guest messages, in [`crate::slip`] frames.
//!
//! A session begins with [`ToGuest::Hello`]; the guest answers [`FromGuest::Welcome`] with the
//! same nonce. The host ignores everything before that welcome: it belongs to whoever talked
//! before. A new hello ends the session before it: the guest forgets that session's unanswered
//! calls (their processes run on to their own time limits, their output is dropped). So does the
//! host's leaving, where the guest sees it. A hello with the nonce of the session that stands is
//! welcomed again and changes nothing: hosts repeat it until the welcome comes.
//!
//! A process that has a name is kept: it outlives the call, and the session, that began it. A call
//! is attached to it, or none; its output waits in the guest until the host has taken it.
//!
//! Every call carries an `id` that the host chose and that is free in its session; each gets
//! exactly one ending: `done`, `exited`, `listeners`, `news`, `relay`, `kept_processes`, or
//! `refused`. Many run at once.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Version of these messages, shaken in hello and welcome.
pub const PROTOCOL: u32 = 1;
/// Most data bytes in one `stdin`, `stdout` or `stderr` message.
pub const MAX_CHUNK: usize = 64 * 1024;
/// Most bytes of `stdin` of one exec that the host may have under way: sent, and not yet told as
/// taken by `stdin_taken`. So a process that does not read holds up itself alone.
pub const STDIN_WINDOW: usize = 256 * 1024;
/// Most bytes of `stdin` of a kept process that may be under way. Over [`STDIN_WINDOW`] the host goes
/// when it sends what it holds before `detach`, so that this is there for whoever attaches next.
pub const KEPT_STDIN: usize = STDIN_WINDOW + 1024 * 1024;
/// Most processes that are kept, and told of in one `kept_processes` message.
pub const MAX_KEPT: usize = 32;
/// Most bytes of its arguments that a kept process is shown with, so that all fit one frame.
pub const MAX_SHOWN: usize = 4096;
/// Most listeners told in one `listeners` message; `truncated` says that there are more. At 66
/// bytes each at most they fit one frame.
pub const MAX_LISTENERS: usize = 2048;

/// What the host says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGuest {
    /// Opens a session. The guest picks its own [`PROTOCOL`] if it lies within min..=max, else
    /// refuses with `id` 0 and code `version`. `seed`: random bytes for the guest's kernel, taken
    /// before anything that is random is told or done in the session: a clone's memory is its
    /// template's. Older hosts send none.
    Hello {
        nonce: u64,
        min: u32,
        max: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<ByteBuf>,
    },
    /// Name, network and clock of the machine; may come again (after adoption). With the first one
    /// the guest mounts its disk; before it, nothing can be run.
    Configure { id: u32, config: Config },
    /// Starts a process in a process group (session) of its own.
    Exec { id: u32, exec: Exec },
    /// Starts a process as `exec` does and keeps it under `name`, a DNS label that no kept process
    /// has; its output is counted by `output_window` whatever `exec` says. Answered with `attached`
    /// and goes on as `exec`. Refused with `name_taken`, and with `busy` when [`MAX_KEPT`] run.
    Keep {
        id: u32,
        name: String,
        output_window: u32,
        exec: Exec,
    },
    /// Attaches to the process that is kept under `name`, in place of the call that is attached, which
    /// is refused with `replaced`. Answered with `attached`; then all its output that no host has
    /// taken is told and it goes on as `exec`. Refused with `no_process`.
    Attach {
        id: u32,
        name: String,
        output_window: u32,
    },
    /// Nobody takes what call `id`, a `keep` or `attach`, tells any more: it ends with `done` unless
    /// it has ended, and its process is kept as it is, ended or not. For other calls: no effect.
    Detach { id: u32 },
    /// The end that call `id`, a `keep` or `attach`, was told has been taken: its process is
    /// forgotten. No answer.
    EndTaken { id: u32 },
    /// Asks for all kept processes.
    Kept { id: u32 },
    /// Kills the process that is kept under `name` and forgets it; a call that is attached hears of
    /// its end. Answered with `done`; refused with `no_process`.
    Forget { id: u32, name: String },
    /// Bytes for the process's standard input, at most [`MAX_CHUNK`] and within
    /// [`STDIN_WINDOW`]; `eof` closes it. For an exec that has ended: no effect, no answer.
    Stdin { id: u32, data: ByteBuf, eof: bool },
    /// So many more bytes of output of exec `id` were taken: they may be told anew. For an exec that
    /// has ended: no effect, no answer.
    OutputTaken { id: u32, bytes: u32 },
    /// The terminal of exec `id` has another size. No answer, whether it has one or not.
    Resize { id: u32, size: Size },
    /// Signals the whole process group of exec `id`; KILL reaches those that left it too, where
    /// the guest has cgroup2. No answer of its own; none at all for an exec that has ended.
    Kill { id: u32, signal: i32 },
    /// Asks for every listening TCP port.
    Ports { id: u32 },
    /// Has the guest run the machine's own command from now on. The first in a boot counts, others
    /// change nothing. Answered with `done` when it is taken; what becomes of it is told by `news`.
    Supervise { id: u32, command: Command },
    /// Asks to be told when something has happened that is worth a look: a TCP socket began or ceased
    /// to listen, or the machine's command is not as it was. Answered with `news` as soon as their number is not `seen`, which for 0 is at
    /// once; and as things stand when another `watch` of the session takes its place. A guest
    /// that can't hear of sockets says nothing of them.
    Watch { id: u32, seen: u64 },
    /// Asks for a port on the guest's address whose connections are relayed to the server that
    /// listens on `address`:`port` within the guest (`127.0.0.1`, `::1`, or an IPv6-only `::`).
    /// The same target gives the same relay port again.
    Relay { id: u32, address: String, port: u16 },
    /// Ends all processes (TERM, then KILL after `grace_ms`), syncs, unmounts, powers off.
    /// Answered with `done` before the power goes.
    Shutdown { id: u32, grace_ms: u32 },
    /// Writes what waits in memory to the disks. Answered with `done`.
    Sync { id: u32 },
    /// Answered with `done`.
    Ping { id: u32 },
}

impl ToGuest {
    /// The id of a message that begins a call.
    pub fn call_id(&self) -> Option<u32> {
        match *self {
            Self::Configure { id, .. }
            | Self::Exec { id, .. }
            | Self::Keep { id, .. }
            | Self::Attach { id, .. }
            | Self::Kept { id }
            | Self::Forget { id, .. }
            | Self::Ports { id }
            | Self::Supervise { id, .. }
            | Self::Watch { id, .. }
            | Self::Relay { id, .. }
            | Self::Shutdown { id, .. }
            | Self::Sync { id }
            | Self::Ping { id } => Some(id),
            Self::Hello { .. }
            | Self::Detach { .. }
            | Self::EndTaken { .. }
            | Self::Stdin { .. }
            | Self::OutputTaken { .. }
            | Self::Resize { .. }
            | Self::Kill { .. } => None,
        }
    }
}

/// What the guest says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGuest {
    /// The answer to `hello`. `boot_id` is the guest kernel's, new at each boot.
    Welcome {
        nonce: u64,
        protocol: u32,
        agent: String,
        boot_id: String,
    },
    /// The call ended well and has nothing to tell.
    Done { id: u32 },
    /// The call is attached to its kept process. `offset`: how much output it had made before what
    /// is told now, of which the last `dropped` bytes were taken by nobody; `input`: bytes that
    /// earlier hosts sent and that are under way still; `stdin`: whether more may be sent;
    /// `terminal`: whether it is at one; `stdin_limit`: [`KEPT_STDIN`]. Older guests tell none, and
    /// take [`STDIN_WINDOW`].
    Attached {
        id: u32,
        offset: u64,
        dropped: u64,
        input: u32,
        stdin: bool,
        terminal: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stdin_limit: Option<u32>,
    },
    /// The answer to `kept`, in the order in which they were started.
    KeptProcesses {
        id: u32,
        processes: Vec<KeptProcess>,
    },
    /// A piece of a process's standard output.
    Stdout { id: u32, data: ByteBuf },
    /// A piece of a process's standard error.
    Stderr { id: u32, data: ByteBuf },
    /// So many more bytes of `stdin` were taken: by the process, or dropped because it closed
    /// its standard input.
    StdinTaken { id: u32, bytes: u32 },
    /// The process of exec `id` has ended. Exactly one of `code` and `signal` (its number) is set.
    /// `timed_out`: the time limit killed it. `truncated`: a stream passed its `output_limit`.
    Exited {
        id: u32,
        code: Option<i32>,
        signal: Option<i32>,
        timed_out: bool,
        truncated: bool,
    },
    /// The answer to `ports`.
    Listeners {
        id: u32,
        listeners: Vec<Listener>,
        truncated: bool,
    },
    /// The answer to `watch`: how many things have happened since the guest's boot, from 1 on.
    /// `command`: the machine's own, as it stands, if it has one.
    News {
        id: u32,
        number: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<CommandState>,
    },
    /// The answer to `relay`: the port on the guest's address.
    Relay { id: u32, port: u16 },
    /// The call could not be done (`id` 0: a message that named no call). `code` is one of
    /// `version`, `unknown_message`, `invalid`, `not_found` (the program), `not_executable` (the
    /// program), `busy` (a bound), `name_taken`, `no_process`, `replaced`, `failed`.
    Refused {
        id: u32,
        code: String,
        message: String,
    },
}

/// What the guest is told about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// A DNS label.
    pub hostname: String,
    /// The wall clock, nanoseconds since 1970.
    pub time_ns: u64,
    /// The network card's addresses; `None` leaves only loopback.
    pub network: Option<Network>,
    /// A second card, for what the guest itself connects to: if it is there, default route and
    /// resolvers are this one's alone. Not every machine has one; older hosts do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outward: Option<Network>,
    /// Disks to mount besides the root disk, in this order. Older hosts do not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
}

/// A disk with an ext4 file system, which is grown to the disk's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// By which its device is found.
    pub serial: String,
    /// Where it is mounted; made if there is nothing.
    pub path: String,
}

/// IPv4 of a network card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Address with prefix length, `10.0.2.15/24`.
    pub address: String,
    /// The default route's gateway.
    pub gateway: Option<String>,
    /// For /etc/resolv.conf.
    pub dns: Vec<String>,
    /// The card's hardware address, `52:00:00:00:00:01`; `None`: there is one card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// If no card has `mac`: the one that has this address is to have it. A clone's card has its
    /// template's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_as: Option<String>,
}

/// One process to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// Program (looked up in `PATH` of `env`, or the agent's default) and arguments; not empty.
    pub argv: Vec<String>,
    /// Added to the agent's default environment (PATH, HOME, USER, LANG…), later ones win.
    pub env: Vec<(String, String)>,
    /// Working directory; `/` unless told.
    pub cwd: Option<String>,
    /// After so many milliseconds all its processes are killed, as by `kill` with KILL; 0: never.
    pub timeout_ms: u64,
    /// Whether `stdin` messages follow; without, standard input is empty.
    pub stdin: bool,
    /// Bytes kept of each of stdout and stderr, the first ones; the rest is read and dropped.
    pub output_limit: u64,
    /// Bytes of stdout and stderr together that may be under way: told, and not yet granted anew by
    /// `output_taken`. Beyond them the process is held up. `None`: no such bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_window: Option<u32>,
    /// It gets a terminal of this size, as its controlling one. All its output is `stdout`; the end
    /// of its input is the terminal's end-of-file character; when the session ends, it hangs up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Size>,
}

/// A process that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptProcess {
    pub name: String,
    /// The first of its arguments, [`MAX_SHOWN`] bytes of them.
    pub argv: Vec<String>,
    /// When it was started, by the guest's clock: nanoseconds since 1970.
    pub since_ns: u64,
    /// Whether a call is attached.
    pub attached: bool,
    pub terminal: bool,
    /// As of `exited`; neither: it runs.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// Bytes of its output that nobody has taken, and how many right before them were dropped.
    pub untaken: u64,
    pub dropped: u64,
}

/// The machine's own command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// As of [`Exec`], so are `env` and `cwd`.
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: Option<String>,
    pub restart: Restart,
}

/// After which ends a command is started again, with growing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    Never,
    /// All but an exit with 0.
    OnFailure,
    Always,
}

/// How it stands with the machine's own command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandState {
    pub state: CommandPhase,
    /// Of its last end, as of `exited`; neither: it has not ended yet. A command that could not be
    /// started has ended with 127 (no such program) or 126.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
}

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandPhase {
    Running,
    /// It has ended and is started again in a while.
    Waiting,
    /// It has ended and stays so.
    Exited,
}

/// Of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// One listening TCP socket of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub port: u16,
    /// What it is bound to: `0.0.0.0`, `127.0.0.1`, `::`, `::1`, …
    pub address: String,
    /// Whether a connection to the guest's IPv4 address reaches it (true for `0.0.0.0`, that
    /// address itself, and a `::` that is not IPv6-only); if not, a relay does.
    pub direct: bool,
}
