//! The table's source in this process: checks what it is told and sends it to every worker.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyperfleet_wire::control::Machine;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use crate::table::{Record, Usage};
use crate::takeover::Predecessor;

/// What a worker is told.
#[derive(Clone)]
pub enum Command {
    /// The whole table.
    Replace(Arc<[Arc<Record>]>, Applied),
    /// New and changed machines, and ids that are gone.
    Change(Arc<[Arc<Record>]>, Arc<[String]>, Applied),
    /// Stop accepting, finish what is in flight.
    Drain(Drain),
}

/// How a worker ends.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// All of it ends within this time.
    pub limit: Duration,
    /// Connections that are idle keep their time: another process serves the port, and each moves
    /// over after its next request. Otherwise they have a moment.
    pub patient: bool,
}

/// Dropped by each worker when it decides by the new table; the last one closes the channel.
pub type Applied = Arc<oneshot::Sender<()>>;

/// Every machine of the process, and the workers that must know.
pub struct Routes {
    machines: HashMap<String, Arc<Record>>,
    /// There was a table.
    known: bool,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    /// The process before this one, which must know too.
    predecessor: Option<Predecessor>,
}

impl Routes {
    pub fn new(workers: Vec<mpsc::UnboundedSender<Command>>) -> Routes {
        Routes {
            machines: HashMap::new(),
            known: false,
            workers,
            predecessor: None,
        }
    }

    /// Every change goes to `predecessor` too from here on.
    pub fn pass_on(&mut self, predecessor: Predecessor) {
        self.predecessor = Some(predecessor);
    }

    /// Replaces the table. The receiver is closed when every worker decides by the new one.
    ///
    /// # Errors
    /// What is wrong with which machine; nothing has changed then.
    pub fn replace(&mut self, machines: &[Machine]) -> Result<oneshot::Receiver<()>, String> {
        let mut known = HashMap::with_capacity(machines.len());
        let mut records = Vec::with_capacity(machines.len());
        for machine in machines {
            let record = Arc::new(Record::new(machine, self.usage(&machine.id))?);
            records.push(record.clone());
            if known.insert(machine.id.clone(), record).is_some() {
                return Err(format!("machine {:?} is there twice", machine.id));
            }
        }
        self.machines = known;
        self.known = true;
        let (applied, receiver) = oneshot::channel();
        let applied = Arc::new(applied);
        if let Some(predecessor) = &self.predecessor {
            predecessor.replace(machines, &applied);
        }
        self.send(&Command::Replace(records.into(), applied));
        Ok(receiver)
    }

    /// Takes new and changed machines and forgets those that are gone.
    ///
    /// # Errors
    /// As [`Routes::replace`].
    pub fn change(
        &mut self,
        upsert: &[Machine],
        remove: Vec<String>,
    ) -> Result<oneshot::Receiver<()>, String> {
        let mut records = Vec::with_capacity(upsert.len());
        for machine in upsert {
            let record = Record::new(machine, self.usage(&machine.id))?;
            records.push(Arc::new(record));
        }
        for record in &records {
            self.machines.insert(record.id.to_string(), record.clone());
        }
        for id in &remove {
            self.machines.remove(id);
        }
        let (applied, receiver) = oneshot::channel();
        let applied = Arc::new(applied);
        if let Some(predecessor) = &self.predecessor {
            predecessor.change(upsert, &remove, &applied);
        }
        self.send(&Command::Change(records.into(), remove.into(), applied));
        Ok(receiver)
    }

    /// The whole table; `None` before the first.
    pub fn snapshot(&self) -> Option<Vec<Machine>> {
        let machines = self.machines.values().map(|record| record.to_machine());
        self.known.then(|| machines.collect())
    }

    /// Tells every worker to finish.
    pub fn drain(&self, drain: Drain) {
        if let Some(predecessor) = &self.predecessor {
            if !drain.patient {
                predecessor.drain(drain);
            }
        }
        self.send(&Command::Drain(drain));
    }

    /// What a machine uses is counted over all of its records.
    fn usage(&self, id: &str) -> Arc<Usage> {
        let known = self.machines.get(id);
        known.map_or_else(Arc::default, |record| record.usage.clone())
    }

    fn send(&self, command: &Command) {
        for worker in &self.workers {
            // A worker that is gone needs no table; the process notices by itself.
            let _ = worker.send(command.clone());
        }
    }
}

/// Reads a routes file: `{"machines":[{"id","name","status","ports":[{"port","upstream"}]}]}`.
///
/// # Errors
/// One line that names the file and what is wrong with it.
pub fn read_file(path: &Path) -> Result<Vec<Machine>, String> {
    #[derive(Deserialize)]
    struct File {
        machines: Vec<Machine>,
    }
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file: File =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(file.machines)
}
