//! Control plane ↔ data plane messages, in [`crate::length`] frames.
//!
//! The data plane listens on a Unix socket; one control plane is connected at a time, a newer
//! connection replaces the older. Both sides begin with `hello`. Then the control plane sends a
//! snapshot (begin, parts, end) and changes, each with the next number after the snapshot's. A
//! number that is missing makes the data plane say `resync`, and serve on with what it has until
//! the new snapshot is whole. `applied` says that every worker decides by that number.
//! When the control plane goes, the data plane serves on with the routes it has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{decode, WireError};

/// Version of these messages. A peer with another one is told `refused` and disconnected.
pub const PROTOCOL: u32 = 2;

/// What the control plane says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToProxy {
    Hello {
        protocol: u32,
    },
    /// A whole table follows; parts until `snapshot_end` with the same number.
    SnapshotBegin {
        number: u64,
    },
    SnapshotPart {
        machines: Vec<Machine>,
    },
    SnapshotEnd {
        number: u64,
    },
    /// One step: machines that are new or changed (whole), and ids that are gone.
    Change {
        number: u64,
        upsert: Vec<Machine>,
        remove: Vec<String>,
    },
    /// The answer to `probe`.
    ProbeResult {
        id: u64,
        outcome: ProbeOutcome,
    },
    /// Asks for `counters`.
    CountersRequest,
    /// Asks for `meters` in the order of machines' ids and of their ports, from the first row
    /// behind `after` on; `machine`: of this one only.
    MetersRequest {
        machine: Option<String>,
        after: Option<(String, u16)>,
    },
    /// Stop accepting, finish what is in flight for at most so many milliseconds, exit.
    Drain {
        timeout_ms: u32,
    },
}

impl ToProxy {
    /// Decodes one whole payload.
    ///
    /// # Errors
    /// As [`crate::decode`].
    pub fn decode(payload: &[u8]) -> Result<ToProxy, WireError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Tag {
            SnapshotPart,
        }
        #[derive(Deserialize)]
        struct Part {
            #[serde(rename = "type")]
            _tag: Tag,
            machines: Vec<Machine>,
        }
        // Nearly all bytes of a table are parts. They are read straight into machines, where an enum
        // with a tag first copies each value aside, until its type is known; another type ends this
        // at its first field.
        match decode(payload) {
            Ok(Part { machines, .. }) => Ok(ToProxy::SnapshotPart { machines }),
            Err(_) => decode(payload),
        }
    }
}

/// What the data plane says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromProxy {
    Hello {
        protocol: u32,
        /// Of the `hyperfleet-proxy` binary.
        version: String,
        pid: u32,
        /// The settings it runs with, as `--name value` pairs in the order of `--help`; a control
        /// plane whose settings differ replaces the process.
        arguments: Vec<(String, String)>,
    },
    /// Every worker now decides by the table of this number.
    Applied {
        number: u64,
    },
    /// The numbers do not follow one another; send a snapshot.
    Resync {
        have: u64,
    },
    /// Where does this machine's port listen right now? (refused, or not known to listen)
    Probe {
        id: u64,
        machine: String,
        port: u16,
    },
    Counters {
        counters: Counters,
    },
    /// A part of what was measured for each machine that was ever asked for something. `next` is
    /// the `after` of the next part, if there is one.
    Meters {
        machines: Vec<MachineMeters>,
        next: Option<(String, u16)>,
    },
    /// The last message not understood, and why; the connection is closed after it.
    Refused {
        message: String,
    },
}

/// A machine as the data plane sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub id: String,
    pub name: String,
    /// One of the API's states; only `running` is served.
    pub status: String,
    /// Changes with each start: connections of another lifecycle are never reused.
    #[serde(default)]
    pub lifecycle: u64,
    /// The exposed ports.
    #[serde(default)]
    pub ports: Vec<Port>,
}

/// An exposed port of a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    pub port: u16,
    /// `ADDRESS:PORT` to connect to; `None` when there is none yet.
    pub upstream: Option<String>,
    /// Whether something listened at the last look. If not, the data plane asks (`probe`) before
    /// it sends a request there. Alone (no control plane) it just tries.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub listening: bool,
    /// The `Host` that its server gets; `None`: the client's. This and what follows goes without
    /// saying where it is the default: older data planes don't know it, and tables are shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether path mode cuts its prefix off the path.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub strip_prefix: bool,
}

impl Port {
    /// An exposed port without options.
    pub fn new(port: u16, upstream: Option<String>, listening: bool) -> Port {
        Port {
            port,
            upstream,
            listening,
            host: None,
            strip_prefix: true,
        }
    }
}

fn yes() -> bool {
    true
}

/// As serde wants it, by reference.
fn is_yes(value: &bool) -> bool {
    *value
}

/// What the agent said of a port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// It listens; connect here.
    Listening { upstream: String },
    /// The agent answered: nothing listens there.
    Closed,
    /// The agent could not be asked.
    Unknown,
}

/// Totals since the process started, but for `connections`, `tunnels` and `in_flight`, which are
/// now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    pub connections: u64,
    pub tunnels: u64,
    pub accepted: u64,
    pub requests: u64,
    /// Answers by class of status, 1xx to 5xx.
    pub responses: [u64; 5],
    /// Answers of the proxy's own by code (`X-Hyperfleet-Error`).
    pub errors: Vec<(String, u64)>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub upstream_connects: u64,
    pub upstream_reuses: u64,
    /// How many times each bound was met, by its name (docs/reference/bounds.md).
    #[serde(default)]
    pub bounds: BTreeMap<String, u64>,
    /// Requests that machines have not answered whole yet; tunnels among them.
    pub in_flight: u64,
    /// Upper bounds of the buckets of every [`Histogram`], microseconds; one more bucket is above.
    pub bounds_us: Vec<u64>,
    pub duration: Histogram,
    pub first_byte: Histogram,
}

/// Times: how many in each bucket by itself, and their sum. `duration` is from a request's first
/// byte to its response's last and counts responses that were passed on whole; `first_byte` is from
/// the same to the machine's first byte, tunnels included.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub counts: Vec<u64>,
    pub sum_us: u64,
}

/// What was measured for a machine, over all of its runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineMeters {
    pub id: String,
    /// Connections to it that are open, idle ones among them.
    pub connections: u64,
    /// Its requests in flight; tunnels among them.
    pub in_flight: u64,
    /// Milliseconds since the last byte of a request, a response or a tunnel; of all ports, also
    /// of those that are in another part.
    pub idle_ms: u64,
    /// Only those that were asked for something.
    pub ports: Vec<PortMeters>,
}

/// Totals of a port since it was first asked; `in_flight` and `tunnels` are now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PortMeters {
    pub port: u16,
    pub requests: u64,
    /// Final answers by class of status, 1xx to 5xx, the proxy's own among them.
    pub responses: [u64; 5],
    /// Answers of the proxy's own by code.
    pub errors: Vec<(String, u64)>,
    /// Of requests and their responses, heads as clients sent and got them.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub in_flight: u64,
    pub tunnels: u64,
    pub duration: Histogram,
    pub first_byte: Histogram,
}
