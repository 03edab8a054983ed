//! The table's source in this process: checks what it is told and sends it to every worker.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyperfleet_wire::control::Machine;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use crate::table::{Record, Usage};

/// What a worker is told.
#[derive(Clone)]
pub enum Command {
    /// The whole table.
    Replace(Arc<[Arc<Record>]>, Applied),
    /// New and changed machines, and ids that are gone.
    Change(Arc<[Arc<Record>]>, Arc<[String]>, Applied),
    /// Stop accepting, end what is idle, finish what is in flight within this time.
    Drain(Duration),
}

/// Dropped by each worker when it decides by the new table; the last one closes the channel.
pub type Applied = Arc<oneshot::Sender<()>>;

/// Every machine of the process, and the workers that must know.
pub struct Routes {
    /// In the order in which they are asked for.
    usage: BTreeMap<String, Arc<Usage>>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
}

impl Routes {
    pub fn new(workers: Vec<mpsc::UnboundedSender<Command>>) -> Routes {
        Routes {
            usage: BTreeMap::new(),
            workers,
        }
    }

    /// Replaces the table. The receiver is closed when every worker decides by the new one.
    ///
    /// # Errors
    /// What is wrong with which machine; nothing has changed then.
    pub fn replace(&mut self, machines: &[Machine]) -> Result<oneshot::Receiver<()>, String> {
        let mut usage = BTreeMap::new();
        let mut records = Vec::with_capacity(machines.len());
        for machine in machines {
            let used = self.usage.get(&machine.id).cloned().unwrap_or_default();
            records.push(Arc::new(Record::new(machine, used.clone())?));
            if usage.insert(machine.id.clone(), used).is_some() {
                return Err(format!("machine {:?} is there twice", machine.id));
            }
        }
        records.iter().for_each(|record| forget_hidden(record));
        self.usage = usage;
        let (applied, receiver) = oneshot::channel();
        self.send(&Command::Replace(records.into(), Arc::new(applied)));
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
            let used = self.usage.get(&machine.id).cloned().unwrap_or_default();
            records.push(Arc::new(Record::new(machine, used)?));
        }
        for record in &records {
            forget_hidden(record);
            self.usage
                .insert(record.id.to_string(), record.usage.clone());
        }
        for id in &remove {
            self.usage.remove(id);
        }
        let (applied, receiver) = oneshot::channel();
        self.send(&Command::Change(
            records.into(),
            remove.into(),
            Arc::new(applied),
        ));
        Ok(receiver)
    }

    /// What each machine uses, in the order of their ids.
    pub fn usage(&self) -> &BTreeMap<String, Arc<Usage>> {
        &self.usage
    }

    /// Tells every worker to finish, within `limit`.
    pub fn drain(&self, limit: Duration) {
        self.send(&Command::Drain(limit));
    }

    fn send(&self, command: &Command) {
        for worker in &self.workers {
            // A worker that is gone needs no table; the process notices by itself.
            let _ = worker.send(command.clone());
        }
    }
}

/// Forgets the meters of ports that are not exposed any more.
fn forget_hidden(record: &Record) {
    let ledger = &record.usage.ledger;
    ledger.retain(|port| record.port(port).is_some());
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
