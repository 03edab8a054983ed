//! A control plane in the test's hands.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use hyperfleet_wire::control::{
    Counters, FromProxy, Machine, Port, ProbeOutcome, ToProxy, PROTOCOL,
};
use hyperfleet_wire::{decode, encode, length};

use super::{Proxy, ID, PATIENCE};

pub struct ControlPlane {
    pub stream: UnixStream,
    input: Vec<u8>,
}

impl ControlPlane {
    /// Connected, both hellos said.
    pub fn new(proxy: &Proxy) -> ControlPlane {
        let mut plane = ControlPlane::silent(proxy);
        plane.say(&ToProxy::Hello { protocol: PROTOCOL });
        plane
    }

    /// Connected, and the proxy's hello read.
    pub fn silent(proxy: &Proxy) -> ControlPlane {
        let stream = UnixStream::connect(proxy.control_socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut plane = ControlPlane {
            stream,
            input: Vec::new(),
        };
        let FromProxy::Hello {
            protocol,
            pid,
            arguments,
            ..
        } = plane.hear()
        else {
            panic!("hello comes first");
        };
        assert_eq!((protocol, pid), (PROTOCOL, proxy.pid()));
        let workers = ("workers".to_owned(), "2".to_owned());
        assert!(arguments.contains(&workers), "{arguments:?}");
        plane
    }

    pub fn say(&mut self, message: &ToProxy) {
        let mut frame = Vec::new();
        length::write(&encode(message), &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    pub fn hear(&mut self) -> FromProxy {
        self.try_hear().expect("a message, not the end")
    }

    /// The next message, or `None` at the end.
    pub fn try_hear(&mut self) -> Option<FromProxy> {
        loop {
            if let Some((payload, taken)) = length::read(&self.input).unwrap() {
                let message = decode(payload).unwrap();
                self.input.drain(..taken);
                return Some(message);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).unwrap() {
                0 => return None,
                count => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// A snapshot in parts of one machine each, applied.
    pub fn snapshot(&mut self, number: u64, machines: Vec<Machine>) {
        self.say(&ToProxy::SnapshotBegin { number });
        for machine in machines {
            let machines = vec![machine];
            self.say(&ToProxy::SnapshotPart { machines });
        }
        self.say(&ToProxy::SnapshotEnd { number });
        assert_eq!(self.hear(), FromProxy::Applied { number });
    }

    pub fn change(&mut self, number: u64, upsert: Vec<Machine>, remove: &[&str]) {
        self.say(&ToProxy::Change {
            number,
            upsert,
            remove: remove.iter().map(|&id| id.to_owned()).collect(),
        });
    }

    pub fn probe(&mut self) -> u64 {
        match self.hear() {
            FromProxy::Probe { id, machine, port } => {
                assert_eq!((machine.as_str(), port), (ID, 80));
                id
            }
            other => panic!("a probe, not {other:?}"),
        }
    }

    pub fn answer(&mut self, id: u64, outcome: ProbeOutcome) {
        self.say(&ToProxy::ProbeResult { id, outcome });
    }

    /// The counters as they are now.
    pub fn counters(&mut self) -> Counters {
        self.say(&ToProxy::CountersRequest);
        match self.hear() {
            FromProxy::Counters { counters } => counters,
            other => panic!("counters, not {other:?}"),
        }
    }

    /// Waits until the counters are as wanted.
    #[track_caller]
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Counters) -> bool) -> Counters {
        let began = Instant::now();
        loop {
            let counters = self.counters();
            if wanted(&counters) {
                return counters;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {counters:?}");
            std::thread::yield_now();
        }
    }
}

/// Machine [`ID`] as `web`.
pub fn web(status: &str, upstream: Option<SocketAddr>, listening: bool) -> Machine {
    Machine {
        id: ID.to_owned(),
        name: "web".to_owned(),
        status: status.to_owned(),
        lifecycle: 1,
        ports: vec![Port::new(
            80,
            upstream.map(|address| address.to_string()),
            listening,
        )],
    }
}
