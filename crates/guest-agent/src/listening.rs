//! The kernel's word that TCP sockets begin or cease to listen, so that nobody need ask for it
//! again and again: the tracepoint `sock:inet_sock_set_state` (Linux 4.16), heard by
//! perf_event_open(2). It costs nothing while nothing listens anew, and a filter in the kernel
//! passes over what connections do. What has happened is not read: only that something has.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{openat, Mode, OFlags};
use rustix::mount::{fsconfig_create, fsmount, fsopen, FsMountFlags, FsOpenFlags, MountAttrFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

use crate::failure::{Failure, OrCannot};

/// Where tracefs has the number of the tracepoint.
const ID: &str = "events/sock/inet_sock_set_state/id";
/// Into TCP_LISTEN, or from it to TCP_CLOSE (include/net/tcp_states.h). A connection that is taken
/// begins as a copy of its listener, which is from TCP_LISTEN to another state.
const FILTER: &CStr = c"newstate == 10 || (oldstate == 10 && newstate == 7)";
/// The kernel tells of a listener just before it can be found in /proc. What happens within this
/// time is one piece of news.
const SETTLES: Duration = Duration::from_millis(5);

/// `PERF_TYPE_TRACEPOINT`, `PERF_FLAG_FD_CLOEXEC` and `PERF_EVENT_IOC_SET_FILTER` of
/// linux/perf_event.h.
const TRACEPOINT: u32 = 2;
const CLOSE_ON_EXEC: libc::c_ulong = 8;
const SET_FILTER: libc::c_ulong = 0x4008_2406;
/// `pid` and `group_fd` of perf_event_open(2): every process; no group.
const EVERYONE: libc::pid_t = -1;
const NO_GROUP: libc::c_int = -1;

/// `struct perf_event_attr` of linux/perf_event.h, as its first version had it
/// (PERF_ATTR_SIZE_VER0).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint: u32,
    more_config: u64,
}

/// Calls `hears` soon after sockets of this kernel have begun or ceased to listen, for ever, from
/// tasks of its own.
///
/// # Errors
/// A kernel without this tracepoint, or before 5.2, which can't mount tracefs out of everyone's
/// sight.
pub fn watch(hears: impl Fn() + 'static) -> Result<(), Failure> {
    let ears = ears().or_cannot("hear of listening sockets")?;
    let hears = Rc::new(hears);
    for ear in ears {
        let hears = Rc::clone(&hears);
        tokio::task::spawn_local(async move {
            while ear.heard().await.is_ok() {
                hears();
            }
        });
    }
    Ok(())
}

/// The tracepoint on one processor.
struct Ear {
    event: AsyncFd<OwnedFd>,
    /// Without it the event is never ready.
    _ring: Ring,
}

/// One for each processor: the kernel has none for all of them.
fn ears() -> io::Result<Vec<Ear>> {
    let id = tracepoint()?;
    // SAFETY: it takes no pointer.
    let processors = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    let mut ears = Vec::new();
    for processor in 0..processors as libc::c_int {
        match Ear::open(id, processor) {
            Ok(ear) => ears.push(ear),
            // It is off.
            Err(why) if why.raw_os_error() == Some(libc::ENODEV) => {}
            Err(why) => return Err(why),
        }
    }
    Ok(ears)
}

/// Its number. tracefs is mounted nowhere, and gone when this returns.
fn tracepoint() -> io::Result<u64> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let tracefs = fsmount(&context, flags, MountAttrFlags::empty())?;
    let file = openat(
        &tracefs,
        ID,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut number = String::new();
    File::from(file).read_to_string(&mut number)?;
    let number = number.trim().parse();
    number.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}

impl Ear {
    fn open(id: u64, processor: libc::c_int) -> io::Result<Self> {
        let attributes = Attributes {
            kind: TRACEPOINT,
            size: size_of::<Attributes>() as u32,
            config: id,
            sample_period: 1,
            wakeup_events: 1,
            ..Attributes::default()
        };
        // SAFETY: `attributes` is the struct that the kernel reads, with its size in it.
        let event = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                EVERYONE,
                processor,
                NO_GROUP,
                CLOSE_ON_EXEC,
            )
        };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just opened, and nobody else knows it.
        let event = unsafe { OwnedFd::from_raw_fd(event as libc::c_int) };
        // SAFETY: the event is open and the filter ends with a NUL byte.
        if unsafe { libc::ioctl(event.as_raw_fd(), SET_FILTER as _, FILTER.as_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let ring = Ring::of(&event)?;
        // SAFETY: the AsyncFd owns this OwnedFd, which is never replaced or closed before it.
        let event = unsafe { AsyncFd::register_with_interest(event, Interest::READABLE) }?;
        Ok(Self { event, _ring: ring })
    }

    /// Returns soon after something has happened.
    async fn heard(&self) -> io::Result<()> {
        let mut ready = self.event.readable().await?;
        tokio::time::sleep(SETTLES).await;
        // What came meanwhile makes it ready again.
        ready.clear_ready();
        Ok(())
    }
}

/// Where the kernel writes what happened, over what was there: mapped for reading alone, it is
/// never full.
struct Ring {
    at: NonNull<libc::c_void>,
    size: usize,
}

impl Ring {
    /// The least there can be: a page that describes it, and one page.
    fn of(event: &OwnedFd) -> io::Result<Self> {
        let size = 2 * rustix::param::page_size();
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { at, size })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and nothing refers into it.
        unsafe { libc::munmap(self.at.as_ptr(), self.size) };
    }
}
