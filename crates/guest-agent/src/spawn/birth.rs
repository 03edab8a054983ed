//! The calls that make the child.

use std::arch::asm;
use std::io;
use std::os::fd::RawFd;
use std::ptr;

use libc::{c_int, c_void};
use rustix::process::Pid;

use super::child::{become_program, Plan};

/// Makes the child: its stack, what it reads, a directory of cgroup2 for it.
pub type Birth = unsafe fn(&mut [u128], &mut Plan, Option<RawFd>) -> io::Result<Pid>;

/// `struct clone_args`, version 2 (clone(2)).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Linux's include/uapi/linux/sched.h; libc has them in types that do not hold them.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes the child by the newest way that the kernel has.
///
/// # Safety
/// As for [`clone3`].
pub unsafe fn birth(stack: &mut [u128], plan: &mut Plan, cgroup: Option<RawFd>) -> io::Result<Pid> {
    let mut arguments = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | CLONE_CLEAR_SIGHAND,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: size_of_val(stack) as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup as u64;
    }
    // SAFETY: the caller's.
    match unsafe { clone3(&arguments, plan) } {
        // Processes or memory are used up: no other way has more.
        Err(why) if matches!(why.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM)) => Err(why),
        // SAFETY: the caller's.
        Err(_) => unsafe { old_birth(stack, plan, cgroup) },
        Ok(pid) => Ok(pid),
    }
}

/// clone3(2) with a child that runs [`become_program`]. libc has no function for it.
///
/// # Safety
/// `plan` and all that it points to must live, and be left alone, until this returns; the flags
/// must hold CLONE_VM and CLONE_VFORK, and the stack must be nobody else's.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(arguments: &CloneArgs, plan: *mut Plan) -> io::Result<Pid> {
    let result: isize;
    // SAFETY: the child has a stack of its own, aligned as calls need it, and comes back from none
    // of its calls; it finds registers as they were. In the agent this is a system call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {plan}",
            "call {child}",
            "ud2",
            "2:",
            plan = in(reg) plan,
            child = sym become_program,
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") arguments,
            in("rsi") size_of::<CloneArgs>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result as i32));
    }
    Ok(Pid::from_raw(result as i32).expect("a child's number is above zero"))
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn clone3(_: &CloneArgs, _: *mut Plan) -> io::Result<Pid> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The same by clone(2), which every kernel has; the child does what that does not.
///
/// # Safety
/// As for [`clone3`].
pub unsafe fn old_birth(
    stack: &mut [u128],
    plan: &mut Plan,
    cgroup: Option<RawFd>,
) -> io::Result<Pid> {
    extern "C" fn child(plan: *mut c_void) -> c_int {
        // SAFETY: what clone was given.
        unsafe { become_program(plan.cast()) }
    }
    plan.clears_signals = true;
    plan.enters = cgroup.unwrap_or(-1);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end.cast();
    // SAFETY: the stack grows down from its end; the rest is the caller's.
    let pid = unsafe { libc::clone(child, top, flags, ptr::from_mut(plan).cast()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid).expect("a child's number is above zero"))
}
