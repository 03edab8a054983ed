//! What the workers have measured, in parts that fit a frame.

use std::ops::Bound::{Included, Unbounded};
use std::sync::atomic::Ordering::Relaxed;

use hyperfleet_wire::control::{FromProxy, MachineMeters};

use crate::routes::Routes;

/// Most ports in a part: of at most 1 KiB each, so that half a frame is never passed.
const PORTS: usize = 512;
/// Most machines looked at for a part: most were never asked for anything.
const MACHINES: usize = 8192;

/// Requests in flight, of all machines.
pub fn in_flight(routes: &Routes) -> u64 {
    let requests = routes.from(Unbounded);
    requests
        .map(|record| u64::from(record.usage.requests.load(Relaxed)))
        .sum()
}

/// The part behind the port `after` of a machine; of all machines, or of one.
pub fn part(routes: &Routes, only: Option<&str>, after: Option<(String, u16)>) -> FromProxy {
    let from = only.or(after.as_ref().map(|(id, _)| id.as_str()));
    let records = routes.from(from.map_or(Unbounded, Included));
    let wanted = records.take_while(|record| only.is_none_or(|id| *record.id == *id));
    let mut machines = Vec::new();
    let mut left = PORTS;
    for (looked, record) in wanted.enumerate() {
        let id = String::from(&*record.id);
        let after = after.as_ref().filter(|(last, _)| *last == id);
        let after = after.map(|(_, port)| *port);
        // Behind all of its ports, if nothing of them is read.
        let mut last = u16::MAX;
        if let Some((ports, idle_ms)) = record.usage.ledger.read(after, left) {
            left -= ports.len();
            if let Some(port) = ports.last() {
                last = port.port;
                machines.push(MachineMeters {
                    id: id.clone(),
                    connections: record.usage.connections.load(Relaxed).into(),
                    in_flight: record.usage.requests.load(Relaxed).into(),
                    idle_ms,
                    ports,
                });
            }
        }
        if left == 0 || looked + 1 == MACHINES {
            let next = Some((id, last));
            return FromProxy::Meters { machines, next };
        }
    }
    let next = None;
    FromProxy::Meters { machines, next }
}
