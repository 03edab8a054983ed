//! The calls of one session whose processes have not ended, or whose ends were not heard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use hyperfleet_wire::guest::{FromGuest, Size};
use rustix::process::Signal;

use crate::answers::Refusal;
use crate::credit::Credit;
use crate::exec::{self, Handles};
use crate::failure::say;
use crate::kept::Kept;
use crate::processes::Processes;

/// What a message for a call concerns.
pub enum Call {
    /// A process that belongs to its call.
    Own {
        handles: Handles,
        credit: Option<Rc<Credit>>,
    },
    /// One that has a name, to which the call is attached.
    Attached(Rc<Kept>),
}

/// By the calls' ids. Clones share the table.
#[derive(Clone, Default)]
pub struct Calls {
    table: Rc<RefCell<HashMap<u32, Call>>>,
}

impl Calls {
    /// Whether there is one of that id.
    pub fn has(&self, id: u32) -> bool {
        self.table.borrow().contains_key(&id)
    }

    /// Enters a call.
    pub fn add(&self, id: u32, call: Call) {
        self.table.borrow_mut().insert(id, call);
    }

    /// Removes a call; does nothing if there is none.
    pub fn remove(&self, id: u32) {
        self.table.borrow_mut().remove(&id);
    }

    /// Gives input to call `id`. What it breaks kills its process.
    ///
    /// # Errors
    /// `invalid`, with the call's id in its words: the call ends with its process, not with this.
    pub fn stdin(
        &self,
        id: u32,
        data: Vec<u8>,
        eof: bool,
        processes: &Processes,
    ) -> Result<(), Refusal> {
        let Some(handles) = self.handles(id) else {
            return Ok(());
        };
        let pushed = match &handles.stdin {
            Some(stdin) => stdin.push(data, eof, self.attached(id).is_some()),
            None => Err(Refusal::invalid(format!("exec {id} asked for no stdin"))),
        };
        pushed.map_err(|mut refusal| {
            refusal.message = format!("exec {id} is killed: {}", refusal.message);
            handles.kill(processes);
            refusal
        })
    }

    /// The host took `bytes` of the output of call `id`.
    pub fn taken(&self, id: u32, bytes: usize) {
        match self.table.borrow().get(&id) {
            Some(Call::Own {
                credit: Some(credit),
                ..
            }) => credit.grant(bytes),
            Some(Call::Attached(kept)) => kept.taken(bytes),
            _ => {}
        }
    }

    /// The terminal of call `id`, if it has one, is of another size.
    pub fn resize(&self, id: u32, size: Size) {
        let Some(terminal) = self.handles(id).and_then(|handles| handles.terminal) else {
            return;
        };
        if let Err(why) = terminal.resize(size) {
            say(format_args!("cannot resize a terminal: {why}"));
        }
    }

    /// Signals the process group of call `id`; KILL reaches what left it too.
    ///
    /// # Errors
    /// `invalid`: there is no such signal.
    pub fn signal(&self, id: u32, signal: i32, processes: &Processes) -> Result<(), Refusal> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(Refusal::invalid(format!("{signal} is no signal")));
        };
        if let Some(handles) = self.handles(id) {
            if signal == Signal::KILL {
                handles.kill(processes);
            } else {
                processes.signal_group(handles.pid, signal);
            }
        }
        Ok(())
    }

    /// Nobody takes what call `id` tells any more, if that is attached to a process.
    pub fn detach(&self, id: u32) {
        if let Some(kept) = self.attached(id) {
            self.remove(id);
            kept.leave(Some(FromGuest::Done { id }));
        }
    }

    /// The end that call `id` was told was taken: the process that is not to be kept any longer.
    pub fn end_taken(&self, id: u32) -> Option<Rc<Kept>> {
        let kept = self.attached(id).filter(|kept| kept.end_is_told())?;
        self.remove(id);
        kept.leave(None);
        Some(kept)
    }

    /// The session has ended: processes that have a name are kept, the others run on, but terminals
    /// are hung up, as when a line is cut.
    pub fn end(self, processes: &Processes) {
        for call in self.table.borrow().values() {
            match call {
                Call::Attached(kept) => kept.leave(None),
                Call::Own { handles, credit } => {
                    if let Some(stdin) = &handles.stdin {
                        stdin.end();
                    }
                    if let Some(credit) = credit {
                        credit.lift();
                    }
                    if handles.terminal.is_some() {
                        processes.signal_group(handles.pid, Signal::HUP);
                        processes.signal_group(handles.pid, Signal::CONT);
                    }
                }
            }
        }
    }

    fn attached(&self, id: u32) -> Option<Rc<Kept>> {
        match self.table.borrow().get(&id) {
            Some(Call::Attached(kept)) => Some(Rc::clone(kept)),
            _ => None,
        }
    }

    fn handles(&self, id: u32) -> Option<Handles> {
        match self.table.borrow().get(&id)? {
            Call::Own { handles, .. } => Some(handles.clone()),
            Call::Attached(kept) => kept.handles(),
        }
    }
}

impl Handles {
    /// Kills all its processes.
    pub fn kill(&self, processes: &Processes) {
        exec::kill(self.pid, self.confine.as_deref(), processes);
    }
}
