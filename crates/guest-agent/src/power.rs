//! The machine's end: every process signalled, disks in order, power off.

use std::time::Duration;

use rustix::mount::{mount_remount, unmount, MountFlags, UnmountFlags};
use rustix::process::Signal;
use rustix::system::{reboot, RebootCommand};

use crate::failure::say;

/// How often everything is killed, and how long it may take to be gone each time; a process that
/// hangs in the kernel never is.
pub const KILL_ROUNDS: u32 = 10;
pub const KILL_ROUND: Duration = Duration::from_millis(200);

/// Signals every process but the agent, which is PID 1.
pub fn signal_everyone(signal: Signal) {
    debug_assert!(rustix::process::getpid().is_init());
    // SAFETY: kill(2) touches no memory of ours. As PID 1 it leaves the caller out.
    unsafe { libc::kill(-1, signal.as_raw()) };
}

/// Writes everything to the disks, lets go of them, powers off. Does not return.
pub fn off() -> ! {
    rustix::fs::sync();
    for target in mounted_disks().iter().rev() {
        if target == "/" {
            if let Err(why) = mount_remount("/", MountFlags::RDONLY, c"") {
                say(format_args!("cannot make the root disk read-only: {why}"));
            }
        } else {
            let _ = unmount(target.as_str(), UnmountFlags::DETACH);
        }
    }
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    restart()
}

/// Ends the machine at once, after a failure: with `-no-reboot` QEMU exits, and a kernel that
/// cannot power off still restarts.
pub fn restart() -> ! {
    let _ = reboot(RebootCommand::Restart);
    // Not allowed, then: PID 1's end makes the kernel panic, and panic=-1 restart.
    std::process::exit(1)
}

/// Where file systems on block devices are mounted, in the order of mounting.
fn mounted_disks() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (source, target) = (fields.next()?, fields.next()?);
            (target == "/" || source.starts_with("/dev/")).then(|| unescape(target))
        })
        .collect()
}

/// Space, tab, newline and backslash stand as `\ooo` in a mount table (proc(5)).
fn unescape(field: &str) -> String {
    let mut plain = field.to_owned();
    for (escape, byte) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        plain = plain.replace(escape, byte);
    }
    plain
}

#[cfg(test)]
mod tests {
    #[test]
    fn mount_points_with_spaces_are_found() {
        assert_eq!(super::unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
