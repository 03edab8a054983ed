//! Who of this process' threads goes first where they share a CPU, as the kernel is asked
//! (sched(7), sched_setattr(2)). Nothing depends on it but the time that requests wait.

use std::mem::size_of;

use libc::{c_int, sched_attr, SYS_sched_setattr, SCHED_OTHER};

/// What a worker runs before others of its priority have their turn. Who asks for less than
/// another is let in when it wakes, even if the other's own turn is not over (Linux 6.12 and
/// later; earlier kernels do not look at it).
const SLICE_NS: u64 = 100_000;
/// A tenth of a worker's share where both want all of a CPU (sched(7), "The nice value").
const BEHIND: c_int = 10;
const LEAST: c_int = 19;

/// The nice value that the process was started with.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    nice: c_int,
}

impl Turns {
    /// To be asked before the process is confined.
    pub fn of_process() -> Turns {
        // SAFETY: getpriority takes and returns numbers. Its -1 is a nice value or an error; both
        // are as good here.
        let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        Turns { nice }
    }

    /// The calling thread answers requests: it has its turn as soon as it wakes.
    pub fn first(self) {
        ask(self.nice, SLICE_NS);
    }

    /// The calling thread's work can wait, where workers want the CPU.
    pub fn behind(self) {
        ask((self.nice + BEHIND).min(LEAST), 0);
    }
}

/// `slice_ns`: 0 for the kernel's own. What it refuses stays as it was.
fn ask(nice: c_int, slice_ns: u64) -> bool {
    let attributes = sched_attr {
        size: size_of::<sched_attr>() as u32,
        sched_policy: SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: slice_ns,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes as `size` says, from this stack.
    unsafe { libc::syscall(SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nice value and slice of a thread that has asked.
    fn after(ask: impl FnOnce(Turns) + Send + 'static) -> (c_int, u64) {
        let thread = std::thread::spawn(move || {
            ask(Turns::of_process());
            // SAFETY: of a struct of numbers; the kernel writes as many bytes as it is told.
            unsafe {
                let mut found: sched_attr = std::mem::zeroed();
                let size = size_of::<sched_attr>();
                let done = libc::syscall(libc::SYS_sched_getattr, 0, &raw mut found, size, 0);
                assert_eq!(done, 0);
                (found.sched_nice, found.sched_runtime)
            }
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_worker_goes_before_the_thread_that_takes_routes() {
        let (nice, slice) = after(|_| ());
        let (first, short) = after(Turns::first);
        let (behind, long) = after(Turns::behind);
        assert_eq!((first, behind), (nice, (nice + BEHIND).min(LEAST)));
        // Kernels before 6.12 know one slice only, and show none.
        assert!(
            short == SLICE_NS || (short, long) == (slice, slice),
            "{short}, {long}"
        );
        assert_eq!(long, slice);
    }
}
