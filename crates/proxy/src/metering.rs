//! What the workers have measured, in parts that fit a frame.

use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use hyperfleet_wire::control::{FromProxy, MachineMeters};

use crate::table::Usage;

/// Most ports in a part: of at most 1 KiB each, so that half a frame is never passed.
const PORTS: usize = 512;
/// Most machines looked at for a part: most were never asked for anything.
const MACHINES: usize = 8192;

/// Requests in flight, of all machines.
pub fn in_flight(usage: &BTreeMap<String, Arc<Usage>>) -> u64 {
    let requests = |used: &Arc<Usage>| u64::from(used.requests.load(Relaxed));
    usage.values().map(requests).sum()
}

/// The part behind the port `after` of a machine; of all machines, or of one.
pub fn part(
    usage: &BTreeMap<String, Arc<Usage>>,
    only: Option<&str>,
    after: Option<(String, u16)>,
) -> FromProxy {
    let (from, to) = match (only, &after) {
        (Some(id), _) => (Included(id), Included(id)),
        (None, Some((id, _))) => (Included(id.as_str()), Unbounded),
        (None, None) => (Unbounded, Unbounded),
    };
    let mut machines = Vec::new();
    let mut left = PORTS;
    let mut next = None;
    for (looked, (id, used)) in usage.range::<str, _>((from, to)).enumerate() {
        let after = after.as_ref().filter(|(last, _)| last == id);
        let after = after.map(|(_, port)| *port);
        if let Some((ports, idle_ms)) = used.ledger.read(after, left) {
            left -= ports.len();
            if let Some(last) = ports.last() {
                next = Some((id.clone(), last.port));
                machines.push(MachineMeters {
                    id: id.clone(),
                    connections: used.connections.load(Relaxed).into(),
                    in_flight: used.requests.load(Relaxed).into(),
                    idle_ms,
                    ports,
                });
            }
        }
        if left == 0 {
            return FromProxy::Meters { machines, next };
        }
        if looked + 1 == MACHINES {
            // Behind all of this one's ports.
            let next = Some((id.clone(), u16::MAX));
            return FromProxy::Meters { machines, next };
        }
    }
    let next = None;
    FromProxy::Meters { machines, next }
}
