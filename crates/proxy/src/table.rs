//! What a worker knows of the machines. Each worker owns a table and is sent every change, so that
//! a request takes no lock; records are shared between the workers, never copied.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Arc;
use std::task::Waker;

use hyperfleet_wire::control;
use slab::Slab;

/// A machine, checked. One value serves all workers.
#[derive(Debug)]
pub struct Record {
    pub id: Box<str>,
    pub name: Box<str>,
    pub running: bool,
    pub lifecycle: u64,
    /// Sorted by port.
    ports: Box<[Port]>,
    pub usage: Arc<Usage>,
}

/// An exposed port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub port: u16,
    pub upstream: Option<SocketAddr>,
    pub listening: bool,
}

/// What a machine uses right now, over all workers and all of its records.
#[derive(Debug, Default)]
pub struct Usage {
    pub requests: AtomicU32,
    pub connections: AtomicU32,
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
    pub fn new(machine: &control::Machine, usage: Arc<Usage>) -> Result<Record, String> {
        let id = &machine.id;
        for (what, value) in [("id", id), ("name", &machine.name)] {
            if value.is_empty() || value.len() > 255 {
                return Err(format!("machine {id:?}: its {what} must be 1 to 255 bytes"));
            }
        }
        let mut ports = Vec::with_capacity(machine.ports.len());
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
            });
        }
        ports.sort_unstable_by_key(|port| port.port);
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
            usage,
        })
    }

    /// What a control plane would say of it to another process.
    pub fn to_machine(&self) -> control::Machine {
        let ports = self.ports.iter().map(|port| control::Port {
            port: port.port,
            upstream: port.upstream.map(|address| address.to_string()),
            listening: port.listening,
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
}

/// Why a machine's connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped or started anew.
    Stopped,
    /// It is gone.
    Removed,
}

/// One run of a machine as a worker sees it: who must hear of its end.
pub struct Life {
    /// Unique in this worker; the pool's key.
    pub number: u64,
    ended: Cell<Option<Ended>>,
    watchers: RefCell<Slab<Waker>>,
}

impl Life {
    fn new(number: u64) -> Rc<Life> {
        Rc::new(Life {
            number,
            ended: Cell::new(None),
            watchers: RefCell::new(Slab::new()),
        })
    }

    pub fn ended(&self) -> Option<Ended> {
        self.ended.get()
    }

    /// Wakes `waker` when this life ends, for as long as the watch is kept.
    pub fn watch(self: &Rc<Self>, waker: Waker) -> Watch {
        Watch {
            key: self.watchers.borrow_mut().insert(waker),
            life: self.clone(),
        }
    }

    fn end(&self, why: Ended) {
        self.ended.set(Some(why));
        for (_, waker) in self.watchers.borrow().iter() {
            waker.wake_by_ref();
        }
    }
}

/// See [`Life::watch`].
pub struct Watch {
    life: Rc<Life>,
    key: usize,
}

impl Watch {
    pub fn ended(&self) -> Option<Ended> {
        self.life.ended()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.life.watchers.borrow_mut().remove(self.key);
    }
}

/// A machine in the table of one worker.
#[derive(Clone)]
pub struct Entry {
    pub record: Arc<Record>,
    pub life: Rc<Life>,
}

/// Machines by id and by name.
#[derive(Default)]
pub struct Table {
    by_id: HashMap<Box<[u8]>, Entry>,
    /// Name to id.
    by_name: HashMap<Box<[u8]>, Box<[u8]>>,
    lives: u64,
}

impl Table {
    /// The machine of an id or a name; an id wins.
    pub fn find(&self, reference: &[u8]) -> Option<&Entry> {
        self.by_id
            .get(reference)
            .or_else(|| self.by_id.get(self.by_name.get(reference)?))
    }

    /// Takes a new or changed machine. Returns the life that this ended, its connections told.
    pub fn upsert(&mut self, record: Arc<Record>) -> Option<u64> {
        let id = record.id.as_bytes();
        let old = self.by_id.get(id);
        let same_life = old.is_some_and(|old| {
            old.record.running == record.running && old.record.lifecycle == record.lifecycle
        });
        let renamed = old.is_none_or(|old| old.record.name != record.name);
        if renamed {
            if let Some(name) = old.map(|old| old.record.name.clone()) {
                self.forget_name(name.as_bytes(), id);
            }
            self.by_name
                .insert(record.name.as_bytes().into(), id.into());
        }
        if same_life {
            if let Some(old) = self.by_id.get_mut(id) {
                old.record = record;
            }
            return None;
        }
        self.lives += 1;
        let life = Life::new(self.lives);
        let key = id.into();
        let old = self.by_id.insert(key, Entry { record, life })?;
        old.life.end(Ended::Stopped);
        Some(old.life.number)
    }

    /// Forgets a machine. Returns the life that this ended, its connections told.
    pub fn remove(&mut self, id: &[u8]) -> Option<u64> {
        let old = self.by_id.remove(id)?;
        self.forget_name(old.record.name.as_bytes(), id);
        old.life.end(Ended::Removed);
        Some(old.life.number)
    }

    /// The ids of all machines for which `gone` says so.
    pub fn ids(&self, mut gone: impl FnMut(&[u8]) -> bool) -> Vec<Box<[u8]>> {
        self.by_id.keys().filter(|id| gone(id)).cloned().collect()
    }

    /// The name may have gone to another machine since.
    fn forget_name(&mut self, name: &[u8], id: &[u8]) {
        if self.by_name.get(name).is_some_and(|owner| &**owner == id) {
            self.by_name.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, name: &str, status: &str, lifecycle: u64) -> Arc<Record> {
        let machine = control::Machine {
            id: id.into(),
            name: name.into(),
            status: status.into(),
            lifecycle,
            ports: vec![
                control::Port {
                    port: 8080,
                    upstream: None,
                    listening: false,
                },
                control::Port {
                    port: 80,
                    upstream: Some("127.0.0.1:9001".into()),
                    listening: true,
                },
            ],
        };
        Arc::new(Record::new(&machine, Arc::default()).unwrap())
    }

    fn found(table: &Table, reference: &str) -> Option<String> {
        let entry = table.find(reference.as_bytes())?;
        Some(entry.record.id.to_string())
    }

    #[test]
    fn an_id_wins_over_a_name() {
        let mut table = Table::default();
        table.upsert(record("a", "b", "running", 1));
        table.upsert(record("b", "c", "running", 1));
        assert_eq!(found(&table, "b").as_deref(), Some("b"));
        assert_eq!(found(&table, "c").as_deref(), Some("b"));
        table.remove(b"b");
        assert_eq!(found(&table, "b").as_deref(), Some("a"));
        assert_eq!(found(&table, "c"), None);
    }

    #[test]
    fn a_name_that_moved_on_is_not_taken_from_its_new_owner() {
        let mut table = Table::default();
        table.upsert(record("a", "web", "running", 1));
        table.upsert(record("b", "web", "running", 1));
        table.upsert(record("a", "old", "running", 1));
        assert_eq!(found(&table, "web").as_deref(), Some("b"));
        table.remove(b"a");
        assert_eq!(found(&table, "web").as_deref(), Some("b"));
        assert_eq!(found(&table, "old"), None);
    }

    #[test]
    fn a_life_ends_with_status_lifecycle_or_removal_and_not_with_a_port() {
        let mut table = Table::default();
        table.upsert(record("a", "web", "running", 1));
        let first = table.find(b"a").unwrap().life.clone();
        assert_eq!(table.upsert(record("a", "renamed", "running", 1)), None);
        assert_eq!(first.ended(), None);
        assert_eq!(
            table.upsert(record("a", "web", "stopping", 1)),
            Some(first.number)
        );
        assert_eq!(first.ended(), Some(Ended::Stopped));
        table.upsert(record("a", "web", "running", 2));
        let second = table.find(b"a").unwrap().life.clone();
        table.upsert(record("a", "web", "running", 3));
        assert_eq!(second.ended(), Some(Ended::Stopped));
        let third = table.find(b"a").unwrap().life.clone();
        table.remove(b"a");
        assert_eq!(third.ended(), Some(Ended::Removed));
    }

    #[test]
    fn ports_are_found_and_checked() {
        let known = record("a", "web", "running", 1);
        assert!(known.port(80).unwrap().listening);
        assert_eq!(known.port(8080).unwrap().upstream, None);
        assert_eq!(known.port(81), None);
        let mut machine = control::Machine {
            id: "a".into(),
            name: "web".into(),
            status: "running".into(),
            lifecycle: 0,
            ports: vec![control::Port {
                port: 80,
                upstream: Some("localhost".into()),
                listening: true,
            }],
        };
        let error = Record::new(&machine, Arc::default()).unwrap_err();
        assert!(error.contains("\"localhost\""), "{error}");
        machine.ports = vec![machine.ports[0].clone(), machine.ports[0].clone()];
        machine
            .ports
            .iter_mut()
            .for_each(|port| port.upstream = None);
        let error = Record::new(&machine, Arc::default()).unwrap_err();
        assert!(error.contains("twice"), "{error}");
        machine.id = String::new();
        assert!(Record::new(&machine, Arc::default()).is_err());
    }
}
