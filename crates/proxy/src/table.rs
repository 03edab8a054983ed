//! What a worker knows of the machines. Each worker owns a table and is sent every change, so that
//! a request takes no lock; records are shared between the workers, never copied.
//!
//! A worker's own part of a machine is small (two rows of an index; a [`Life`] from its first
//! request on), so that many machines times many workers fit.

use std::cell::{Cell, OnceCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::life::{Ended, Life};
use crate::record::Record;

/// A machine that a request is for, held.
#[derive(Clone)]
pub struct Entry {
    pub record: Arc<Record>,
    pub life: Rc<Life>,
}

/// A machine in the table of one worker.
pub struct Row {
    /// Kept, so that a growing table needs to look at no record.
    hash: u64,
    pub record: Arc<Record>,
    /// Nobody has anything to hear of a machine that was never asked for.
    life: OnceCell<Rc<Life>>,
}

/// A machine by its name.
struct Named {
    hash: u64,
    record: Arc<Record>,
}

/// Machines by id and by name.
#[derive(Default)]
pub struct Table {
    by_id: HashTable<Row>,
    by_name: HashTable<Named>,
    /// Users choose names: they must not choose where those stand.
    hasher: RandomState,
    lives: Cell<u64>,
}

impl Table {
    /// The machine of an id or a name; an id wins.
    pub fn find(&self, reference: &[u8]) -> Option<&Row> {
        let hash = self.hasher.hash_one(reference);
        self.row(hash, reference).or_else(|| {
            let named = self
                .by_name
                .find(hash, |named| is_named(named, reference))?;
            let id = named.record.id.as_bytes();
            self.row(self.hasher.hash_one(id), id)
        })
    }

    /// Holds a machine that was found.
    pub fn enter(&self, row: &Row) -> Entry {
        let life = row.life.get_or_init(|| {
            self.lives.set(self.lives.get() + 1);
            Life::new(self.lives.get())
        });
        Entry {
            record: row.record.clone(),
            life: life.clone(),
        }
    }

    /// Makes room for `machines` in all, at once: a table that doubles again and again leaves as
    /// much behind as it takes.
    pub fn reserve(&mut self, machines: usize) {
        let more = machines.saturating_sub(self.by_id.len());
        self.by_id.reserve(more, |row| row.hash);
        let more = machines.saturating_sub(self.by_name.len());
        self.by_name.reserve(more, |named| named.hash);
    }

    /// Takes a new or changed machine. Returns the life that this ended, its connections told.
    pub fn upsert(&mut self, record: Arc<Record>) -> Option<u64> {
        let id = record.id.as_bytes();
        let hash = self.hasher.hash_one(id);
        let Some(row) = self.by_id.find_mut(hash, |row| has_id(row, id)) else {
            self.claim_name(&record);
            let life = OnceCell::new();
            let row = Row { hash, record, life };
            self.by_id.insert_unique(hash, row, |row| row.hash);
            return None;
        };
        let old = std::mem::replace(&mut row.record, record.clone());
        let same_life = old.running == record.running && old.lifecycle == record.lifecycle;
        let ended = if same_life { None } else { row.life.take() };
        if let Some(life) = row.life.get() {
            life.meters.retain(|port| record.port(port).is_some());
        }
        if old.name == record.name {
            self.renew_name(&record);
        } else {
            self.forget_name(&old);
            self.claim_name(&record);
        }
        end(ended, Ended::Stopped)
    }

    /// Forgets a machine. Returns the life that this ended, its connections told.
    pub fn remove(&mut self, id: &[u8]) -> Option<u64> {
        let hash = self.hasher.hash_one(id);
        let found = self.by_id.find_entry(hash, |row| has_id(row, id)).ok()?;
        let (row, _) = found.remove();
        self.forget_name(&row.record);
        end(row.life.into_inner(), Ended::Removed)
    }

    fn row(&self, hash: u64, id: &[u8]) -> Option<&Row> {
        self.by_id.find(hash, |row| has_id(row, id))
    }

    /// The name is this machine's from now on, whoever had it.
    fn claim_name(&mut self, record: &Arc<Record>) {
        let name = record.name.as_bytes();
        let hash = self.hasher.hash_one(name);
        let record = record.clone();
        let found = self.by_name.find_mut(hash, |named| is_named(named, name));
        match found {
            Some(named) => named.record = record,
            None => {
                let named = Named { hash, record };
                self.by_name.insert_unique(hash, named, |named| named.hash);
            }
        }
    }

    /// What the name leads to is the machine's newest record, unless the name is another's by now.
    fn renew_name(&mut self, record: &Arc<Record>) {
        let name = record.name.as_bytes();
        let hash = self.hasher.hash_one(name);
        let found = self.by_name.find_mut(hash, |named| is_named(named, name));
        if let Some(named) = found.filter(|named| named.record.id == record.id) {
            named.record = record.clone();
        }
    }

    /// The name may have gone to another machine since.
    fn forget_name(&mut self, old: &Record) {
        let name = old.name.as_bytes();
        let hash = self.hasher.hash_one(name);
        let found = self.by_name.find_entry(hash, |named| {
            is_named(named, name) && named.record.id == old.id
        });
        if let Ok(named) = found {
            named.remove();
        }
    }
}

fn has_id(row: &Row, id: &[u8]) -> bool {
    row.record.id.as_bytes() == id
}

fn is_named(named: &Named, name: &[u8]) -> bool {
    named.record.name.as_bytes() == name
}

fn end(life: Option<Rc<Life>>, why: Ended) -> Option<u64> {
    let life = life?;
    life.end(why);
    Some(life.number)
}

#[cfg(test)]
mod tests {
    use hyperfleet_wire::control;

    use super::*;

    fn record(id: &str, name: &str, status: &str, lifecycle: u64) -> Arc<Record> {
        let machine = control::Machine {
            id: id.into(),
            name: name.into(),
            status: status.into(),
            lifecycle,
            ports: vec![
                control::Port::new(8080, None, false),
                control::Port::new(80, Some("127.0.0.1:9001".into()), true),
            ],
        };
        Arc::new(Record::new(&machine).unwrap())
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
        let life = |table: &Table| table.enter(table.find(b"a").unwrap()).life;
        let first = life(&table);
        assert_eq!(first.number, life(&table).number);
        assert_eq!(table.upsert(record("a", "renamed", "running", 1)), None);
        assert_eq!(first.ended(), None);
        assert_eq!(
            table.upsert(record("a", "web", "stopping", 1)),
            Some(first.number)
        );
        assert_eq!(first.ended(), Some(Ended::Stopped));
        table.upsert(record("a", "web", "running", 2));
        let second = life(&table);
        table.upsert(record("a", "web", "running", 3));
        assert_eq!(second.ended(), Some(Ended::Stopped));
        let third = life(&table);
        table.remove(b"a");
        assert_eq!(third.ended(), Some(Ended::Removed));
    }

    #[test]
    fn a_machine_that_nobody_asked_for_has_no_life_to_end() {
        let mut table = Table::default();
        table.upsert(record("a", "web", "running", 1));
        assert_eq!(table.upsert(record("a", "web", "stopped", 1)), None);
        assert_eq!(table.remove(b"a"), None);
        assert!(table.find(b"a").is_none() && table.find(b"web").is_none());
    }

    #[test]
    fn a_name_leads_to_the_newest_record_and_old_ones_are_let_go() {
        let mut table = Table::default();
        let old = record("a", "web", "running", 1);
        table.upsert(old.clone());
        table.upsert(record("a", "web", "running", 2));
        assert_eq!(table.find(b"web").unwrap().record.lifecycle, 2);
        assert_eq!(Arc::strong_count(&old), 1);
    }

    #[test]
    fn a_table_that_grows_keeps_all() {
        let mut table = Table::default();
        for number in 0..5000 {
            let (id, name) = (format!("m{number}"), format!("n{number}"));
            table.upsert(record(&id, &name, "running", 1));
        }
        for number in 0..5000 {
            let id = format!("m{number}");
            assert_eq!(found(&table, &format!("n{number}")).as_deref(), Some(&*id));
        }
    }
}
