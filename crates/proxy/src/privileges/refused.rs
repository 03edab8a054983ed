//! The system calls that nothing in this process makes by the way. Who tries one has taken the
//! process over, or a part of it is not what we think: so each is counted, where the filter lets
//! all others that serving does not need fail without a word.
//!
//! Of a call that a filter fails by itself (SECCOMP_RET_ERRNO) nobody is told. These few it hands
//! to the process instead (SECCOMP_RET_TRAP, seccomp(2)): the handler of SIGSYS counts the call
//! and has it fail as the others do. Only these few: a trap that comes while a thread has all
//! signals blocked, as the C library has around clone, ends the process, and an innocent call of a
//! library's new version is not to do that.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libc::*;
use seccompiler::{
    BackendError, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompRule,
};

/// Trapped with any arguments.
const ALWAYS: &[c_long] = &[
    SYS_bind,
    SYS_bpf,
    SYS_execve,
    SYS_execveat,
    SYS_kill,
    SYS_listen,
    SYS_mount,
    SYS_perf_event_open,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_ptrace,
    SYS_setgid,
    SYS_setns,
    SYS_setuid,
    SYS_unshare,
    SYS_userfaultfd,
];

/// The older names of calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[SYS_fork, SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

/// `si_code` of a SIGSYS that a filter raised (asm-generic/siginfo.h).
const SYS_SECCOMP: c_int = 1;

static REFUSED: AtomicU64 = AtomicU64::new(0);

/// How many calls were refused so.
pub fn met() -> u64 {
    REFUSED.load(Relaxed)
}

/// What is trapped: nothing where the handler does not know the registers.
pub fn rules() -> Result<BTreeMap<c_long, Vec<SeccompRule>>, BackendError> {
    if cfg!(not(any(target_arch = "x86_64", target_arch = "aarch64"))) {
        return Ok(BTreeMap::new());
    }
    let when = |argument, mask: c_int, value: c_int| {
        let masked = Op::MaskedEq(mask as u64);
        let condition = Condition::new(argument, Width::Dword, masked, value as u64)?;
        SeccompRule::new(vec![condition])
    };
    let code = || when(2, PROT_EXEC, PROT_EXEC);
    let of_type = |wanted| when(1, super::seccomp::TYPE_MASK, wanted);
    let family = |wanted| when(0, c_int::MAX, wanted);
    let mut rules: BTreeMap<_, _> = ALWAYS
        .iter()
        .chain(OLD)
        .map(|&call| (call, Vec::new()))
        .collect();
    rules.extend([
        (SYS_clone, vec![when(0, CLONE_THREAD, 0)?]),
        (SYS_mmap, vec![code()?]),
        (SYS_mprotect, vec![code()?]),
        (
            SYS_socket,
            vec![
                of_type(SOCK_DGRAM)?,
                of_type(SOCK_RAW)?,
                family(AF_UNIX)?,
                family(AF_NETLINK)?,
                family(AF_PACKET)?,
            ],
        ),
    ]);
    Ok(rules)
}

/// Counts them from here on: to be called before the filter is there.
///
/// # Errors
/// What sigaction(2) says.
pub fn watch() -> io::Result<()> {
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = refused;
    // SAFETY: all zeros is a valid sigaction, without flags and with an empty mask.
    let mut action: sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as sighandler_t;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    // SAFETY: the action lives on this stack, and its handler takes what SA_SIGINFO gives.
    match unsafe { sigaction(SIGSYS, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Does what is safe in a signal's handler only (signal-safety(7)): no memory, no lock.
extern "C" fn refused(_: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives both to a handler with SA_SIGINFO, and nobody else has them.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<ucontext_t>()) };
    if info.si_code != SYS_SECCOMP {
        return;
    }
    // The call's number still stands where its result is to come; it is left there by the kernel.
    let result = result_of(context);
    let call = std::mem::replace(result, -i64::from(EPERM) as _);
    if REFUSED.fetch_add(1, Relaxed) == 0 {
        say(call as i64);
    }
}

/// The register in which a system call's result is.
#[cfg(target_arch = "x86_64")]
fn result_of(context: &mut ucontext_t) -> &mut greg_t {
    &mut context.uc_mcontext.gregs[REG_RAX as usize]
}

#[cfg(target_arch = "aarch64")]
fn result_of(context: &mut ucontext_t) -> &mut u64 {
    &mut context.uc_mcontext.regs[0]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn result_of(_: &mut ucontext_t) -> &mut i64 {
    unreachable!("nothing is trapped here")
}

/// The first is told; who floods is not to flood the log.
fn say(call: i64) {
    let mut text = [0; 128];
    let mut left = &mut text[..];
    let _ = writeln!(
        left,
        "hyperfleet-proxy: system call {call} was refused; further ones are counted"
    );
    let length = 128 - left.len();
    // SAFETY: so many bytes stand on this stack. A log that is gone is no reason to end.
    unsafe { write(STDERR_FILENO, text.as_ptr().cast(), length) };
}
