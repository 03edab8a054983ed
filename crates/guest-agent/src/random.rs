//! The kernel's random numbers: what a clone has in memory, its siblings have too, until it is told
//! something that they are not.

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::failure::{say, Failure, OrCannot};

/// Bytes taken at most.
const MOST: usize = 64;
/// `_IOW('R', 0x03, int [2])` and `_IO('R', 0x07)` of linux/random.h.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `struct rand_pool_info` of linux/random.h, with room for [`MOST`] bytes.
#[repr(C)]
struct PoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; MOST],
}

/// Mixes `seed`, which nobody else knows, into the kernel's pool; all that is random from here on
/// depends on it (random(4), RNDADDENTROPY and RNDRESEEDCRNG). Bytes beyond 64 are left out.
///
/// # Errors
/// When the kernel would not.
pub fn add(seed: &[u8]) -> Result<(), Failure> {
    let taken = seed.len().min(MOST);
    let mut info = PoolInfo {
        entropy_count: 8 * taken as libc::c_int,
        buf_size: taken as libc::c_int,
        buf: [0; MOST],
    };
    info.buf[..taken].copy_from_slice(&seed[..taken]);
    let mix = || {
        let device = File::options().write(true).open("/dev/random")?;
        // SAFETY: the device is open and `info` is the struct that this ioctl reads, `buf_size`
        // bytes of its buffer.
        if unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY as _, &info) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: it takes no argument. Until the pool was ready once it refuses, and numbers made
        // from here on are made from the pool anyway.
        unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG as _) };
        Ok(())
    };
    mix().or_cannot("seed the random numbers")
}

/// The kernel's number of this boot, new at each; it is made when it is first asked for.
pub fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => id.trim().to_owned(),
        Err(why) => {
            say(format_args!("cannot read the boot id: {why}"));
            "unknown".to_owned()
        }
    }
}
