//! A cgroup for each exec call, so that its time limit reaches processes that left its session too.
//!
//! Sources: Linux's Documentation/admin-guide/cgroup-v2.rst: "cgroup.procs", "cgroup.kill" (since
//! 5.14), and "Organizing Processes and Threads". Where there is no cgroup2 calls have none, and
//! the process group is all that can be killed.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::io::Errno;

use crate::failure::say;

/// Where cgroup2 is mounted, and the directory in it for those of calls.
const CGROUPS: &str = "/sys/fs/cgroup";
const OWN: &str = "hyperfleet";
/// How often the processes of an ended call are looked for. They may fork while they are moved.
const ROUNDS: usize = 4;

/// Makes confines.
pub struct Confines {
    /// Of the directory that they are made in; `None` where they can't be.
    directory: Option<PathBuf>,
    made: Cell<u64>,
    stale: Stale,
}

/// Those that could not be removed yet: a killed process that has not ended can't be moved.
type Stale = Rc<RefCell<Vec<PathBuf>>>;

/// The cgroup of one call. Dropped when its process has ended: processes that it left behind then
/// belong to nobody, as a daemon should.
pub struct Confine {
    directory: PathBuf,
    entrance: File,
    stale: Stale,
}

impl Confines {
    /// In the guest's cgroup2, if the kernel has it.
    pub fn of_guest() -> Self {
        let directory = Path::new(CGROUPS).join(OWN);
        let made = fs::create_dir(&directory);
        if let Err(why) = &made {
            say(format_args!("cannot use cgroups for calls: {why}"));
        }
        // Before 5.14 they could be made, but not killed.
        let usable = made.is_ok() && directory.join("cgroup.kill").exists();
        Self {
            directory: usable.then_some(directory),
            made: Cell::new(0),
            stale: Stale::default(),
        }
    }

    /// None at all: on a host, whose cgroups are not ours.
    pub fn none() -> Self {
        Self {
            directory: None,
            made: Cell::new(0),
            stale: Stale::default(),
        }
    }

    /// A new, empty one. `None` where there is none to be had, which the call can do without.
    pub fn make(&self) -> Option<Confine> {
        self.stale
            .borrow_mut()
            .retain(|directory| dissolve(directory).is_err());
        let number = self.made.replace(self.made.get() + 1);
        let directory = self.directory.as_ref()?.join(number.to_string());
        let make = || {
            fs::create_dir(&directory)?;
            File::options()
                .write(true)
                .open(directory.join("cgroup.procs"))
        };
        match make() {
            Ok(entrance) => Some(Confine {
                directory,
                entrance,
                stale: Rc::clone(&self.stale),
            }),
            Err(why) => {
                say(format_args!("cannot make a cgroup: {why}"));
                let _ = fs::remove_dir(&directory);
                None
            }
        }
    }
}

impl Confine {
    /// What [`enter`] takes.
    pub fn entrance(&self) -> RawFd {
        self.entrance.as_raw_fd()
    }

    /// Kills every process in it, forks under way included.
    pub fn kill(&self) {
        let _ = fs::write(self.directory.join("cgroup.kill"), "1");
    }
}

impl Drop for Confine {
    fn drop(&mut self) {
        if dissolve(&self.directory).is_err() {
            self.stale.borrow_mut().push(self.directory.clone());
        }
    }
}

/// Moves what is left out of the cgroup at `directory` and removes it.
fn dissolve(directory: &Path) -> io::Result<()> {
    for _ in 0..ROUNDS {
        match rustix::fs::rmdir(directory) {
            Err(Errno::BUSY) => {}
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(why) => return Err(why.into()),
        }
        let left = fs::read_to_string(directory.join("cgroup.procs"))?;
        let mut outside = File::options()
            .write(true)
            .open(Path::new(CGROUPS).join("cgroup.procs"))?;
        for pid in left.lines() {
            // ESRCH: it has ended meanwhile.
            let _ = outside.write_all(pid.as_bytes());
        }
    }
    Err(Errno::BUSY.into())
}

/// Moves the calling process into the confine that `entrance` is of. For a child between fork and
/// exec: one system call, which allocates nothing.
///
/// # Safety
/// `entrance` must be open: the confine must not be dropped before.
pub unsafe fn enter(entrance: RawFd) {
    // SAFETY: open, as the caller says.
    let entrance = unsafe { BorrowedFd::borrow_raw(entrance) };
    // 0 is the writer itself. Outside, the process is still killed with its group.
    let _ = rustix::io::write(entrance, b"0");
}
