//! All processes that have a name, and their bound.

use std::cell::RefCell;
use std::rc::Rc;

use hyperfleet_wire::guest::{KeptProcess, MAX_KEPT};

use crate::answers::Refusal;
use crate::configure;
use crate::kept::Kept;

/// In the order in which they were started.
#[derive(Default)]
pub struct Keeper {
    kept: RefCell<Vec<Rc<Kept>>>,
}

impl Keeper {
    /// Whether one more may be kept, under `name`.
    ///
    /// # Errors
    /// `invalid` for what is no name, `name_taken`, and `busy` at [`MAX_KEPT`].
    pub fn admit(&self, name: &str) -> Result<(), Refusal> {
        if !configure::is_label(name) {
            return Err(Refusal::invalid(format!("{name:?} is not a DNS label")));
        }
        let kept = self.kept.borrow();
        if kept.iter().any(|kept| kept.name == name) {
            return Err(Refusal::new(
                "name_taken",
                format!("a process {name} is there already"),
            ));
        }
        if kept.len() >= MAX_KEPT && !kept.iter().any(|kept| kept.is_over()) {
            return Err(Refusal::busy(format!(
                "{MAX_KEPT} processes are kept already"
            )));
        }
        Ok(())
    }

    /// Keeps one that was admitted. The oldest that has ended makes room for it.
    pub fn add(&self, new: Rc<Kept>) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= MAX_KEPT {
            if let Some(at) = kept.iter().position(|kept| kept.is_over()) {
                kept.remove(at);
            }
        }
        kept.push(new);
    }

    /// The one of that name.
    ///
    /// # Errors
    /// `no_process`.
    pub fn find(&self, name: &str) -> Result<Rc<Kept>, Refusal> {
        let kept = self.kept.borrow();
        let found = kept.iter().find(|kept| kept.name == name);
        found
            .cloned()
            .ok_or_else(|| Refusal::new("no_process", format!("no process {name} is there")))
    }

    /// Keeps it no longer.
    pub fn forget(&self, gone: &Rc<Kept>) {
        self.kept
            .borrow_mut()
            .retain(|kept| !Rc::ptr_eq(kept, gone));
    }

    /// As the host is told of them.
    pub fn told(&self) -> Vec<KeptProcess> {
        self.kept.borrow().iter().map(|kept| kept.told()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Ending;
    use crate::kept::tests::kept;

    #[test]
    fn the_oldest_that_has_ended_makes_room_and_none_that_runs() {
        let keeper = Keeper::default();
        let all: Vec<_> = (0..MAX_KEPT)
            .map(|number| kept(&format!("p{number}")))
            .collect();
        for one in &all {
            keeper.admit(&one.name).unwrap();
            keeper.add(Rc::clone(one));
        }
        assert_eq!(keeper.admit("p3").unwrap_err().code, "name_taken");
        assert_eq!(keeper.admit("new").unwrap_err().code, "busy");
        for bad in ["", "a b", "-a", &"a".repeat(64)] {
            assert_eq!(keeper.admit(bad).unwrap_err().code, "invalid");
        }
        all[7].finish(Ending::of_code(0));
        all[9].finish(Ending::of_code(0));
        keeper.admit("new").unwrap();
        keeper.add(kept("new"));
        assert_eq!(keeper.find("p7").err().unwrap().code, "no_process");
        assert!(keeper.find("p9").is_ok() && keeper.find("new").is_ok());
        assert_eq!(keeper.told().len(), MAX_KEPT);
    }
}
