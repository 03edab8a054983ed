//! All machines in the order of their ids.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::record::Record;

/// Records by their machines' ids.
#[derive(Default)]
pub struct Index {
    entries: BTreeSet<Entry>,
}

/// From one table to the next.
#[derive(Debug)]
pub struct Difference {
    /// New records, of new machines and of known ones.
    pub upsert: Vec<Arc<Record>>,
    /// Of machines that are gone.
    pub remove: Vec<Arc<Record>>,
}

impl Index {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, id: &str) -> Option<&Arc<Record>> {
        let entry = self.entries.get(&Asked::new(id) as &dyn Key)?;
        Some(&entry.record)
    }

    /// In place of the machine's record so far.
    pub fn put(&mut self, record: Arc<Record>) {
        self.entries.replace(Entry::new(record));
    }

    pub fn take(&mut self, id: &str) -> Option<Arc<Record>> {
        let entry = self.entries.take(&Asked::new(id) as &dyn Key)?;
        Some(entry.record)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.entries.iter().map(|entry| &entry.record)
    }

    /// The machines from an id on.
    pub fn from(&self, id: Bound<&str>) -> impl Iterator<Item = &Record> {
        let asked = id.map(Asked::new);
        let start = asked.as_ref().map(|asked| asked as &dyn Key);
        let range = self.entries.range::<dyn Key, _>((start, Bound::Unbounded));
        range.map(|entry| &*entry.record)
    }

    /// Has these records only, from here on. Each is known already, or new.
    ///
    /// # Errors
    /// One of two records of the same machine; nothing has changed then.
    pub fn replace(&mut self, records: Vec<Arc<Record>>) -> Result<Difference, Arc<Record>> {
        let mut next: Vec<_> = records.into_iter().map(Entry::new).collect();
        next.sort_unstable();
        if let Some(twice) = next.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(twice[0].record.clone());
        }
        // Both are in order: one walk along both finds what differs.
        let (mut upsert, mut remove) = (Vec::new(), Vec::new());
        let mut known = self.entries.iter().peekable();
        for entry in &next {
            while let Some(gone) = known.next_if(|known| *known < entry) {
                remove.push(gone.record.clone());
            }
            let same = known.next_if(|known| *known == entry);
            if same.is_none_or(|same| !Arc::ptr_eq(&same.record, &entry.record)) {
                upsert.push(entry.record.clone());
            }
        }
        remove.extend(known.map(|gone| gone.record.clone()));
        self.entries = next.into_iter().collect();
        Ok(Difference { upsert, remove })
    }
}

/// A record that is found by its machine's id. The id's first bytes stand here too: they nearly
/// always tell two machines apart, without a look at memory elsewhere.
struct Entry {
    start: u64,
    record: Arc<Record>,
}

impl Entry {
    fn new(record: Arc<Record>) -> Entry {
        Entry {
            start: start(&record.id),
            record,
        }
    }
}

/// An id that is looked for.
struct Asked<'a> {
    start: u64,
    id: &'a str,
}

impl<'a> Asked<'a> {
    fn new(id: &'a str) -> Asked<'a> {
        Asked {
            start: start(id),
            id,
        }
    }
}

/// The first bytes as a number of the same order; a shorter id's end counts as zeros.
fn start(id: &str) -> u64 {
    let mut bytes = [0; 8];
    let count = id.len().min(8);
    bytes[..count].copy_from_slice(&id.as_bytes()[..count]);
    u64::from_be_bytes(bytes)
}

/// What both are compared by.
trait Key {
    fn key(&self) -> (u64, &str);
}

impl Key for Entry {
    fn key(&self) -> (u64, &str) {
        (self.start, &self.record.id)
    }
}

impl Key for Asked<'_> {
    fn key(&self) -> (u64, &str) {
        (self.start, self.id)
    }
}

impl<'a> Borrow<dyn Key + 'a> for Entry {
    fn borrow(&self) -> &(dyn Key + 'a) {
        self
    }
}

impl Ord for dyn Key + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for dyn Key + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Key + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Key + '_ {}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use hyperfleet_wire::control::Machine;

    use super::*;

    fn record(id: &str) -> Arc<Record> {
        let machine = Machine {
            id: id.to_owned(),
            name: "web".to_owned(),
            status: "running".to_owned(),
            lifecycle: 1,
            ports: Vec::new(),
        };
        Arc::new(Record::new(&machine).unwrap())
    }

    fn ids<'a>(records: impl IntoIterator<Item = &'a Arc<Record>>) -> Vec<&'a str> {
        records.into_iter().map(|record| &*record.id).collect()
    }

    /// Ids that begin alike, that end within the first bytes, and that order by their later ones.
    const IDS: [&str; 9] = [
        "a",
        "a\0",
        "a\0\0\0\0\0\0\0",
        "a\0\0\0\0\0\0\0b",
        "aa",
        "machine-1",
        "machine-10",
        "machine-2",
        "machineé",
    ];

    #[test]
    fn machines_stand_in_the_order_of_their_ids_and_each_is_found() {
        let mut index = Index::default();
        for id in IDS.iter().rev() {
            index.put(record(id));
        }
        assert_eq!(ids(index.iter()), IDS);
        for (at, id) in IDS.iter().enumerate() {
            assert_eq!(&*index.get(id).unwrap().id, *id);
            let from = |bound| index.from(bound).map(|record| &*record.id);
            assert!(from(Bound::Included(*id)).eq(IDS[at..].iter().copied()));
            assert!(from(Bound::Excluded(*id)).eq(IDS[at + 1..].iter().copied()));
        }
        assert!(index.get("machine-").is_none());
        assert_eq!(&*index.take("aa").unwrap().id, "aa");
        assert!(index.take("aa").is_none());
        assert_eq!(index.len(), IDS.len() - 1);
    }

    #[test]
    fn a_replacement_tells_what_differs() {
        let mut index = Index::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(record);
        let first = index
            .replace(vec![c.clone(), a.clone(), d.clone()])
            .unwrap();
        assert_eq!(ids(&first.upsert), ["a", "c", "d"]);
        assert!(first.remove.is_empty());
        let changed = record("c");
        let next = index.replace(vec![b, changed.clone(), a.clone()]).unwrap();
        assert_eq!(ids(&next.upsert), ["b", "c"]);
        assert!(Arc::ptr_eq(&next.upsert[1], &changed));
        assert_eq!(ids(&next.remove), ["d"]);
        let twice = index.replace(vec![a.clone(), d, a]).unwrap_err();
        assert_eq!(&*twice.id, "a");
        assert_eq!(ids(index.iter()), ["a", "b", "c"]);
        let none = index.replace(Vec::new()).unwrap();
        assert_eq!(ids(&none.remove), ["a", "b", "c"]);
        assert_eq!(index.len(), 0);
    }
}
