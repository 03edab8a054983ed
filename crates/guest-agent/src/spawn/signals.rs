//! Signals around a child that shares the agent's memory.

use std::ptr;

use libc::{c_int, c_long};

/// Has this process ignore no signal, which would stay ignored through exec; what it handles is at
/// its default there (execve(2)). A broken pipe is still an error, not an end, as Rust has it.
pub fn ignore_nothing() {
    extern "C" fn nothing(_: c_int) {}
    default_signals();
    // SAFETY: the handler does nothing, which is safe at any moment.
    unsafe { libc::signal(libc::SIGPIPE, nothing as *const () as libc::sighandler_t) };
}

/// Every signal at its default in this process.
pub fn default_signals() {
    // The kernel's own struct sigaction, all zero: SIG_DFL, no flags, an empty mask.
    let default = [0u64; 4];
    for signal in 1..=64 as c_long {
        // SAFETY: one system call that reads `default`, which is as large as the kernel's struct
        // (rt_sigaction(2)). By libc it could not be said for the two signals that libc keeps for
        // its threads, and GNU make leaves those ignored. KILL and STOP refuse, rightly.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null::<u64>(),
                size_of::<u64>(),
            );
        }
    }
}

/// Sets the calling thread's mask of signals, a bit for each; what it was. By the system call: libc
/// leaves its own two out.
pub fn set_mask(mask: u64) -> u64 {
    let mut old = 0u64;
    // SAFETY: reads and writes these two words (rt_sigprocmask(2)).
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            c_long::from(libc::SIG_SETMASK),
            ptr::from_ref(&mask),
            ptr::from_mut(&mut old),
            size_of::<u64>(),
        );
    }
    old
}

/// No signal comes to this thread while it lives.
pub struct Quiet {
    before: u64,
}

impl Quiet {
    pub fn new() -> Self {
        Self {
            before: set_mask(u64::MAX),
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        set_mask(self.before);
    }
}
