//! Which virtio devices have their drivers. A device that no driver has touched yet is the same in
//! all clones of a template; one that has been is as its template's was: its address, its size, what
//! it has read already. So all but the host's port are held back until a machine knows which it is.
//!
//! Source: Linux's Documentation/ABI/testing/sysfs-bus-* and driver-api/driver-model/binding.rst.

use std::fs;
use std::io;
use std::path::Path;

const BUS: &str = "/sys/bus/virtio";

/// A kind of device, by its number (virtio 1.2, "Device Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Console = 3,
}

/// From here on, drivers that are loaded are not given their devices. Nothing where there is no
/// such bus yet.
pub fn hold() {
    let _ = fs::write(Path::new(BUS).join("drivers_autoprobe"), "0");
}

/// Takes devices back from drivers that are a part of the kernel; the console stays.
///
/// # Errors
/// The kernel's.
pub fn keep_held() -> io::Result<()> {
    for device in devices()? {
        let driver = device.path.join("driver");
        if driver.exists() && device.kind != Some(Kind::Console as u32) {
            fs::write(driver.join("unbind"), &device.name)?;
        }
    }
    Ok(())
}

/// Gives devices of one kind to their driver.
///
/// # Errors
/// The kernel's.
pub fn give(kind: Kind) -> io::Result<()> {
    give_those(|device| device.kind == Some(kind as u32))
}

/// Gives all devices to their drivers, and from here on each at once.
///
/// # Errors
/// The kernel's.
pub fn give_all() -> io::Result<()> {
    let _ = fs::write(Path::new(BUS).join("drivers_autoprobe"), "1");
    give_those(|_| true)
}

fn give_those(wanted: impl Fn(&Device) -> bool) -> io::Result<()> {
    for device in devices()? {
        if wanted(&device) && !device.path.join("driver").exists() {
            // EINVAL, ENODEV: no driver wants it.
            let _ = fs::write(Path::new(BUS).join("drivers_probe"), &device.name);
        }
    }
    Ok(())
}

struct Device {
    name: String,
    path: std::path::PathBuf,
    kind: Option<u32>,
}

/// In the order of their names: that of the machine's line, so that disks and cards are named by it.
fn devices() -> io::Result<Vec<Device>> {
    let entries = match fs::read_dir(Path::new(BUS).join("devices")) {
        Ok(entries) => entries,
        // A kernel without virtio, or without a module of it.
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(why),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        found.push(Device {
            name: name.to_owned(),
            kind: fs::read_to_string(path.join("device"))
                .ok()
                .and_then(|text| parse_kind(&text)),
            path,
        });
    }
    // virtio9 before virtio10.
    found.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    Ok(found)
}

fn parse_kind(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_written_in_hexadecimal() {
        assert_eq!(parse_kind("0x0003\n"), Some(Kind::Console as u32));
        assert_eq!(parse_kind("0x001a\n"), Some(26));
        assert_eq!(parse_kind("3\n"), None);
    }
}
