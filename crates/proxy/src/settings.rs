//! What the process runs with, checked.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::limits::Limits;
use crate::route::Site;

/// Where the routes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A JSON file, read again on SIGHUP.
    File(PathBuf),
    /// A Unix socket that a control plane connects to.
    Control(PathBuf),
}

/// Time limits (http.md, "Connections to guests").
#[derive(Debug, Clone)]
pub struct Times {
    /// From a request's first byte to the end of its head.
    pub head: Duration,
    /// Between two requests, and for idle connections to guests.
    pub idle: Duration,
    pub connect: Duration,
    /// From the request's last byte to the end of the response's head.
    pub response: Duration,
    /// Without a byte of a body in either direction.
    pub body: Duration,
    /// Without a byte of an upgraded connection in either direction.
    pub tunnel: Duration,
    /// Of requests in flight after SIGTERM.
    pub drain: Duration,
    /// Of what is in flight when another process has taken over.
    pub retire: Duration,
    /// For the control plane's first snapshot.
    pub snapshot: Duration,
}

/// Everything that is set by the command line.
#[derive(Debug, Clone)]
pub struct Settings {
    pub listen: SocketAddr,
    /// `site` as it was written.
    pub texts: SiteTexts,
    pub site: Site,
    pub source: Option<Source>,
    pub workers: usize,
    pub limits: Limits,
    pub times: Times,
    /// Take over from the process that runs behind the control socket, if there is one.
    pub take_over: bool,
    /// Whom root becomes; without root it is not looked at.
    pub user: String,
    /// Whether system calls that serving does not need are forbidden.
    pub seccomp: bool,
    /// Where a line of each request goes, `-` is standard error; `None`: nowhere.
    pub access_log: Option<PathBuf>,
    /// One line of so many is written, and those of our own errors; at least 1.
    pub access_log_sample: u32,
    /// Whether answers tell how long they took ([`crate::server_timing`]).
    pub server_timing: bool,
    /// Of clients, in all.
    pub max_connections: usize,
    /// Of clients of one address, IPv6 by networks of 64 bits; 0: no bound. Trusted peers are
    /// exempt.
    pub max_address_connections: u32,
    /// Bytes held for peers that do not take them before reads become small.
    pub max_held_bytes: usize,
    /// To one machine, idle ones included.
    pub max_machine_connections: u32,
    /// In flight to one machine.
    pub max_machine_requests: u32,
    /// Idle connections to guests that one worker keeps, in all.
    pub pool: usize,
    /// Of these, to one port of one machine.
    pub pool_per_port: usize,
}

/// The settings of a [`Site`], as they were written.
#[derive(Debug, Clone)]
pub struct SiteTexts {
    pub prefix: String,
    /// Empty: no host routes.
    pub host_suffix: String,
    /// Networks, between commas.
    pub trusted: String,
}

impl SiteTexts {
    /// Checks them.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn site(&self) -> Result<Site, String> {
        let mut trusted = Vec::new();
        for text in self.trusted.split(',').filter(|text| !text.is_empty()) {
            let network = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            trusted.push(network.map_err(|_| format!("trusted {text:?} is no network"))?);
        }
        let suffix = Some(self.host_suffix.as_str()).filter(|suffix| !suffix.is_empty());
        Site::new(&self.prefix, suffix, trusted)
    }
}
