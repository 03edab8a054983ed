//! What the child does between its birth and exec.

use std::os::fd::RawFd;

use libc::{c_char, c_int};

use super::signals::{default_signals, set_mask};

/// What runs a file that names no interpreter, as shells and execvp(3) have it.
pub const SHELL: &std::ffi::CStr = c"/bin/sh";
/// Standard input, output and error.
pub const STREAMS: usize = 3;

/// All that the child reads, and where it writes what stopped it.
#[repr(C)]
pub struct Plan {
    pub path: *const c_char,
    pub argv: *const *const c_char,
    pub by_shell: *const *const c_char,
    pub envp: *const *const c_char,
    pub cwd: *const c_char,
    pub streams: [RawFd; STREAMS],
    pub at_terminal: bool,
    /// Whether it has handlers that it must take back itself.
    pub clears_signals: bool,
    /// A directory of cgroup2 that it must enter itself; -1: none.
    pub enters: RawFd,
    pub error: c_int,
}

/// The child: from the agent's memory to a program of its own. Makes system calls, and nothing
/// else: no lock, no allocation.
///
/// # Safety
/// `plan` must be whole; to be called in a child of clone3 or clone as above only.
pub unsafe extern "C" fn become_program(plan: *mut Plan) -> ! {
    // SAFETY: the agent waits, so nobody else looks at it.
    let plan = unsafe { &mut *plan };
    // SAFETY: pointers are to strings that end with NUL, and to arrays of such that end with null.
    unsafe {
        match prepare(plan) {
            Ok(()) => {
                libc::execve(plan.path, plan.argv, plan.envp);
                if errno() == libc::ENOEXEC {
                    libc::execve(SHELL.as_ptr(), plan.by_shell, plan.envp);
                }
                plan.error = errno();
            }
            Err(error) => plan.error = error,
        }
        libc::_exit(127)
    }
}

/// What comes before exec; the error's number.
///
/// # Safety
/// As for [`become_program`].
unsafe fn prepare(plan: &Plan) -> Result<(), c_int> {
    // SAFETY: system calls with the plan's own values.
    unsafe {
        if plan.enters >= 0 {
            enter(plan.enters);
        }
        checked(libc::setsid())?;
        for (target, stream) in plan.streams.iter().enumerate() {
            checked(libc::dup2(*stream, target as c_int))?;
        }
        if plan.at_terminal {
            checked(libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0))?;
        }
        checked(libc::chdir(plan.cwd))?;
        if plan.clears_signals {
            default_signals();
        }
        set_mask(0);
    }
    Ok(())
}

/// Moves the calling process into the cgroup at `directory`. Where that can't be it stays outside,
/// and is still killed with its group.
///
/// # Safety
/// A child's, as [`become_program`].
unsafe fn enter(directory: RawFd) {
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: system calls; 0 is the writer itself.
    unsafe {
        let entrance = libc::openat(directory, c"cgroup.procs".as_ptr(), flags);
        libc::write(entrance, c"0".as_ptr().cast(), 1);
        libc::close(entrance);
    }
}

fn checked(result: c_int) -> Result<(), c_int> {
    if result < 0 {
        return Err(errno());
    }
    Ok(())
}

fn errno() -> c_int {
    // SAFETY: the calling thread's own.
    unsafe { *libc::__errno_location() }
}
