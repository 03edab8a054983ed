//! The system calls that serving needs. All others fail with EPERM: most of what an attacker would
//! do with a process that he has taken over is not there.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

use super::refused;
use libc::*;
use seccompiler::{
    apply_filter_all_threads, BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Width,
    SeccompCmpOp as Op, SeccompCondition as Condition, SeccompFilter, SeccompRule,
};

/// Allowed with any arguments.
const ALWAYS: &[c_long] = &[
    // Connections.
    SYS_accept4,
    SYS_connect,
    SYS_getpeername,
    SYS_getsockname,
    SYS_getsockopt,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_sendto,
    SYS_setsockopt,
    SYS_shutdown,
    // Their bytes; and the log, and the routes file.
    SYS_close,
    SYS_fcntl,
    SYS_lseek,
    SYS_pipe2,
    SYS_pread64,
    SYS_read,
    SYS_readv,
    SYS_splice,
    SYS_write,
    SYS_writev,
    // Files: the routes, a socket's own, the check of what was given up, and what a panic's
    // backtrace and the allocator read.
    SYS_faccessat,
    SYS_fstat,
    SYS_getcwd,
    SYS_getdents64,
    SYS_newfstatat,
    SYS_openat,
    SYS_readlinkat,
    SYS_statx,
    SYS_unlinkat,
    // Events and time.
    SYS_clock_getres,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    SYS_nanosleep,
    SYS_ppoll,
    // Memory.
    SYS_brk,
    SYS_madvise,
    SYS_mremap,
    SYS_munmap,
    // Threads and their end.
    SYS_exit,
    SYS_exit_group,
    SYS_futex,
    SYS_getcpu,
    SYS_getpid,
    SYS_getrandom,
    SYS_gettid,
    SYS_membarrier,
    SYS_restart_syscall,
    SYS_rseq,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sched_getaffinity,
    SYS_sched_yield,
    SYS_set_robust_list,
    SYS_sigaltstack,
];

/// The older names of calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    SYS_access,
    SYS_epoll_wait,
    SYS_open,
    SYS_poll,
    SYS_readlink,
    SYS_stat,
    SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

/// Of socket(2)'s type what is no flag (linux/net.h, SOCK_TYPE_MASK).
pub const TYPE_MASK: c_int = 0xf;

/// Installs the filter on all threads and those that come; false when the kernel has none.
///
/// # Errors
/// One line that says why it could not be installed.
pub fn install() -> Result<bool, String> {
    let said = |error: &dyn std::fmt::Display| format!("seccomp: {error}");
    refused::watch().map_err(|error| said(&error))?;
    let programs = programs().map_err(|error| said(&error))?;
    for program in &programs {
        match apply_filter_all_threads(program) {
            Ok(()) => {}
            Err(seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error))
                if is_missing(&error) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(said(&error)),
        }
    }
    Ok(true)
}

/// seccomp(2): ENOSYS of a kernel before 3.17, EINVAL of one without filters.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOSYS | EINVAL))
}

/// Three filters, of which the stricter word counts. The first says of clone3, whose flags a filter
/// can't see, that it does not exist: the C library then takes clone (pthread_create). The second
/// says which of those that the last refuses are counted; after the last none can be installed.
fn programs() -> Result<[BpfProgram; 3], BackendError> {
    let architecture = ARCH.try_into()?;
    let compile = |rules, otherwise, action| {
        SeccompFilter::new(rules, otherwise, action, architecture)?.try_into()
    };
    let clone3 = BTreeMap::from([(SYS_clone3, Vec::new())]);
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = ALWAYS
        .iter()
        .chain(OLD)
        .map(|&call| (call, Vec::new()))
        .collect();
    rules.insert(SYS_clone3, Vec::new());
    rules.extend(conditional()?);
    Ok([
        compile(
            clone3,
            SeccompAction::Allow,
            SeccompAction::Errno(ENOSYS as u32),
        )?,
        compile(refused::rules()?, SeccompAction::Allow, SeccompAction::Trap)?,
        compile(
            rules,
            SeccompAction::Errno(EPERM as u32),
            SeccompAction::Allow,
        )?,
    ])
}

/// Allowed with some arguments only.
fn conditional() -> Result<BTreeMap<c_long, Vec<SeccompRule>>, BackendError> {
    let when = |argument, width, op, value| {
        SeccompRule::new(vec![Condition::new(argument, width, op, value)?])
    };
    // No memory that is both data and program.
    let no_code = || when(2, Width::Dword, Op::MaskedEq(PROT_EXEC as u64), 0);
    let thread = CLONE_THREAD as u64;
    // TCP by IPv4 or IPv6, whatever flags its type has.
    let tcp = |family: c_int, protocol: c_int| {
        let stream = Op::MaskedEq(TYPE_MASK as u64);
        SeccompRule::new(vec![
            Condition::new(0, Width::Dword, Op::Eq, family as u64)?,
            Condition::new(1, Width::Dword, stream, SOCK_STREAM as u64)?,
            Condition::new(2, Width::Dword, Op::Eq, protocol as u64)?,
        ])
    };
    // Threads' names, and those of memory areas (prctl(2)).
    let names = [PR_SET_NAME, PR_SET_VMA];
    let names = names.map(|option| when(0, Width::Dword, Op::Eq, option as u64));
    let myself = u64::from(std::process::id());
    Ok(BTreeMap::from([
        (SYS_mmap, vec![no_code()?]),
        (SYS_mprotect, vec![no_code()?]),
        (
            SYS_clone,
            vec![when(0, Width::Qword, Op::MaskedEq(thread), thread)?],
        ),
        (
            SYS_socket,
            vec![
                tcp(AF_INET, 0)?,
                tcp(AF_INET, IPPROTO_TCP)?,
                tcp(AF_INET6, 0)?,
                tcp(AF_INET6, IPPROTO_TCP)?,
            ],
        ),
        (SYS_prctl, names.into_iter().collect::<Result<Vec<_>, _>>()?),
        // Non-blocking sockets, as the standard library makes them.
        (SYS_ioctl, vec![when(1, Width::Dword, Op::Eq, FIONBIO)?]),
        // To abort.
        (SYS_tgkill, vec![when(0, Width::Dword, Op::Eq, myself)?]),
        // A thread's own priority.
        (SYS_sched_setattr, vec![when(0, Width::Dword, Op::Eq, 0)?]),
        // To ask, not to set.
        (SYS_prlimit64, vec![when(2, Width::Qword, Op::Eq, 0)?]),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `act` in a child under the filter; its exit code.
    fn filtered(act: impl Fn() -> i32) -> i32 {
        let programs = programs().unwrap();
        in_child(|| {
            let installed = programs
                .iter()
                .all(|program| seccompiler::apply_filter(program).is_ok());
            if installed {
                act()
            } else {
                99
            }
        })
    }

    /// Runs `act`, which allocates nothing, in a child that counts refused calls; its exit code.
    fn in_child(act: impl Fn() -> i32) -> i32 {
        // SAFETY: the child makes system calls only, allocates nothing and ends by _exit.
        let child = unsafe { fork() };
        if child == 0 {
            let code = if refused::watch().is_ok() { act() } else { 98 };
            // SAFETY: it ends this child.
            unsafe { _exit(code) }
        }
        assert!(child > 0);
        let mut status = 0;
        // SAFETY: the child is ours, the status is written to this stack.
        let waited = unsafe { waitpid(child, &mut status, 0) };
        assert_eq!(waited, child);
        assert!(WIFEXITED(status), "{status:x}");
        WEXITSTATUS(status)
    }

    /// What a call with these arguments fails with; 0 if it does not.
    fn failure(call: c_long, arguments: [c_long; 3]) -> i32 {
        // SAFETY: none of the calls tried below is given a pointer that it may write to.
        let done = unsafe { syscall(call, arguments[0], arguments[1], arguments[2]) };
        if done == -1 {
            // SAFETY: errno is this thread's own.
            unsafe { *__errno_location() }
        } else {
            0
        }
    }

    fn socket(family: c_int, kind: c_int, protocol: c_int) -> [c_long; 3] {
        [family, kind, protocol].map(c_long::from)
    }

    #[test]
    fn calls_that_nothing_makes_by_the_way_are_counted_and_others_only_fail() {
        let tried = || {
            for (call, arguments) in [
                (SYS_execve, [0, 0, 0]),
                (SYS_socket, socket(AF_INET, SOCK_DGRAM, 0)),
                (SYS_socket, socket(AF_INET, SOCK_STREAM, 0)),
                (SYS_clone, [c_long::from(SIGCHLD), 0, 0]),
                (SYS_mmap, [0, 4096, c_long::from(PROT_EXEC)]),
                (SYS_mmap, [0, 0, c_long::from(PROT_READ)]),
                (SYS_getppid, [0, 0, 0]),
                (SYS_getpid, [0, 0, 0]),
            ] {
                failure(call, arguments);
            }
            refused::met() as i32
        };
        assert_eq!(filtered(tried), 4);
    }

    #[test]
    fn a_sigsys_of_somebody_else_is_no_call_that_was_refused() {
        let raised = || {
            // SAFETY: it sends this thread a signal that it handles.
            let raised = unsafe { raise(SIGSYS) };
            raised + refused::met() as i32
        };
        assert_eq!(in_child(raised), 0);
    }

    #[test]
    fn what_serving_never_needs_is_forbidden() {
        let executable = c_long::from(PROT_READ | PROT_EXEC);
        for (name, call, arguments) in [
            ("execve", SYS_execve, [0, 0, 0]),
            ("execveat", SYS_execveat, [-1, 0, 0]),
            ("ptrace", SYS_ptrace, [0, 0, 0]),
            ("mount", SYS_mount, [0, 0, 0]),
            ("setuid", SYS_setuid, [0, 0, 0]),
            ("another's priority", SYS_sched_setattr, [1, 0, 0]),
            ("bpf", SYS_bpf, [0, 0, 0]),
            ("kill", SYS_kill, [0, 0, 0]),
            ("bind", SYS_bind, [-1, 0, 0]),
            ("io_uring_setup", SYS_io_uring_setup, [0, 0, 0]),
            ("a new process", SYS_clone, [c_long::from(SIGCHLD), 0, 0]),
            ("executable memory", SYS_mmap, [0, 4096, executable]),
            (
                "a Unix socket",
                SYS_socket,
                [c_long::from(AF_UNIX), c_long::from(SOCK_STREAM), 0],
            ),
            (
                "a type that is not trapped",
                SYS_socket,
                socket(AF_INET, SOCK_SEQPACKET, 0),
            ),
            ("a UDP socket", SYS_socket, socket(AF_INET, SOCK_DGRAM, 0)),
            (
                "a UDP socket with a flag",
                SYS_socket,
                socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP),
            ),
            (
                "a raw socket",
                SYS_socket,
                socket(AF_INET, SOCK_RAW, IPPROTO_TCP),
            ),
            (
                "SCTP",
                SYS_socket,
                socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP),
            ),
            (
                "another's limits",
                SYS_prlimit64,
                [0, c_long::from(RLIMIT_CORE), 1],
            ),
        ] {
            assert_eq!(filtered(|| failure(call, arguments)), EPERM, "{name}");
        }
        assert_eq!(filtered(|| failure(SYS_clone3, [0, 0, 0])), ENOSYS);
    }

    #[test]
    fn what_serving_needs_is_allowed() {
        let flags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
        for (name, call, arguments) in [
            ("getpid", SYS_getpid, [0, 0, 0]),
            ("sched_yield", SYS_sched_yield, [0, 0, 0]),
            ("TCP", SYS_socket, socket(AF_INET, SOCK_STREAM, 0)),
            (
                "TCP by IPv6",
                SYS_socket,
                socket(AF_INET6, flags, IPPROTO_TCP),
            ),
            ("eventfd2", SYS_eventfd2, [0, 0, 0]),
            ("epoll_create1", SYS_epoll_create1, [0, 0, 0]),
        ] {
            assert_eq!(filtered(|| failure(call, arguments)), 0, "{name}");
        }
    }
}
