//! From the kernel's first process to a machine: mounts, modules, the root disk, the switch to it.
//! Nothing is assumed of the disk but that it can be mounted and written.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{mount, mount_move, MountFlags};
use rustix::process::{chdir, chroot, setrlimit, Resource, Rlimit};
use rustix::system::finit_module;

use crate::disks;
use crate::failure::{say, Failure, OrCannot};
use crate::network;
use crate::uevent::Uevents;
use crate::virtio;

/// The name that the host gives to the virtio-serial port of the agent.
const PORT_NAME: &str = "hyperfleet.agent";
/// How long a device may take to appear once its module is loaded.
const DEVICE_TAKES: Duration = Duration::from_secs(10);
/// Where the root disk is mounted before it is switched to.
const NEW_ROOT: &str = "/newroot";
/// Descriptors a process may open, soft and hard. The kernel's 1024 are few for a server, and its
/// 1048576 many for programs that close each possible one.
const OPEN_FILES: (u64, u64) = (65536, 1_048_576);

/// What the kernel's command line asks of the agent.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    root: String,
    file_system: String,
}

impl Options {
    fn parse(command_line: &str) -> Self {
        let value = |name: &str, default: &str| {
            let words = command_line.split_ascii_whitespace();
            // As for the kernel's own options, the last one counts.
            let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.next_back().unwrap_or(default).to_owned()
        };
        Self {
            root: value("hyperfleet.root", "/dev/vda"),
            file_system: value("hyperfleet.rootfstype", "ext4"),
        }
    }
}

/// Goes as far as a guest can that does not know yet which machine it is: kernel file systems,
/// modules, the port to the host, which comes back. A template of machines stops here, so nothing
/// of a disk, a network card or a source of random numbers has been looked at.
///
/// # Errors
/// The step that failed. There is nothing to go on with then.
pub fn bring_up() -> Result<(OwnedFd, Door), Failure> {
    attach("proc", "/proc", "proc", MountFlags::empty(), None)?;
    attach("sysfs", "/sys", "sysfs", MountFlags::empty(), None)?;
    attach("devtmpfs", "/dev", "devtmpfs", MountFlags::empty(), None)?;
    let command_line = fs::read_to_string("/proc/cmdline").or_cannot("read the command line")?;
    let options = Options::parse(&command_line);
    let uevents = Uevents::open().or_cannot("listen for devices")?;
    virtio::hold();
    load_modules(Path::new("/modules"))?;
    // The initramfs stays below the root disk: what its files take of memory is given back.
    let _ = fs::remove_dir_all("/modules");
    let _ = fs::remove_file("/init");
    virtio::keep_held().or_cannot("take devices back")?;
    virtio::give(virtio::Kind::Console).or_cannot("find the console")?;
    attach_more();
    network::loopback_up()?;
    let port = open_port(&uevents)?;
    Ok((port, Door { options, uevents }))
}

/// Before the root disk.
pub struct Door {
    options: Options,
    uevents: Uevents,
}

impl Door {
    /// Makes the machine: when this returns, the process is in the root disk, with devices and
    /// limits as a program expects them.
    ///
    /// # Errors
    /// The step that failed. There is nothing to go on with then.
    pub fn enter(&self) -> Result<(), Failure> {
        virtio::give_all().or_cannot("give devices to their drivers")?;
        mount_root(&self.options, &self.uevents)?;
        switch_root()?;
        finish();
        Ok(())
    }
}

/// Mounts, making the place for it first.
fn attach(
    source: &str,
    target: &str,
    kind: &str,
    more: MountFlags,
    data: Option<&CStr>,
) -> Result<(), Failure> {
    let flags = match kind {
        "devtmpfs" | "devpts" => MountFlags::NOSUID | MountFlags::NOEXEC,
        _ => MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
    };
    fs::create_dir_all(target)
        .and_then(|()| Ok(mount(source, target, kind, flags | more, data)?))
        .or_cannot(format_args!("mount {kind} on {target}"))
}

/// Loads the modules that `directory/order` names, one file name a line, in that order. No such
/// file: a kernel that has all it needs built in.
fn load_modules(directory: &Path) -> Result<(), Failure> {
    let order = match fs::read_to_string(directory.join("order")) {
        Ok(order) => order,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(Failure::new("read the order of modules", why)),
    };
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty()) {
        // The bus is there once its module is.
        virtio::hold();
        let load = || -> io::Result<()> {
            let file = File::open(directory.join(name))?;
            match finit_module(file, c"", 0) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
                Err(why) => Err(why.into()),
            }
        };
        load().or_cannot(format_args!("load module {name}"))?;
    }
    Ok(())
}

fn mount_root(options: &Options, uevents: &Uevents) -> Result<(), Failure> {
    let Options { root, file_system } = options;
    let what = format!("mount the root disk {root} as {file_system}");
    uevents
        .wait_for(DEVICE_TAKES, || Path::new(root).exists().then_some(()))
        .ok_or_else(|| {
            let seconds = DEVICE_TAKES.as_secs();
            Failure::new(&what, format!("no such device after {seconds} s"))
        })?;
    fs::create_dir_all(NEW_ROOT)
        .and_then(|()| {
            let flags = MountFlags::empty();
            Ok(mount(root, NEW_ROOT, file_system, flags, None)?)
        })
        .or_cannot(what)?;
    if file_system == "ext4" {
        disks::grow(Path::new(root), Path::new(NEW_ROOT));
    }
    Ok(())
}

/// Finds the port by its name, which is told some moments after the port itself.
fn open_port(uevents: &Uevents) -> Result<OwnedFd, Failure> {
    let what = format!("find the virtio-serial port {PORT_NAME}");
    let node = uevents
        .wait_for(DEVICE_TAKES, || port_named(PORT_NAME))
        .ok_or_else(|| {
            let seconds = DEVICE_TAKES.as_secs();
            Failure::new(&what, format!("none has that name after {seconds} s"))
        })?;
    let port = File::options().read(true).write(true).open(&node);
    Ok(port
        .or_cannot(format_args!("open {}", node.display()))?
        .into())
}

fn port_named(name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        let told = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if told.trim_end() == name {
            return Some(Path::new("/dev").join(entry.file_name()));
        }
    }
    None
}

/// Makes the root disk `/`.
fn switch_root() -> Result<(), Failure> {
    for name in ["proc", "sys", "dev"] {
        let to = format!("{NEW_ROOT}/{name}");
        fs::create_dir_all(&to)
            .and_then(|()| Ok(mount_move(format!("/{name}"), &to)?))
            .or_cannot(format_args!("move /{name} to the root disk"))?;
    }
    chdir(NEW_ROOT)
        .and_then(|()| mount_move(".", "/"))
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"))
        .or_cannot("switch to the root disk")
}

/// File systems that a machine can live without, told of on the console when it must. They come
/// along to the root disk with what they are mounted in.
fn attach_more() {
    let none = MountFlags::empty();
    let shared = Some(c"mode=1777");
    let terminals = Some(c"mode=620,gid=5,ptmxmode=666");
    // Else each process of a call, moved into its cgroup, waits 20 ms for RCU. Since Linux 6.0.
    let quick = Some(c"favordynmods");
    let cgroups = |options| attach("cgroup2", "/sys/fs/cgroup", "cgroup2", none, options);
    for attached in [
        attach("devpts", "/dev/pts", "devpts", none, terminals),
        attach("tmpfs", "/dev/shm", "tmpfs", none, shared),
        cgroups(quick).or_else(|_| cgroups(None)),
    ] {
        if let Err(failure) = attached {
            say(failure);
        }
    }
}

/// What programs expect to find, where a disk can take it.
fn finish() {
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let _ = symlink(target, Path::new("/dev").join(name));
    }
    for (path, mode) in [("/run", 0o755), ("/tmp", 0o1777), ("/root", 0o700)] {
        if fs::create_dir(path).is_ok() {
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
        }
    }
    clear_files(Path::new("/run"));
    let (current, maximum) = OPEN_FILES;
    let limits = Rlimit {
        current: Some(current),
        maximum: Some(maximum),
    };
    if let Err(why) = setrlimit(Resource::Nofile, limits) {
        say(Failure::new("raise the limit of open files", why));
    }
}

/// Removes the files of the boot before, as the File Hierarchy Standard (3.15) asks for /run. Its
/// directories stay: those that a package brought are made by nobody again, since no init system
/// runs here. For the same reason /run is not a file system in memory.
fn clear_files(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => clear_files(&entry.path()),
            // A link is removed, never followed.
            Ok(_) => drop(fs::remove_file(entry.path())),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_may_name_the_root_disk() {
        let default = Options::parse("console=ttyS0 quiet root=/dev/sda\n");
        assert_eq!(default.root, "/dev/vda");
        assert_eq!(default.file_system, "ext4");
        let told = Options::parse(
            "hyperfleet.root=/dev/a hyperfleet.rootfstype=xfs hyperfleet.root=/dev/b",
        );
        assert_eq!(told.root, "/dev/b");
        assert_eq!(told.file_system, "xfs");
    }

    #[test]
    fn run_is_cleared_of_files_and_keeps_directories() {
        let run = std::env::temp_dir().join(format!("hf-run-{}", std::process::id()));
        let kept = std::env::temp_dir().join(format!("hf-kept-{}", std::process::id()));
        fs::create_dir_all(run.join("nginx")).unwrap();
        fs::create_dir_all(&kept).unwrap();
        fs::write(run.join("nginx/nginx.pid"), "7").unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        symlink(&kept, run.join("link")).unwrap();
        clear_files(&run);
        assert!(run.join("nginx").is_dir());
        assert!(!run.join("nginx/nginx.pid").exists());
        assert!(fs::symlink_metadata(run.join("link")).is_err());
        assert!(kept.join("file").exists());
        fs::remove_dir_all(&run).unwrap();
        fs::remove_dir_all(&kept).unwrap();
    }
}
