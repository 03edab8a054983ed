//! `hyperfleet-gate`: stands between a machine's network card and passt.
//!
//! ```text
//! hyperfleet-gate --passt PROGRAM --mac MAC --address A/LENGTH --gateway A --dns A
//!                 [--host-port PORT]... [--user UID:GID] [--cgroup FOLDER]
//! ```
//!
//! passt makes connections on behalf of the guest, as a process of the host: to whatever address a
//! frame names, the host's loopback included. So what is for the host is kept from it here: all of
//! its own addresses, save the ports that are let in, at the gateway's address.
//!
//! Standard input is a stream socket that QEMU has the other end of. It starts passt, writes `ready`
//! when that answers, or why not, and ends with QEMU; passt ends with it.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use lexopt::prelude::*;
use rustix::fs::{fcntl_setfl, OFlags};
use rustix::io::{fcntl_setfd, FdFlags};
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
use rustix::process::{getuid, Gid, Uid};
use rustix::thread;

use crate::frame::Rules;

mod frame;
mod own;
mod pump;
mod refusal;

/// passt prepares itself in some 20 ms; a loaded host takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

struct Settings {
    passt: PathBuf,
    mac: [u8; 6],
    address: Ipv4Addr,
    length: u8,
    rules: Rules,
    user: Option<(Uid, Gid)>,
    cgroup: Option<PathBuf>,
}

fn main() -> ExitCode {
    match settings().and_then(|settings| serve(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stdout(), "{why}");
            eprintln!("hyperfleet-gate: {why}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: &Settings) -> Result<(), String> {
    if let Some(cgroup) = &settings.cgroup {
        hyperfleet_confine::join(cgroup)
            .map_err(|error| format!("cgroup {}: {error}", cgroup.display()))?;
    }
    let stdin = io::stdin();
    let qemu = stdin.as_fd();
    fcntl_setfl(qemu, OFlags::NONBLOCK).map_err(|error| format!("standard input: {error}"))?;
    let (mut child, passt) =
        start(settings).map_err(|error| format!("{}: {error}", settings.passt.display()))?;
    confine(settings.user).map_err(|error| format!("giving up root: {error}"))?;
    let request = frame::arp_request(settings.mac, settings.address, settings.rules.gateway);
    if let Err(error) = pump::greet(passt.as_fd(), &request, settings.rules.gateway, PATIENCE) {
        drop(passt);
        return Err(format!("passt is not there: {}", ended(&mut child, &error)));
    }
    let mut stdout = io::stdout();
    // Whoever started it may be gone; the machine may not need them.
    let _ = writeln!(stdout, "ready").and_then(|()| stdout.flush());
    let ended = pump::run(qemu, passt.as_fd(), &settings.rules);
    // It ends with its socket, and is nobody's zombie then.
    drop(passt);
    child.wait().map_err(|error| error.to_string())?;
    ended.map_err(|error| error.to_string())
}

/// Starts passt with one end of a stream, and keeps the other.
fn start(settings: &Settings) -> io::Result<(Child, OwnedFd)> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    fcntl_setfl(&theirs, OFlags::empty())?;
    let mut command = Command::new(&settings.passt);
    command
        .arg0("passt")
        .args(["--foreground", "--quiet", "--stderr", "--ipv4-only"])
        // Nothing comes in by it.
        .args(["--tcp-ports", "none", "--udp-ports", "none"])
        .arg("--fd")
        .arg(theirs.as_raw_fd().to_string())
        .arg("--address")
        .arg(settings.address.to_string())
        .arg("--netmask")
        .arg(settings.length.to_string())
        .arg("--gateway")
        .arg(settings.rules.gateway.to_string())
        .arg("--dns-forward")
        .arg(settings.rules.dns.to_string())
        .stdin(Stdio::null())
        // Its words go where ours go; what is on standard output is ours alone.
        .stdout(Stdio::null());
    if settings.rules.host_ports.is_empty() {
        command.arg("--no-map-gw");
    }
    let child = command.spawn()?;
    Ok((child, ours))
}

/// No root and no new privileges from here on.
fn confine(user: Option<(Uid, Gid)>) -> io::Result<()> {
    if getuid().is_root() {
        let Some((uid, gid)) = user else {
            return Err(io::Error::other("--user is missing"));
        };
        thread::set_thread_groups(&[])?;
        thread::set_thread_res_gid(gid, gid, gid)?;
        thread::set_thread_res_uid(uid, uid, uid)?;
    }
    Ok(thread::set_no_new_privs(true)?)
}

/// How passt came to its end, or what else went wrong.
fn ended(child: &mut Child, error: &io::Error) -> String {
    match child.try_wait() {
        Ok(Some(status)) => format!("it ended ({status})"),
        _ if error.kind() == io::ErrorKind::TimedOut => format!("no answer in {PATIENCE:?}"),
        // Its socket has ended a moment before it has.
        _ => match child.wait() {
            Ok(status) => format!("it ended ({status})"),
            Err(error) => error.to_string(),
        },
    }
}

fn settings() -> Result<Settings, String> {
    parse(&mut lexopt::Parser::from_env()).map_err(|error| error.to_string())
}

fn parse(arguments: &mut lexopt::Parser) -> Result<Settings, lexopt::Error> {
    let (mut passt, mut mac, mut address, mut gateway, mut dns) = (None, None, None, None, None);
    let (mut host_ports, mut user, mut cgroup) = (Vec::new(), None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("passt") => passt = Some(PathBuf::from(arguments.value()?)),
            Long("mac") => mac = Some(arguments.value()?.parse_with(read_mac)?),
            Long("address") => address = Some(arguments.value()?.parse_with(read_address)?),
            Long("gateway") => gateway = Some(arguments.value()?.parse()?),
            Long("dns") => dns = Some(arguments.value()?.parse()?),
            Long("host-port") => host_ports.push(arguments.value()?.parse()?),
            Long("cgroup") => cgroup = Some(PathBuf::from(arguments.value()?)),
            Long("user") => user = Some(arguments.value()?.parse_with(read_user)?),
            _ => return Err(argument.unexpected()),
        }
    }
    let missing = |name: &str| format!("--{name} is missing");
    let (address, length) = address.ok_or_else(|| missing("address"))?;
    Ok(Settings {
        passt: passt.ok_or_else(|| missing("passt"))?,
        mac: mac.ok_or_else(|| missing("mac"))?,
        address,
        length,
        rules: Rules {
            gateway: gateway.ok_or_else(|| missing("gateway"))?,
            dns: dns.ok_or_else(|| missing("dns"))?,
            host_ports,
        },
        user,
        cgroup,
    })
}

fn read_mac(text: &str) -> Result<[u8; 6], String> {
    let octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16));
    let octets = octets.collect::<Result<Vec<_>, _>>().ok();
    let octets = octets.and_then(|octets| octets.try_into().ok());
    octets.ok_or_else(|| "not a hardware address".to_owned())
}

fn read_address(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let parts = text.split_once('/').and_then(|(address, length)| {
        Some((
            address.parse().ok()?,
            length.parse().ok().filter(|bits| *bits <= 32)?,
        ))
    });
    parts.ok_or_else(|| "not an address with its prefix length".to_owned())
}

fn read_user(text: &str) -> Result<(Uid, Gid), String> {
    let parts = text.split_once(':').and_then(|(uid, gid)| {
        let number = |text: &str| text.parse().ok().filter(|id| ![0, u32::MAX].contains(id));
        Some((Uid::from_raw(number(uid)?), Gid::from_raw(number(gid)?)))
    });
    parts.ok_or_else(|| "not UID:GID of an ordinary user".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_checked() {
        let good = [
            "--passt",
            "/usr/bin/passt",
            "--mac",
            "52:00:00:00:00:0a",
            "--address",
            "10.213.77.15/24",
            "--gateway",
            "10.213.77.2",
            "--dns",
            "10.213.77.3",
            "--host-port",
            "5432",
            "--user",
            "65534:65534",
            "--cgroup",
            "/cgroups/one",
        ];
        let read = |words: &[&str]| parse(&mut lexopt::Parser::from_args(words));
        let settings = read(&good).ok().unwrap();
        assert_eq!(settings.mac, [0x52, 0, 0, 0, 0, 10]);
        assert_eq!(
            (settings.length, &settings.rules.host_ports[..]),
            (24, &[5432][..])
        );
        assert_eq!(settings.cgroup, Some(PathBuf::from("/cgroups/one")));
        for at in (0..10).step_by(2) {
            let without = [&good[..at], &good[at + 2..]].concat();
            assert!(read(&without).is_err(), "without {}", good[at]);
        }
        for (at, wrong) in [
            (3, "52:00"),
            (3, "52:00:00:00:00:0g"),
            (5, "10.213.77.15"),
            (5, "10.213.77.15/33"),
            (7, "gateway"),
            (11, "70000"),
            (13, "0:0"),
            (13, "65534"),
        ] {
            let mut words = good;
            words[at] = wrong;
            assert!(read(&words).is_err(), "{wrong}");
        }
    }
}
