//! A cgroup for each exec call, so that its time limit reaches processes that left its session too.
//!
//! Sources: Linux's Documentation/admin-guide/cgroup-v2.rst: "cgroup.procs", "cgroup.kill" (since
//! 5.14), and "Organizing Processes and Threads". Where there is no cgroup2 calls have none, and
//! the process group is all that can be killed.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};
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
    /// One that is ready for the next call.
    spare: Cell<Option<Place>>,
    stale: Stale,
}

/// Those that could not be removed yet: a killed process that has not ended can't be moved.
type Stale = Rc<RefCell<Vec<PathBuf>>>;

/// A cgroup.
struct Place {
    path: PathBuf,
    directory: OwnedFd,
}

/// The cgroup of one call. Dropped when its process has ended: processes that it left behind then
/// belong to nobody, as a daemon should.
pub struct Confine {
    place: Place,
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
            spare: Cell::new(None),
            stale: Stale::default(),
        }
    }

    /// None at all: on a host, whose cgroups are not ours.
    pub fn none() -> Self {
        Self {
            directory: None,
            made: Cell::new(0),
            spare: Cell::new(None),
            stale: Stale::default(),
        }
    }

    /// A new, empty one. `None` where there is none to be had, which the call can do without.
    pub fn make(&self) -> Option<Confine> {
        let place = self.spare.take().or_else(|| self.place())?;
        Some(Confine {
            place,
            stale: Rc::clone(&self.stale),
        })
    }

    /// Does now what the next [`Self::make`] would wait for.
    pub fn prepare(&self) {
        let spare = self.spare.take().or_else(|| self.place());
        self.spare.set(spare);
    }

    fn place(&self) -> Option<Place> {
        self.stale
            .borrow_mut()
            .retain(|directory| dissolve(directory).is_err());
        let number = self.made.replace(self.made.get() + 1);
        let path = self.directory.as_ref()?.join(number.to_string());
        let make = || {
            fs::create_dir(&path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok::<_, io::Error>(rustix::fs::open(&path, flags, Mode::empty())?)
        };
        match make() {
            Ok(directory) => Some(Place { path, directory }),
            Err(why) => {
                say(format_args!("cannot make a cgroup: {why}"));
                let _ = fs::remove_dir(&path);
                None
            }
        }
    }
}

impl Confine {
    /// Its directory: what a process is born into it by, or enters it by.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.place.directory.as_fd()
    }

    /// Kills every process in it, forks under way included.
    pub fn kill(&self) {
        let _ = fs::write(self.place.path.join("cgroup.kill"), "1");
    }
}

impl Drop for Confine {
    fn drop(&mut self) {
        if dissolve(&self.place.path).is_err() {
            self.stale.borrow_mut().push(self.place.path.clone());
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
