//! The machine's disks besides the one it runs from: found by their serial numbers, mounted, and
//! grown to the size that the host has given them.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyperfleet_wire::guest::Disk;
use rustix::mount::{mount, MountFlags};

use crate::answers::Refusal;
use crate::failure::{say, Failure, OrCannot};
use crate::uevent::Uevents;

/// What data disks are made with.
const FILE_SYSTEM: &str = "ext4";
/// Nobody is to write zeros in the background, which would take room of the host's.
const OPTIONS: Option<&CStr> = Some(c"noinit_itable");
/// How long a device may take to appear once it has its driver.
const DEVICE_TAKES: Duration = Duration::from_secs(10);
/// `EXT4_IOC_RESIZE_FS` (Documentation/admin-guide/ext4.rst): to so many blocks, while mounted.
const RESIZE: libc::c_ulong = 0x4008_6610;
/// What /sys tells sizes in.
const SECTOR: u64 = 512;

/// Checks all before any is mounted.
///
/// # Errors
/// `invalid`: a place where nothing can be mounted.
pub fn check(wanted: &[Disk]) -> Result<(), Refusal> {
    for disk in wanted {
        let path = Path::new(&disk.path);
        let plain = path.is_absolute() && !disk.path.split('/').any(|part| part == "..");
        if !plain || path.parent().is_none() {
            return Err(Refusal::invalid(format!(
                "{:?} is no place for a disk",
                disk.path
            )));
        }
    }
    Ok(())
}

/// Mounts those that are not `mounted` yet, which is told of each that is.
///
/// # Errors
/// One is not there, or can't be mounted.
pub fn attach(wanted: &[Disk], mounted: &mut Vec<Disk>) -> Result<(), Failure> {
    let missing: Vec<&Disk> = wanted
        .iter()
        .filter(|disk| !mounted.contains(disk))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let uevents = Uevents::open().or_cannot("listen for devices")?;
    for disk in missing {
        let what = format!("mount the disk {} at {}", disk.serial, disk.path);
        let device = uevents
            .wait_for(DEVICE_TAKES, || with_serial(&disk.serial))
            .ok_or_else(|| {
                let seconds = DEVICE_TAKES.as_secs();
                Failure::new(&what, format!("no such device after {seconds} s"))
            })?;
        fs::create_dir_all(&disk.path)
            .and_then(|()| {
                let flags = MountFlags::empty();
                Ok(mount(&device, &*disk.path, FILE_SYSTEM, flags, OPTIONS)?)
            })
            .or_cannot(what)?;
        mounted.push(disk.clone());
        grow(&device, Path::new(&disk.path));
    }
    Ok(())
}

/// Has the ext4 file system that is mounted at `at` take all of its device; says it when it can't.
pub fn grow(device: &Path, at: &Path) {
    let resize = || -> io::Result<()> {
        let name = device.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let sectors = fs::read_to_string(Path::new("/sys/class/block").join(name).join("size"))?;
        let sectors: u64 = sectors
            .trim()
            .parse()
            .map_err(|_| io::ErrorKind::InvalidData)?;
        let block = rustix::fs::statvfs(at)?.f_bsize;
        let blocks = sectors * SECTOR / block.max(1);
        let folder = File::open(at)?;
        // SAFETY: the kernel reads one u64 from the pointer, which outlives the call. It does nothing
        // where the size is that already.
        match unsafe { libc::ioctl(folder.as_raw_fd(), RESIZE as _, &raw const blocks) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    if let Err(why) = resize() {
        say(format_args!(
            "cannot have {} take all of its disk: {why}",
            at.display()
        ));
    }
}

fn with_serial(serial: &str) -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/class/block").ok()?.flatten() {
        let told = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if told.trim_end() == serial {
            return Some(Path::new("/dev").join(entry.file_name()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_a_place_of_its_own() {
        let at = |path: &str| {
            check(&[Disk {
                serial: "a".into(),
                path: path.into(),
            }])
        };
        assert!(at("/data").is_ok());
        assert!(at("/var/lib/data").is_ok());
        for bad in ["", "data", "/", "/a/../etc", "/.."] {
            assert_eq!(at(bad).unwrap_err().code, "invalid", "{bad:?}");
        }
    }
}
