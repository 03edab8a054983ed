//! A machine as all workers know it: checked, and never changed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Arc;

use hyperfleet_wire::control;

use crate::http::is_host;
use crate::meter::Ledger;

/// Longest `Host` that a route may ask for: a domain name and a port.
const MAX_HOST: usize = 261;

/// A machine, checked. One value serves all workers.
#[derive(Debug)]
pub struct Record {
    pub id: Box<str>,
    pub name: Box<str>,
    pub running: bool,
    pub lifecycle: u64,
    /// Sorted by port.
    ports: Box<[Port]>,
    /// Few ports have one, so they stand beside those.
    hosts: Box<[HostPolicy]>,
    pub usage: Arc<Usage>,
}

/// An exposed port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub port: u16,
    pub upstream: Option<SocketAddr>,
    pub listening: bool,
    /// See [`crate::forward::Target`].
    pub strip_prefix: bool,
}

/// A port whose server gets another `Host` than the client's.
#[derive(Debug, PartialEq, Eq)]
struct HostPolicy {
    port: u16,
    host: Box<str>,
}

/// What a machine uses right now, over all workers and all of its records.
#[derive(Debug, Default)]
pub struct Usage {
    pub requests: AtomicU32,
    pub connections: AtomicU32,
    pub ledger: Ledger,
}

impl Usage {
    /// Takes one of `most` places of `count`; false when none is left.
    pub fn take(count: &AtomicU32, most: u32) -> bool {
        if count.fetch_add(1, Relaxed) < most {
            return true;
        }
        count.fetch_sub(1, Relaxed);
        false
    }
}

impl Record {
    /// Checks what a control plane or a routes file says of a machine.
    ///
    /// # Errors
    /// The sentence that says what is wrong with which machine.
    pub fn new(machine: &control::Machine) -> Result<Record, String> {
        let id = &machine.id;
        for (what, value) in [("id", id), ("name", &machine.name)] {
            if value.is_empty() || value.len() > 255 {
                return Err(format!("machine {id:?}: its {what} must be 1 to 255 bytes"));
            }
        }
        let mut ports = Vec::with_capacity(machine.ports.len());
        let mut hosts = Vec::new();
        for port in &machine.ports {
            if port.port == 0 {
                return Err(format!("machine {id:?}: port 0 is no port"));
            }
            let upstream = match &port.upstream {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| {
                    format!(
                        "machine {id:?}, port {}: upstream {text:?} is not ADDRESS:PORT",
                        port.port
                    )
                })?),
            };
            ports.push(Port {
                port: port.port,
                upstream,
                listening: port.listening,
                strip_prefix: port.strip_prefix,
            });
            if let Some(host) = &port.host {
                if host.len() > MAX_HOST || !is_host(host.as_bytes()) {
                    return Err(format!(
                        "machine {id:?}, port {}: host {host:?} is not HOST or HOST:PORT",
                        port.port
                    ));
                }
                hosts.push(HostPolicy {
                    port: port.port,
                    host: host.as_str().into(),
                });
            }
        }
        ports.sort_unstable_by_key(|port| port.port);
        hosts.sort_unstable_by_key(|policy| policy.port);
        if let Some(pair) = ports.windows(2).find(|pair| pair[0].port == pair[1].port) {
            return Err(format!(
                "machine {id:?}: port {} is there twice",
                pair[0].port
            ));
        }
        Ok(Record {
            id: id.as_str().into(),
            name: machine.name.as_str().into(),
            running: machine.status == "running",
            lifecycle: machine.lifecycle,
            ports: ports.into(),
            hosts: hosts.into(),
            usage: Arc::default(),
        })
    }

    /// Says the same of the same machine, whatever that uses.
    pub fn is_as(&self, other: &Record) -> bool {
        self.id == other.id
            && self.name == other.name
            && self.running == other.running
            && self.lifecycle == other.lifecycle
            && self.ports == other.ports
            && self.hosts == other.hosts
    }

    /// What a control plane would say of it to another process.
    pub fn to_machine(&self) -> control::Machine {
        let ports = self.ports.iter().map(|port| control::Port {
            port: port.port,
            upstream: port.upstream.map(|address| address.to_string()),
            listening: port.listening,
            host: self.host(port.port).map(str::to_owned),
            strip_prefix: port.strip_prefix,
        });
        control::Machine {
            id: self.id.to_string(),
            name: self.name.to_string(),
            // Of those that do not run, nobody here needs to know more.
            status: if self.running { "running" } else { "stopped" }.to_owned(),
            lifecycle: self.lifecycle,
            ports: ports.collect(),
        }
    }

    /// The exposed port `port`.
    pub fn port(&self, port: u16) -> Option<Port> {
        let at = self.ports.binary_search_by_key(&port, |known| known.port);
        at.ok().map(|at| self.ports[at])
    }

    /// The host policy of `port`: the `Host` that its server gets, if not the client's.
    pub fn host(&self, port: u16) -> Option<&str> {
        let policy = self.hosts.iter().find(|policy| policy.port == port)?;
        Some(&policy.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> control::Machine {
        let port = |port, upstream: Option<&str>, listening| {
            control::Port::new(port, upstream.map(str::to_owned), listening)
        };
        control::Machine {
            id: "a".into(),
            name: "web".into(),
            status: "running".into(),
            lifecycle: 1,
            ports: vec![
                port(8080, None, false),
                port(80, Some("127.0.0.1:9001"), true),
            ],
        }
    }

    #[test]
    fn ports_are_found_and_checked() {
        let known = Record::new(&machine()).unwrap();
        assert!(known.port(80).unwrap().listening);
        assert_eq!(known.port(8080).unwrap().upstream, None);
        assert_eq!(known.port(81), None);
        let mut machine = machine();
        machine.ports[0].upstream = Some("localhost".into());
        let error = Record::new(&machine).unwrap_err();
        assert!(error.contains("\"localhost\""), "{error}");
        machine.ports = vec![machine.ports[0].clone(), machine.ports[0].clone()];
        machine
            .ports
            .iter_mut()
            .for_each(|port| port.upstream = None);
        let error = Record::new(&machine).unwrap_err();
        assert!(error.contains("twice"), "{error}");
        machine.id = String::new();
        assert!(Record::new(&machine).is_err());
    }

    #[test]
    fn what_is_told_of_a_record_makes_the_same_record() {
        let mut machine = machine();
        machine.ports[0].host = Some("localhost:5173".into());
        machine.ports[1].host = Some("[::1]:80".into());
        machine.ports[1].strip_prefix = false;
        let known = Record::new(&machine).unwrap();
        assert_eq!(known.host(8080), Some("localhost:5173"));
        assert_eq!(known.host(80), Some("[::1]:80"));
        assert_eq!(known.host(81), None);
        let again = Record::new(&known.to_machine()).unwrap();
        assert!(known.is_as(&again));
        assert_eq!(again.host(8080), Some("localhost:5173"));
        assert!(!again.port(80).unwrap().strip_prefix);
    }

    #[test]
    fn a_host_that_no_request_could_name_is_refused() {
        let long = format!("{}:5173", "a".repeat(257));
        for host in [
            "",
            "a b",
            "a\r\nX: y",
            "a/b",
            "u@a",
            ":80",
            "a:65536",
            &long,
        ] {
            let mut machine = machine();
            machine.ports[0].host = Some(host.to_owned());
            let error = Record::new(&machine).unwrap_err();
            assert!(error.contains("8080"), "{error}");
        }
    }

    #[test]
    fn every_difference_counts_and_use_is_none() {
        type Change = fn(&mut control::Machine);
        let changes: [Change; 7] = [
            |machine| machine.id = "b".into(),
            |machine| machine.name = "b".into(),
            |machine| machine.status = "stopped".into(),
            |machine| machine.lifecycle = 2,
            |machine| machine.ports[0].listening = true,
            |machine| machine.ports[0].host = Some("localhost".into()),
            |machine| machine.ports[0].strip_prefix = false,
        ];
        let known = Record::new(&machine()).unwrap();
        assert!(known.is_as(&Record::new(&machine()).unwrap()));
        for change in changes {
            let mut other = machine();
            change(&mut other);
            assert!(!known.is_as(&Record::new(&other).unwrap()), "{other:?}");
        }
    }
}
