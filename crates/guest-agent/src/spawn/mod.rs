//! Starts a process as vfork(2) does: the child runs in the agent's memory until it is another
//! program, and the agent waits for that. Nothing is copied and no pipe tells how exec went: where the
//! guest's code is emulated, an exec of `true` takes some 60 % of what it took with the `fork` of
//! [`std::process`] (benchmarks/MACHINES.md has what it takes).
//!
//! Sources: clone(2), "clone3()", with CLONE_INTO_CGROUP (Linux 5.7) and CLONE_CLEAR_SIGHAND (5.5);
//! posix_spawn(3), whose rules for such a child these are. Older kernels do it in more steps.

mod birth;
mod child;
mod signals;

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use libc::c_char;
use rustix::process::Pid;

use crate::program::Program;
use birth::{birth, Birth};
use child::{Plan, SHELL, STREAMS};
pub use signals::ignore_nothing;
use signals::Quiet;

/// What the child's few calls need, and a frame for each; it is one page that is never touched more.
const STACK: usize = 32 * 1024;

thread_local! {
    /// Where children run until exec: one at a time, as the agent waits.
    static CHILD_STACK: RefCell<Vec<u128>> = RefCell::new(vec![0; STACK / size_of::<u128>()]);
}

/// What a process is born into.
pub struct Place<'a> {
    pub streams: [OwnedFd; STREAMS],
    /// Its standard input is a terminal that is to be its own.
    pub at_terminal: bool,
    /// A directory of cgroup2 for it.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Starts `program` in a session of its own, every signal at its default. Returns when it runs.
///
/// # Errors
/// What the kernel said, of exec mostly; `InvalidInput` for a NUL byte in what must not have one.
pub fn spawn(program: &Program, place: Place<'_>) -> io::Result<Pid> {
    spawn_by(birth, program, place)
}

fn spawn_by(birth: Birth, program: &Program, place: Place<'_>) -> io::Result<Pid> {
    let path = c_string(program.path.as_os_str())?;
    let cwd = c_string(program.cwd.as_os_str())?;
    let arguments = program
        .argv
        .iter()
        .map(|argument| c_string(OsStr::new(argument)))
        .collect::<io::Result<Vec<_>>>()?;
    let variables = program
        .env
        .iter()
        .map(|(name, value)| {
            let mut both = name.clone();
            both.push("=");
            both.push(value);
            c_string(&both)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let streams = above(place.streams, STREAMS as RawFd)?;
    let argv = pointers(arguments.iter());
    let envp = pointers(variables.iter());
    // A script without an interpreter's line is given to the shell by its path.
    let mut by_shell = vec![SHELL.as_ptr(), path.as_ptr()];
    by_shell.extend_from_slice(&argv[1..]);
    let mut plan = Plan {
        path: path.as_ptr(),
        argv: argv.as_ptr(),
        by_shell: by_shell.as_ptr(),
        envp: envp.as_ptr(),
        cwd: cwd.as_ptr(),
        streams: [&streams[0], &streams[1], &streams[2]].map(AsRawFd::as_raw_fd),
        at_terminal: place.at_terminal,
        clears_signals: false,
        enters: -1,
        error: 0,
    };
    // Nothing may interrupt the child while it shares the agent's memory: a handler would act for
    // the agent. It takes the mask over and empties it at the end.
    let _quiet = Quiet::new();
    let pid = CHILD_STACK.with_borrow_mut(|stack| {
        // SAFETY: the plan and all that it points to live until the child has left them.
        unsafe { birth(stack, &mut plan, place.cgroup.map(|fd| fd.as_raw_fd())) }
    })?;
    if plan.error == 0 {
        return Ok(pid);
    }
    // It has ended, and nobody else waits for it: the reaper is a task of this very thread.
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
    {}
    Err(io::Error::from_raw_os_error(plan.error))
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Of each, and null at the end.
fn pointers<'a>(strings: impl Iterator<Item = &'a CString>) -> Vec<*const c_char> {
    strings
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// The same streams by numbers from `least` on: those below are overwritten when they are put in
/// place.
fn above(streams: [OwnedFd; STREAMS], least: RawFd) -> io::Result<[OwnedFd; STREAMS]> {
    if streams.iter().all(|fd| fd.as_raw_fd() >= least) {
        return Ok(streams);
    }
    let [a, b, c] = streams.map(|fd| rustix::io::fcntl_dupfd_cloexec(&fd, least));
    Ok([a?, b?, c?])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use rustix::pipe::{pipe_with, PipeFlags};
    use rustix::process::{waitpid, WaitOptions};

    use super::birth::old_birth;
    use super::signals::set_mask;
    use super::*;

    const WAYS: [(&str, Birth); 2] = [("clone3", birth), ("clone", old_birth)];

    fn program(argv: &[&str]) -> Program {
        Program {
            path: PathBuf::from(argv[0]),
            argv: argv.iter().map(ToString::to_string).collect(),
            env: BTreeMap::from([("WORD".into(), "here".into())]),
            cwd: PathBuf::from("/"),
        }
    }

    /// What it says, and the code it ends with.
    fn said(birth: Birth, program: &Program) -> io::Result<(String, i32)> {
        let (mut ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map(|(a, b)| (File::from(a), b))?;
        let place = Place {
            streams: [File::open("/dev/null")?.into(), theirs.try_clone()?, theirs],
            at_terminal: false,
            cgroup: None,
        };
        let pid = spawn_by(birth, program, place)?;
        let mut said = String::new();
        ours.read_to_string(&mut said)?;
        let (_, status) = waitpid(Some(pid), WaitOptions::empty())?.expect("it is waited for");
        Ok((said, status.exit_status().unwrap_or(-1)))
    }

    #[test]
    fn a_process_has_its_streams_its_environment_its_directory_and_a_session() {
        let script = "echo $WORD; echo err >&2; pwd; read -r _ _ _ _ _ session _ </proc/$$/stat; \
                      [ $session = $$ ]; exit $(( $? + 3 ))";
        for (way, birth) in WAYS {
            let (said, code) = said(birth, &program(&["/bin/sh", "-c", script])).unwrap();
            assert_eq!((said.as_str(), code), ("here\nerr\n/\n", 3), "{way}");
        }
    }

    #[test]
    fn no_signal_is_blocked_or_ignored_in_it_and_the_agents_are_as_before() {
        ignore_nothing();
        let held = 1 << (libc::SIGUSR2 - 1);
        let before = set_mask(held);
        for (way, birth) in WAYS {
            let (said, _) = said(birth, &program(&["/bin/cat", "/proc/self/status"])).unwrap();
            let masks: Vec<&str> = said
                .lines()
                .filter_map(|line| line.strip_prefix("Sig"))
                .filter(|line| !line.starts_with('Q'))
                .collect();
            let none = ["Pnd", "Blk", "Ign", "Cgt"].map(|kind| format!("{kind}:\t{:016x}", 0));
            assert_eq!(masks, none, "{way}");
            assert_eq!(set_mask(held), held, "{way}");
        }
        set_mask(before);
    }

    #[test]
    fn what_exec_says_is_told_and_leaves_no_child() {
        let mut nowhere = program(&["/bin/true"]);
        nowhere.cwd = PathBuf::from("/nonexistent");
        for (way, birth) in WAYS {
            for (program, code) in [
                (&program(&["/nonexistent"]), libc::ENOENT),
                (&program(&["/etc/passwd"]), libc::EACCES),
                (&nowhere, libc::ENOENT),
            ] {
                let why = said(birth, program).unwrap_err();
                assert_eq!(why.raw_os_error(), Some(code), "{way}: {why}");
            }
        }
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        assert_eq!(children, "");
    }

    #[test]
    fn a_script_that_names_no_interpreter_is_the_shells() {
        let path = std::env::temp_dir().join(format!("hyperfleet-script-{}", std::process::id()));
        std::fs::write(&path, "echo $0 $1\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let script = program(&[path.to_str().unwrap(), "argument"]);
        let all = WAYS.map(|(_, birth)| said(birth, &script));
        std::fs::remove_file(&path).unwrap();
        for said in all {
            assert_eq!(said.unwrap().0, format!("{} argument\n", path.display()));
        }
    }

    #[test]
    fn streams_that_stand_in_each_others_place_are_moved_first() {
        let fds = [0, 1, 2].map(|_| OwnedFd::from(File::open("/dev/null").unwrap()));
        let numbers = fds.each_ref().map(AsRawFd::as_raw_fd);
        assert_eq!(above(fds, 0).unwrap().map(|fd| fd.as_raw_fd()), numbers);
        let fds = [0, 1, 2].map(|_| OwnedFd::from(File::open("/dev/null").unwrap()));
        let high = above(fds, 500).unwrap();
        assert!(high.iter().all(|fd| fd.as_raw_fd() >= 500));
    }
}
