//! Processes that have a name. They outlive the call and the session that began them: their output
//! waits until a host has taken it, their end until it has been heard.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyperfleet_wire::guest::{Exec, FromGuest, KeptProcess, KEPT_STDIN, MAX_CHUNK, MAX_SHOWN};
use tokio::sync::Notify;

use crate::answers::{Answers, Refusal};
use crate::backlog::{self, Backlog};
use crate::exec::{Ending, Handles};
use crate::output::Kind;
use crate::way;

/// One process, and whoever is attached to it.
pub struct Kept {
    pub name: String,
    shown: Vec<String>,
    since_ns: u64,
    at_terminal: bool,
    /// `None` when it has ended.
    handles: RefCell<Option<Handles>>,
    end: Cell<Option<Ending>>,
    backlog: RefCell<Backlog>,
    line: RefCell<Option<Rc<Line>>>,
    news: Notify,
}

/// To the call that is attached.
struct Line {
    id: u32,
    window: usize,
    answers: Answers,
    /// The call has had its ending. What is sent before is on its way before it: turns are given in
    /// the order of asking.
    over: Cell<bool>,
}

impl Kept {
    /// The process of `call`, just started. Nobody is attached.
    pub fn new(name: String, call: &Exec, handles: Handles) -> Rc<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Rc::new(Self {
            name,
            shown: shown(&call.argv),
            since_ns: since.map_or(0, |since| since.as_nanos() as u64),
            at_terminal: call.terminal.is_some(),
            handles: RefCell::new(Some(handles)),
            end: Cell::new(None),
            backlog: RefCell::default(),
            line: RefCell::new(None),
            news: Notify::new(),
        })
    }

    /// Attaches call `id`, in place of the one that is. What it is answered first; the rest follows
    /// by itself, at most `window` bytes of output before some are taken.
    pub fn attach(self: &Rc<Self>, id: u32, window: u32, answers: Answers) -> FromGuest {
        if let Some(before) = self.attached() {
            let refusal = Refusal::new(
                "replaced",
                format!("another client has attached to {}", self.name),
            );
            self.leave(Some(refusal.into_message(before)));
        }
        let line = Rc::new(Line {
            id,
            window: window as usize,
            answers,
            over: Cell::new(false),
        });
        *self.line.borrow_mut() = Some(Rc::clone(&line));
        tokio::task::spawn_local(Rc::clone(self).tell(line));
        let backlog = self.backlog.borrow();
        let handles = self.handles.borrow();
        let stdin = handles.as_ref().and_then(|handles| handles.stdin.as_ref());
        FromGuest::Attached {
            id,
            offset: backlog.offset(),
            dropped: backlog.dropped(),
            input: stdin.map_or(0, |stdin| stdin.under_way() as u32),
            stdin: stdin.is_some_and(|stdin| !stdin.has_ended()),
            terminal: self.at_terminal,
            stdin_limit: Some(KEPT_STDIN as u32),
        }
    }

    /// The call that is attached.
    pub fn attached(&self) -> Option<u32> {
        self.line.borrow().as_ref().map(|line| line.id)
    }

    /// Nobody is attached any more. The call that was gets `ending`, unless it has had one.
    pub fn leave(&self, ending: Option<FromGuest>) {
        let Some(line) = self.line.borrow_mut().take() else {
            return;
        };
        if let (false, Some(ending)) = (line.over.replace(true), ending) {
            let answers = line.answers.clone();
            tokio::task::spawn_local(async move { answers.send(ending).await });
        }
        let mut backlog = self.backlog.borrow_mut();
        backlog.untell();
        backlog.trim();
        self.news.notify_waiters();
    }

    /// Whether whoever is attached has been told how it ended.
    pub fn end_is_told(&self) -> bool {
        let line = self.line.borrow();
        line.as_ref().is_some_and(|line| line.over.get())
    }

    /// The host took so much of what it was told.
    pub fn taken(&self, bytes: usize) {
        self.backlog.borrow_mut().taken(bytes);
        self.news.notify_waiters();
    }

    /// By what it is reached; `None` when it has ended.
    pub fn handles(&self) -> Option<Handles> {
        self.handles.borrow().clone()
    }

    /// How much output may be added; waits while whoever is attached does not take what there is.
    pub async fn room(&self) -> usize {
        loop {
            let window = match &*self.line.borrow() {
                None => return MAX_CHUNK,
                Some(line) => line.window.min(backlog::LIMIT),
            };
            let size = self.backlog.borrow().size();
            if size < window {
                return window - size;
            }
            self.news.notified().await;
        }
    }

    /// Takes output.
    pub fn add(&self, kind: Kind, data: &[u8]) {
        let mut backlog = self.backlog.borrow_mut();
        backlog.add(kind, data);
        if self.line.borrow().is_none() {
            backlog.trim();
        }
        self.news.notify_waiters();
    }

    /// Tells of input that has been taken.
    pub async fn input_taken(&self, bytes: u32) {
        let line = self.line.borrow().clone();
        if let Some(line) = line.filter(|line| !line.over.get()) {
            let id = line.id;
            line.answers.send(FromGuest::StdinTaken { id, bytes }).await;
        }
    }

    /// It has ended, and all its output was added.
    pub fn finish(&self, end: Ending) {
        self.handles.borrow_mut().take();
        self.end.set(Some(end));
        self.news.notify_waiters();
    }

    async fn tell(self: Rc<Self>, line: Rc<Line>) {
        while !line.over.get() {
            let next = self.backlog.borrow_mut().next(line.window);
            match (next, self.end.get()) {
                (Some((kind, data)), _) => {
                    line.answers.send(way::output(line.id, kind, data)).await;
                }
                (None, Some(end)) if self.backlog.borrow().is_told() => {
                    line.over.set(true);
                    line.answers.send(end.into_message(line.id)).await;
                }
                _ => self.news.notified().await,
            }
        }
    }

    /// Whether it has ended and nobody is attached.
    pub fn is_over(&self) -> bool {
        self.end.get().is_some() && self.line.borrow().is_none()
    }

    /// As the host is told of it.
    pub fn told(&self) -> KeptProcess {
        let backlog = self.backlog.borrow();
        let end = self.end.get();
        KeptProcess {
            name: self.name.clone(),
            argv: self.shown.clone(),
            since_ns: self.since_ns,
            attached: self.attached().is_some(),
            terminal: self.at_terminal,
            code: end.and_then(|end| end.code),
            signal: end.and_then(|end| end.signal),
            untaken: backlog.held(),
            dropped: backlog.dropped(),
        }
    }
}

/// The first arguments, [`MAX_SHOWN`] bytes with what each costs in a message.
fn shown(argv: &[String]) -> Vec<String> {
    // The longest head of a string in MessagePack.
    const HEAD: usize = 5;
    let mut left = MAX_SHOWN;
    let mut shown = Vec::new();
    for argument in argv {
        if left <= HEAD {
            break;
        }
        left -= HEAD;
        let fits = |end: &usize| argument.is_char_boundary(*end);
        let end = (0..=left.min(argument.len())).rev().find(fits).unwrap_or(0);
        shown.push(argument[..end].to_owned());
        left -= end;
        if end < argument.len() {
            break;
        }
    }
    shown
}

#[cfg(test)]
pub mod tests {
    use hyperfleet_wire::guest::MAX_KEPT;
    use rustix::process::Pid;
    use tokio::task::LocalSet;

    use super::*;
    use crate::answers::Queue;

    const WINDOW: u32 = 1000;

    /// A process that is none.
    pub fn kept(name: &str) -> Rc<Kept> {
        let call = Exec {
            argv: vec!["program".into()],
            env: Vec::new(),
            cwd: None,
            timeout_ms: 0,
            stdin: false,
            output_limit: u64::MAX,
            output_window: None,
            terminal: None,
        };
        let handles = Handles {
            pid: Pid::INIT,
            stdin: None,
            confine: None,
            terminal: None,
        };
        Kept::new(name.into(), &call, handles)
    }

    fn stdout(id: u32, data: &[u8]) -> FromGuest {
        way::output(id, Kind::Stdout, data.to_vec())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn whoever_attaches_takes_the_place_of_who_was_and_is_told_what_nobody_took() {
        let local = LocalSet::new();
        local.run_until(takes_the_place()).await;
    }

    async fn takes_the_place() {
        let (kept, mut queue) = (kept("build"), Queue::new());
        let answers = queue.next_session();
        kept.add(Kind::Stdout, b"before ");
        kept.attach(1, WINDOW, answers.clone());
        assert_eq!(queue.next().await, stdout(1, b"before "));
        kept.taken(4);
        kept.add(Kind::Stdout, b"now");
        assert_eq!(queue.next().await, stdout(1, b"now"));
        let FromGuest::Attached { offset, .. } = kept.attach(2, WINDOW, answers) else {
            panic!("must be attached");
        };
        assert_eq!((offset, kept.attached()), (4, Some(2)));
        let (one, two) = (queue.next().await, queue.next().await);
        let (refused, told) = match one {
            FromGuest::Refused { .. } => (one, two),
            _ => (two, one),
        };
        assert!(matches!(refused, FromGuest::Refused { id: 1, code, .. } if code == "replaced"));
        assert_eq!(told, stdout(2, b"re now"));
        kept.finish(Ending::of_code(3));
        assert!(matches!(
            queue.next().await,
            FromGuest::Exited {
                id: 2,
                code: Some(3),
                ..
            }
        ));
        assert!(kept.end_is_told());
        // Nobody has said that it was heard.
        kept.leave(Some(FromGuest::Done { id: 2 }));
        assert!(!kept.end_is_told());
        kept.attach(3, WINDOW, queue.next_session());
        assert_eq!(queue.next().await, stdout(3, b"re now"));
        assert!(matches!(
            queue.next().await,
            FromGuest::Exited { id: 3, .. }
        ));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_process_is_held_up_by_who_is_attached_alone() {
        let local = LocalSet::new();
        local.run_until(held_up()).await;
    }

    async fn held_up() {
        let (kept, mut queue) = (kept("build"), Queue::new());
        for _ in 0..40 {
            kept.add(Kind::Stdout, &vec![b'x'; kept.room().await]);
        }
        assert!(kept.backlog.borrow().dropped() > 0);
        kept.attach(1, WINDOW, queue.next_session());
        let waiting = kept.room();
        tokio::pin!(waiting);
        for _ in 0..100 {
            tokio::select! {
                biased;
                _ = &mut waiting => panic!("there is no room"),
                () = tokio::task::yield_now() => {}
            }
        }
        kept.leave(None);
        assert_eq!(waiting.await, MAX_CHUNK);
    }

    #[test]
    fn all_that_are_kept_can_be_told_at_once() {
        let one = KeptProcess {
            name: "n".repeat(63),
            argv: shown(&vec!["é".repeat(10); 100_000]),
            since_ns: u64::MAX,
            attached: true,
            terminal: true,
            code: Some(i32::MIN),
            signal: Some(i32::MIN),
            untaken: u64::MAX,
            dropped: u64::MAX,
        };
        let message = FromGuest::KeptProcesses {
            id: u32::MAX,
            processes: vec![one; MAX_KEPT],
        };
        let size = hyperfleet_wire::encode(&message).len();
        assert!(size <= hyperfleet_wire::slip::MAX_PAYLOAD, "{size}");
        assert_eq!(shown(&["x".repeat(9999)])[0].len(), MAX_SHOWN - 5);
        assert_eq!(shown(&["é".repeat(9999)])[0].len(), MAX_SHOWN - 6);
        assert_eq!(shown(&["ls".into(), "-l".into()]), ["ls", "-l"]);
        assert_eq!(shown(&vec![String::new(); 100_000]).len(), MAX_SHOWN / 5);
    }
}
