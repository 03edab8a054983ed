//! What the host tells a machine about itself: its name, the time, its network cards.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyperfleet_wire::guest::{Config, Network};
use rustix::rand::{getrandom, GetRandomFlags};
use rustix::time::{clock_settime, ClockId, Timespec};

use crate::answers::Refusal;
use crate::failure::{say, Failure, OrCannot};
use crate::network::{self, Ipv4, Mac};

/// A clock that is wrong by less is left alone: the message itself takes some milliseconds.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(100);
/// The line of /etc/hosts that Debian's and our names stand in.
const OWN_NAME_ADDRESS: &str = "127.0.1.1";
const MAX_NAMESERVERS: usize = 3;
const MACHINE_ID: &str = "/etc/machine-id";

/// A checked [`Config`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    hostname: String,
    time: Duration,
    network: Option<Card>,
    /// Of a card that not every machine has.
    outward: Option<Card>,
}

/// What one card is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Card {
    mac: Option<Mac>,
    /// By what it is found in a clone of a template, which is to have `mac` instead.
    found_as: Option<Mac>,
    ipv4: Ipv4,
    dns: Vec<IpAddr>,
}

impl Card {
    fn check(told: &Network) -> Result<Self, Refusal> {
        let server = |server: &String| {
            server.parse().map_err(|_| {
                Refusal::invalid(format!("dns server {server:?} is not an IP address"))
            })
        };
        Ok(Self {
            mac: told.mac.as_deref().map(Mac::parse).transpose()?,
            found_as: told.found_as.as_deref().map(Mac::parse).transpose()?,
            ipv4: Ipv4::parse(&told.address, told.gateway.as_deref())?,
            dns: told.dns.iter().map(server).collect::<Result<_, _>>()?,
        })
    }
}

impl Plan {
    /// Checks all of `config` before any of it is done.
    ///
    /// # Errors
    /// `invalid`, naming what is wrong.
    pub fn check(config: &Config) -> Result<Self, Refusal> {
        if !is_label(&config.hostname) {
            return Err(Refusal::invalid(format!(
                "hostname {:?} is not a DNS label",
                config.hostname
            )));
        }
        let card = |told: &Option<Network>| told.as_ref().map(Card::check).transpose();
        Ok(Self {
            hostname: config.hostname.clone(),
            time: Duration::from_nanos(config.time_ns),
            network: card(&config.network)?,
            outward: card(&config.outward)?,
        })
    }

    /// The address that the host connects to.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.network.as_ref().map(|card| card.ipv4.address)
    }
}

/// Whether `name` is a DNS label.
pub fn is_label(name: &str) -> bool {
    let name = name.as_bytes();
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    (1..=63).contains(&name.len()) && name.iter().all(good) && name[0] != b'-'
}

/// Carries `plan` out. `before` is the one carried out last: files that it wrote are not written
/// again, for by now they may be the user's.
///
/// # Errors
/// When name, clock or network can't be set. Files of the user's disk that can't be written are
/// only told of on the console.
pub fn apply(plan: &Plan, before: Option<&Plan>) -> Result<(), Failure> {
    set_clock(plan)?;
    rustix::system::sethostname(plan.hostname.as_bytes()).or_cannot("set the hostname")?;
    if before.map(|before| &before.hostname) != Some(&plan.hostname) {
        tell(write_hostname(&plan.hostname));
    }
    if before.is_none() {
        tell(write_machine_id(Path::new(MACHINE_ID)));
    }
    let cards = cards(plan, before)?;
    for (name, card) in &cards {
        network::bring_up(name, &card.ipv4)?;
    }
    let Some((_, last)) = cards.last() else {
        return Ok(());
    };
    // The cards of a machine stay: what was told for this one before is what was written.
    let leads_out = plan.outward.as_ref() == Some(last);
    let told = |plan: &Plan| {
        let same = if leads_out {
            &plan.outward
        } else {
            &plan.network
        };
        same.as_ref().map(|card| card.dns.clone())
    };
    if !last.dns.is_empty() && before.and_then(told).as_ref() != Some(&last.dns) {
        tell(write_file("/etc/resolv.conf", &resolv_conf(&last.dns)));
    }
    Ok(())
}

/// The cards that there are, the one that leads out last: it alone has a gateway then.
fn cards(plan: &Plan, before: Option<&Plan>) -> Result<Vec<(String, Card)>, Failure> {
    let mac = |card: &Option<Card>| card.as_ref().and_then(|card| card.mac);
    let outward = match &plan.outward {
        Some(card) => find(card, before.and_then(|before| mac(&before.outward)))?
            .map(|name| (name, card.clone())),
        None => None,
    };
    let mut found = Vec::new();
    if let Some(card) = &plan.network {
        let none = || io::Error::new(io::ErrorKind::NotFound, "there is none");
        let name = find(card, before.and_then(|before| mac(&before.network)))?
            .ok_or_else(none)
            .or_cannot("find the network card")?;
        let mut card = card.clone();
        if outward.is_some() {
            card.ipv4.gateway = None;
        }
        found.push((name, card));
    }
    found.extend(outward);
    Ok(found)
}

/// The name of the card. One that is found by a template's address is given its own; so is one that
/// had another `before`, which is that of a machine of whose snapshot this one was made.
fn find(card: &Card, before: Option<Mac>) -> Result<Option<String>, Failure> {
    if let Some(name) = network::find(card.mac)? {
        return Ok(Some(name));
    }
    let Some(mac) = card.mac else {
        return Ok(None);
    };
    for address in [card.found_as, before].into_iter().flatten() {
        if let Some(name) = network::find(Some(address))? {
            network::set_mac(&name, mac)?;
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn tell(written: Result<(), Failure>) {
    if let Err(failure) = written {
        say(failure);
    }
}

/// Sets the clock, unless it is right.
///
/// # Errors
/// When it can't be set.
pub fn set_clock(plan: &Plan) -> Result<(), Failure> {
    let time = plan.time;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    if now.abs_diff(time) < CLOCK_TOLERANCE {
        return Ok(());
    }
    let time = Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    clock_settime(ClockId::Realtime, time).or_cannot("set the clock")
}

/// Gives the disk an id of its own if it has none yet (machine-id(5): empty, missing, or
/// `uninitialized`); it stays as long as the disk.
fn write_machine_id(path: &Path) -> Result<(), Failure> {
    let what = format!("write {}", path.display());
    match fs::read_to_string(path) {
        Ok(id) if !["", "uninitialized"].contains(&id.trim()) => return Ok(()),
        Ok(_) => {}
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(Failure::new(what, why)),
    }
    let mut id = [0; 16];
    getrandom(&mut id, GetRandomFlags::empty()).or_cannot("make a machine id")?;
    // As systemd-machine-id-setup has it: a UUID of version 4 (RFC 9562, 5.4) without its dashes.
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    write_file(&path.to_string_lossy(), &format!("{digits}\n"))
}

fn write_hostname(name: &str) -> Result<(), Failure> {
    write_file("/etc/hostname", &format!("{name}\n"))?;
    let hosts = match fs::read_to_string("/etc/hosts") {
        Ok(hosts) => hosts,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned()
        }
        Err(why) => return Err(Failure::new("read /etc/hosts", why)),
    };
    write_file("/etc/hosts", &hosts_with(&hosts, name))
}

/// `hosts` with a line for `name`: one that has it already, else the line of our own, new or in
/// place of the one for an earlier name.
fn hosts_with(hosts: &str, name: &str) -> String {
    let fields = |line: &str| -> Vec<String> {
        let plain = line.split('#').next().unwrap_or_default();
        plain.split_ascii_whitespace().map(str::to_owned).collect()
    };
    if hosts
        .lines()
        .any(|line| fields(line).iter().skip(1).any(|field| field == name))
    {
        return hosts.to_owned();
    }
    let mut lines: Vec<String> = hosts
        .lines()
        .filter(|line| {
            fields(line)
                .first()
                .is_none_or(|address| address != OWN_NAME_ADDRESS)
        })
        .map(str::to_owned)
        .collect();
    lines.push(format!("{OWN_NAME_ADDRESS}\t{name}"));
    lines.join("\n") + "\n"
}

fn resolv_conf(servers: &[IpAddr]) -> String {
    // resolv.conf(5): the resolver asks the first three at most.
    let servers = servers.iter().take(MAX_NAMESERVERS);
    servers
        .map(|server| format!("nameserver {server}\n"))
        .collect()
}

/// Makes the file hold `content`. A new file takes its name, so that a symbolic link there, to
/// what a resolver that does not run would have written, is replaced and not followed.
fn write_file(path: &str, content: &str) -> Result<(), Failure> {
    let path = Path::new(path);
    let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    if is_file && fs::read(path).is_ok_and(|found| found == content.as_bytes()) {
        return Ok(());
    }
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let new = path.with_extension("hyperfleet-new");
        fs::write(&new, content)?;
        fs::rename(&new, path)
    };
    write().or_cannot(format_args!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyperfleet_wire::guest::Network;

    fn config(hostname: &str) -> Config {
        Config {
            hostname: hostname.into(),
            time_ns: 0,
            network: None,
            outward: None,
            disks: Vec::new(),
        }
    }

    #[test]
    fn a_hostname_is_a_dns_label() {
        for good in ["a", "web-1", &"x".repeat(63)] {
            assert!(Plan::check(&config(good)).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a.b", "a b", "a\n", "é", &"x".repeat(64)] {
            assert_eq!(
                Plan::check(&config(bad)).unwrap_err().code,
                "invalid",
                "{bad:?}"
            );
        }
    }

    #[test]
    fn addresses_are_checked() {
        let check = |address: &str, gateway: Option<&str>, dns: &[&str]| {
            let mut config = config("a");
            config.network = Some(Network {
                address: address.into(),
                gateway: gateway.map(Into::into),
                dns: dns.iter().map(ToString::to_string).collect(),
                mac: None,
                found_as: None,
            });
            Plan::check(&config)
        };
        let plan = check("10.0.2.15/24", Some("10.0.2.2"), &["10.0.2.3", "fd00::3"]).unwrap();
        assert_eq!(plan.address(), Some(Ipv4Addr::new(10, 0, 2, 15)));
        for address in [
            "10.0.2.15",
            "10.0.2.15/33",
            "10.0.2.15/",
            "/24",
            "::1/64",
            "10.0.2.15/+8",
        ] {
            assert!(check(address, None, &[]).is_err(), "{address}");
        }
        assert!(check("10.0.2.15/24", Some("gateway"), &[]).is_err());
        assert!(check("10.0.2.15/24", None, &["10.0.2.3\nsearch x"]).is_err());
    }

    #[test]
    fn hosts_gets_one_line_for_the_name() {
        let first = hosts_with("127.0.0.1\tlocalhost\n", "web");
        assert_eq!(first, "127.0.0.1\tlocalhost\n127.0.1.1\tweb\n");
        assert_eq!(hosts_with(&first, "web"), first);
        assert_eq!(
            hosts_with(&first, "db"),
            "127.0.0.1\tlocalhost\n127.0.1.1\tdb\n"
        );
        let users = "10.0.0.1 x web # mine\n";
        assert_eq!(hosts_with(users, "web"), users);
        let comment = "10.0.0.1 x # web\n";
        assert!(hosts_with(comment, "web").ends_with("127.0.1.1\tweb\n"));
    }

    #[test]
    fn a_disk_without_an_id_gets_one_and_keeps_it() {
        let directory = std::env::temp_dir().join(format!("hf-id-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("machine-id");
        for empty in [None, Some(""), Some("uninitialized\n")] {
            if let Some(content) = empty {
                fs::write(&path, content).unwrap();
            }
            write_machine_id(&path).unwrap();
            let id = fs::read_to_string(&path).unwrap();
            assert_eq!(id.len(), 33);
            assert!(
                id.trim().bytes().all(|digit| digit.is_ascii_hexdigit()),
                "{id}"
            );
            write_machine_id(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), id);
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_dangling_link_is_replaced_by_the_file() {
        let directory = std::env::temp_dir().join(format!("hf-agent-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("resolv.conf");
        std::os::unix::fs::symlink("../run/nowhere/stub", &path).unwrap();
        let content = resolv_conf(&["10.0.2.3".parse().unwrap()]);
        write_file(path.to_str().unwrap(), &content).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 10.0.2.3\n");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        fs::remove_dir_all(&directory).unwrap();
    }
}
