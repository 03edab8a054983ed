//! One exec call: starts the process, carries its streams, tells how it ended.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use hyperfleet_wire::guest::{Exec, FromGuest};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{pipe_with, PipeFlags};
use rustix::process::{Pid, Signal};
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

use crate::answers::Refusal;
use crate::confines::{Confine, Confines};
use crate::credit::Credit;
use crate::leftovers::Leftovers;
use crate::output::{Kind, Output};
use crate::processes::{Ended, Processes};
use crate::program::Program;
use crate::spawn::{spawn, Place};
use crate::stdin::Stdin;
use crate::terminal::{self, Terminal};
use crate::way::Way;

/// Processes of exec calls that may run at once, those of ended sessions counted.
pub const MAX_EXECS: usize = 256;

/// A process that has been started, before its streams are carried.
pub struct Running {
    pub handles: Handles,
    /// What of its output may be told, if that is counted.
    pub credit: Option<Rc<Credit>>,
    output: Streams,
    ended: oneshot::Receiver<Ended>,
}

/// By what a process is reached while it runs.
#[derive(Clone)]
pub struct Handles {
    pub pid: Pid,
    /// Where `stdin` messages go, if the call brings any.
    pub stdin: Option<Rc<Stdin>>,
    /// All its processes, where the kernel keeps them together.
    pub confine: Option<Rc<Confine>>,
    /// Its terminal, if it has one.
    pub terminal: Option<Rc<Terminal>>,
}

/// How a call's process ended; the fields are those of [`FromGuest::Exited`].
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    timed_out: bool,
    truncated: bool,
}

impl Ending {
    /// Of a process that ended by itself.
    #[cfg(test)]
    pub fn of_code(code: i32) -> Self {
        Self {
            code: Some(code),
            signal: None,
            timed_out: false,
            truncated: false,
        }
    }

    /// As the ending of call `id`.
    pub fn into_message(self, id: u32) -> FromGuest {
        FromGuest::Exited {
            id,
            code: self.code,
            signal: self.signal,
            timed_out: self.timed_out,
            truncated: self.truncated,
        }
    }
}

impl Running {
    /// How its process ends, what holds its processes, and where its output comes from: for whoever
    /// carries that otherwise than [`carry`].
    pub fn apart(
        self,
    ) -> (
        oneshot::Receiver<Ended>,
        Option<Rc<Confine>>,
        Vec<pipe::Receiver>,
    ) {
        let output = match self.output {
            Streams::Pipes { stdout, stderr } => vec![stdout, stderr],
            Streams::Terminal(near) => vec![near],
        };
        (self.ended, self.handles.confine, output)
    }
}

/// Where a process's output comes from.
enum Streams {
    Pipes {
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
    },
    Terminal(pipe::Receiver),
}

/// Starts the process of `call` in a session of its own.
///
/// # Errors
/// Refusals with the codes of [`Program::find`], `busy` at [`MAX_EXECS`], `failed` for what the
/// kernel would not do.
pub fn start(call: &Exec, processes: &Processes, confines: &Confines) -> Result<Running, Refusal> {
    if processes.count() >= MAX_EXECS {
        return Err(Refusal::busy(format!(
            "{MAX_EXECS} processes of exec calls run already"
        )));
    }
    let program = Program::find(call)?;
    let confine = confines.make().map(Rc::new);
    let ends = Ends::open(call).map_err(|why| match call.terminal {
        Some(_) => Refusal::failed(format!("cannot make a terminal: {why}")),
        None => Refusal::failed(format!("cannot carry its streams: {why}")),
    })?;
    let place = Place {
        streams: ends.far,
        at_terminal: ends.terminal.is_some(),
        cgroup: confine.as_deref().map(Confine::directory),
    };
    let pid = spawn(&program, place).map_err(|why| refusal(&program.argv[0], &why))?;
    Ok(Running {
        handles: Handles {
            pid,
            stdin: ends.stdin,
            confine,
            terminal: ends.terminal,
        },
        credit: call
            .output_window
            .map(|window| Credit::new(window as usize)),
        output: ends.output,
        ended: processes.enter(pid),
    })
}

/// The streams of a process that is about to start: our ends, and its own.
struct Ends {
    terminal: Option<Rc<Terminal>>,
    stdin: Option<Rc<Stdin>>,
    output: Streams,
    far: [OwnedFd; 3],
}

impl Ends {
    fn open(call: &Exec) -> io::Result<Self> {
        match call.terminal {
            Some(size) => {
                let (terminal, far) = Terminal::open(size)?;
                let input =
                    || io::Result::Ok(Stdin::new(terminal.input()?, Some(terminal::END_OF_FILE)));
                Ok(Self {
                    stdin: call.stdin.then(input).transpose()?,
                    output: Streams::Terminal(terminal.output()?),
                    far: [far.try_clone()?, far.try_clone()?, far],
                    terminal: Some(Rc::new(terminal)),
                })
            }
            None => {
                let (stdin, far_stdin) = stdin(call.stdin)?;
                let (stdout, far_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
                let (stderr, far_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
                Ok(Self {
                    terminal: None,
                    stdin,
                    output: Streams::Pipes {
                        stdout: pipe::Receiver::from_owned_fd(stdout)?,
                        stderr: pipe::Receiver::from_owned_fd(stderr)?,
                    },
                    far: [far_stdin, far_stdout, far_stderr],
                })
            }
        }
    }
}

/// Our end of standard input and the process's, which is empty if the call brings none.
fn stdin(wanted: bool) -> io::Result<(Option<Rc<Stdin>>, OwnedFd)> {
    if wanted {
        let (far, near) = pipe_with(PipeFlags::CLOEXEC)?;
        let near = pipe::Sender::from_owned_fd(near)?;
        return Ok((Some(Stdin::new(near, None)), far));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok((None, rustix::fs::open("/dev/null", flags, Mode::empty())?))
}

/// Kills all processes of a call: the group that `pid` leads, and whatever left it.
pub fn kill(pid: Pid, confine: Option<&Confine>, processes: &Processes) {
    processes.signal_group(pid, Signal::KILL);
    if let Some(confine) = confine {
        confine.kill();
    }
}

/// What exec itself said, after the look-up found the program fit.
fn refusal(name: &str, why: &io::Error) -> Refusal {
    match why.kind() {
        // The file is there: its interpreter (of a script, or ld.so) is not.
        io::ErrorKind::NotFound => Refusal::new(
            "not_found",
            format!("{name}: the interpreter it asks for is not found"),
        ),
        io::ErrorKind::PermissionDenied => Refusal::not_executable(name),
        _ if why.raw_os_error() == Some(libc::ENOEXEC) => {
            Refusal::new("not_executable", format!("{name}: {why}"))
        }
        _ => Refusal::failed(format!("cannot start {name}: {why}")),
    }
}

/// Carries the streams of `call` on their way until its process has ended; gives how it did.
pub async fn carry(
    call: Exec,
    running: Running,
    processes: Processes,
    leftovers: Leftovers,
    way: &Way,
) -> Ending {
    let Running {
        handles,
        credit: _,
        output,
        mut ended,
    } = running;
    let (gone, is_gone) = watch::channel(false);
    let end = async {
        let mut timed_out = false;
        let limit = async {
            match call.timeout_ms {
                0 => std::future::pending().await,
                limit => tokio::time::sleep(Duration::from_millis(limit)).await,
            }
        };
        let how = tokio::select! {
            how = &mut ended => how,
            () = limit => {
                timed_out = true;
                handles.kill(&processes);
                ended.await
            }
        };
        let _ = gone.send(true);
        // The sender lives in the table of processes until it has sent.
        (how.unwrap_or(Ended::Code(0)), timed_out)
    };
    let limit = call.output_limit;
    let mut out = Output::new(Kind::Stdout, limit, way);
    let mut err = Output::new(Kind::Stderr, limit, way);
    let tell = async {
        match output {
            Streams::Pipes { stdout, stderr } => {
                tokio::join!(
                    out.carry(stdout, is_gone.clone(), &leftovers),
                    err.carry(stderr, is_gone, &leftovers),
                );
            }
            Streams::Terminal(near) => out.carry_terminal(near, is_gone).await,
        }
    };
    let work = async { tokio::join!(end, tell) };
    let feed = async {
        if let Some(stdin) = &handles.stdin {
            stdin.carry(way).await;
        }
        std::future::pending::<()>().await;
    };
    let (how, timed_out) = tokio::select! {
        (end, ()) = work => end,
        // Whoever holds the other end of standard input, it is given up when the process is gone.
        () = feed => unreachable!("feeding never completes"),
    };
    let (code, signal) = match how {
        Ended::Code(code) => (Some(code), None),
        Ended::Signal(signal) => (None, Some(signal)),
    };
    Ending {
        code,
        signal,
        timed_out,
        truncated: out.truncated || err.truncated,
    }
}
