//! The table's source in this process: checks what it is told and sends it to every worker.

use std::future::Future;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyperfleet_wire::control::Machine;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use crate::index::{Difference, Index};
use crate::record::Record;
use crate::takeover::Predecessor;

/// Machines that a worker takes in one go, between which it serves requests.
const SLICE: usize = 32;

/// What a worker is told.
#[derive(Clone)]
pub enum Command {
    Change(Arc<Change>),
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

/// A slice of a step from one table to the next.
pub struct Change {
    /// In the new table.
    pub machines: usize,
    /// New and changed machines.
    pub upsert: Vec<Arc<Record>>,
    /// Those that are gone.
    pub remove: Vec<Arc<Record>>,
    /// With a step's last slice, after which the worker decides by the new table. It is dropped
    /// with the change: the last worker closes the channel.
    pub applied: Option<oneshot::Sender<()>>,
}

/// Every machine of the process, and the workers that must know.
pub struct Routes {
    /// In the order in which their meters are asked for.
    known: Index,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    /// There was a table.
    begun: bool,
    /// The process before this one, which must know too.
    predecessor: Option<Predecessor>,
}

impl Routes {
    pub fn new(workers: Vec<mpsc::UnboundedSender<Command>>) -> Routes {
        Routes {
            known: Index::default(),
            workers,
            begun: false,
            predecessor: None,
        }
    }

    /// Every change goes to `predecessor` too from here on.
    pub fn pass_on(&mut self, predecessor: Predecessor) {
        self.predecessor = Some(predecessor);
    }

    /// Ends when no process before this one has connections any more. Until then it is their link
    /// to what changes.
    pub fn elders_gone(&self) -> impl Future<Output = ()> {
        let gone = self.predecessor.as_ref().map(Predecessor::gone);
        async move {
            if let Some(gone) = gone {
                gone.await;
            }
        }
    }

    /// The whole table; `None` before the first.
    pub fn snapshot(&self) -> Option<Vec<Machine>> {
        let machines = self.known.iter().map(|record| record.to_machine());
        self.begun.then(|| machines.collect())
    }

    /// A machine as the next step has it: the record that is known, if it says the same; what the
    /// machine uses stays counted.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn record(&self, machine: &Machine) -> Result<Arc<Record>, String> {
        let mut record = Record::new(machine)?;
        if let Some(known) = self.known.get(&record.id) {
            if known.is_as(&record) {
                return Ok(known.clone());
            }
            record.usage = known.usage.clone();
        }
        Ok(Arc::new(record))
    }

    /// Replaces the table by what [`Routes::record`] made of its machines since the last step. The
    /// workers are told the difference only. The receiver is closed when every worker decides by
    /// the new one.
    ///
    /// # Errors
    /// Which machine is there twice; nothing has changed then.
    pub fn replace(&mut self, records: Vec<Arc<Record>>) -> Result<oneshot::Receiver<()>, String> {
        let difference = self.known.replace(records);
        let Difference { upsert, remove } =
            difference.map_err(|twice| format!("machine {:?} is there twice", twice.id))?;
        upsert.iter().for_each(|record| forget_hidden(record));
        self.begun = true;
        Ok(self.tell(&upsert, &remove))
    }

    /// Takes new and changed machines, as [`Routes::record`] made them, and forgets those that are
    /// gone; the receiver is that of [`Routes::replace`].
    pub fn change(&mut self, upsert: &[Arc<Record>], remove: &[String]) -> oneshot::Receiver<()> {
        for record in upsert {
            forget_hidden(record);
            self.known.put(record.clone());
        }
        let gone = remove.iter().filter_map(|id| self.known.take(id));
        let gone: Vec<_> = gone.collect();
        self.tell(upsert, &gone)
    }

    /// Replaces the table by these machines; the receiver is that of [`Routes::replace`].
    ///
    /// # Errors
    /// As [`Routes::record`] and [`Routes::replace`]; nothing has changed then.
    pub fn read(&mut self, machines: &[Machine]) -> Result<oneshot::Receiver<()>, String> {
        let records = machines.iter().map(|machine| self.record(machine));
        let records = records.collect::<Result<_, _>>()?;
        self.replace(records)
    }

    /// The machines from an id on, in the order of their ids.
    pub fn from(&self, id: Bound<&str>) -> impl Iterator<Item = &Record> {
        self.known.from(id)
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

    fn tell(&self, upsert: &[Arc<Record>], remove: &[Arc<Record>]) -> oneshot::Receiver<()> {
        let (applied, receiver) = oneshot::channel();
        let mut applied = Some(applied);
        // What is new before what is gone, as a change has it. A step without any difference is a
        // step too.
        let new = upsert.chunks(SLICE).map(|slice| (slice, &[][..]));
        let gone = remove.chunks(SLICE).map(|slice| (&[][..], slice));
        let count = (upsert.len().div_ceil(SLICE) + remove.len().div_ceil(SLICE)).max(1);
        let slices = new.chain(gone).chain([(&[][..], &[][..])]).take(count);
        for (number, (upsert, remove)) in slices.enumerate() {
            let change = Arc::new(Change {
                machines: self.known.len(),
                upsert: upsert.to_vec(),
                remove: remove.to_vec(),
                applied: applied.take_if(|_| number + 1 == count),
            });
            if let Some(predecessor) = &self.predecessor {
                predecessor.change(&change);
            }
            self.send(&Command::Change(change));
            // A worker of the same CPU takes it now: those that pile up would hold requests up.
            std::thread::yield_now();
        }
        receiver
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn machine(id: usize, name: &str) -> Machine {
        Machine {
            id: format!("m{id}"),
            name: name.to_owned(),
            status: "running".to_owned(),
            lifecycle: 1,
            ports: Vec::new(),
        }
    }

    fn machines(ids: std::ops::Range<usize>) -> Vec<Machine> {
        ids.map(|id| machine(id, &format!("n{id}"))).collect()
    }

    /// What a worker was told since the last time: ids of new or changed machines, ids that are
    /// gone, the largest slice, and whether the step is whole.
    fn told(
        worker: &mut mpsc::UnboundedReceiver<Command>,
    ) -> (Vec<String>, Vec<String>, usize, bool) {
        let (mut upsert, mut remove, mut largest, mut whole) = (Vec::new(), Vec::new(), 0, false);
        while let Ok(Command::Change(change)) = worker.try_recv() {
            assert!(!whole, "nothing comes after a step's last slice");
            largest = largest.max(change.upsert.len()).max(change.remove.len());
            upsert.extend(change.upsert.iter().map(|record| record.id.to_string()));
            remove.extend(change.remove.iter().map(|record| record.id.to_string()));
            whole = change.applied.is_some();
        }
        upsert.sort();
        remove.sort();
        (upsert, remove, largest, whole)
    }

    #[test]
    fn a_whole_table_is_told_as_what_is_new_in_it_in_slices() {
        let (sender, mut worker) = mpsc::unbounded_channel();
        let mut routes = Routes::new(vec![sender]);
        routes.read(&machines(0..1000)).unwrap();
        let (upsert, remove, largest, whole) = told(&mut worker);
        assert_eq!((upsert.len(), remove.len(), whole), (1000, 0, true));
        assert_eq!(largest, SLICE);
        let mut next = machines(1..1001);
        next[4].name = "other".to_owned();
        routes.read(&next).unwrap();
        let (upsert, remove, _, whole) = told(&mut worker);
        assert_eq!(upsert, ["m1000", "m5"]);
        assert_eq!((remove.as_slice(), whole), (&["m0".to_owned()][..], true));
        routes.read(&next).unwrap();
        assert_eq!(told(&mut worker), (vec![], vec![], 0, true));
    }

    #[test]
    fn the_last_worker_to_take_a_step_tells_that_it_is_applied() {
        let (first, mut one) = mpsc::unbounded_channel();
        let (second, mut two) = mpsc::unbounded_channel();
        let mut routes = Routes::new(vec![first, second]);
        let record = routes.record(&machine(1, "web")).unwrap();
        let mut applied = routes.change(&[record], &[]);
        told(&mut one);
        assert_eq!(applied.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        told(&mut two);
        assert_eq!(
            applied.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
    }

    #[test]
    fn what_a_machine_uses_outlives_its_records_and_a_table_that_is_refused() {
        let mut routes = Routes::new(Vec::new());
        routes.read(&machines(0..2)).unwrap();
        let old = routes.record(&machine(1, "n1")).unwrap();
        old.usage.requests.fetch_add(7, Relaxed);
        let twice = [machine(1, "web"), machine(0, "n0"), machine(1, "web")];
        let refused = routes.read(&twice).unwrap_err();
        assert_eq!(refused, "machine \"m1\" is there twice");
        let new = routes.record(&machine(1, "web")).unwrap();
        assert_eq!(new.usage.requests.load(Relaxed), 7);
        assert!(!Arc::ptr_eq(&old, &new));
        let same = routes.record(&machine(1, "n1")).unwrap();
        assert!(Arc::ptr_eq(&old, &same));
        let gone = routes.change(&[], &["m1".to_owned()]);
        drop(gone);
        let again = routes.record(&machine(1, "n1")).unwrap();
        assert_eq!(again.usage.requests.load(Relaxed), 0);
    }

    #[test]
    fn a_machine_that_is_new_and_gone_in_one_step_is_gone_at_its_end() {
        let (sender, mut worker) = mpsc::unbounded_channel();
        let mut routes = Routes::new(vec![sender]);
        let records: Vec<_> = machines(0..SLICE + 1)
            .iter()
            .map(|machine| routes.record(machine).unwrap())
            .collect();
        drop(routes.change(&records, &[format!("m{SLICE}")]));
        let mut left = HashSet::new();
        while let Ok(Command::Change(change)) = worker.try_recv() {
            left.extend(change.upsert.iter().map(|record| record.id.clone()));
            for record in &change.remove {
                left.remove(&record.id);
            }
        }
        assert_eq!(left.len(), SLICE);
    }
}
