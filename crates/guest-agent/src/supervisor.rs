//! The machine's own command: started when the host says so, once in a boot, and started again by
//! its rule. Its output goes to the console, what becomes of it is news.

use std::rc::Rc;
use std::time::{Duration, Instant};

use hyperfleet_wire::guest::{Command, CommandPhase, CommandState, Exec, Restart};
use tokio::task::AbortHandle;

use crate::answers::Refusal;
use crate::confines::{Confine, Confines};
use crate::console::Console;
use crate::exec;
use crate::failure::say;
use crate::news::News;
use crate::processes::{Ended, Processes};

/// Before it is started again: after its first end, and at most. Each wait is twice the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// One that ran for so long was well: what comes is its first end again.
const WELL: Duration = Duration::from_secs(60);
/// The exit codes of a shell for what can't be started (POSIX XCU 2.8.2).
const NOT_FOUND: i32 = 127;
const NOT_STARTED: i32 = 126;

/// Sees to the command, if there is one.
#[derive(Default)]
pub struct Supervisor {
    task: Option<AbortHandle>,
}

/// What it is done with.
pub struct Tools {
    pub processes: Processes,
    pub confines: Rc<Confines>,
    pub console: Rc<Console>,
    pub news: News,
}

impl Supervisor {
    /// Has `command` run from now on; nothing if one does, or did, already.
    pub fn begin(&mut self, command: Command, tools: Tools) {
        if self.task.is_none() {
            let state = CommandState {
                state: CommandPhase::Running,
                code: None,
                signal: None,
                restarts: 0,
            };
            tools.news.command(state);
            let task = tokio::task::spawn_local(supervise(command, state, tools));
            self.task = Some(task.abort_handle());
        }
    }

    /// Nothing is started any more. What runs is ended with all other processes.
    pub fn end(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn supervise(command: Command, mut state: CommandState, tools: Tools) {
    let call = Exec {
        argv: command.argv,
        env: command.env,
        cwd: command.cwd,
        timeout_ms: 0,
        stdin: false,
        output_limit: u64::MAX,
        output_window: None,
        terminal: None,
    };
    let mut wait = None;
    loop {
        let begun = Instant::now();
        let (ended, confine) = run(&call, &tools).await;
        (state.code, state.signal) = match ended {
            Ended::Code(code) => (Some(code), None),
            Ended::Signal(signal) => (None, Some(signal)),
        };
        if !starts_again(command.restart, ended) {
            state.state = CommandPhase::Exited;
            tools.news.command(state);
            return;
        }
        if let Some(confine) = confine {
            // What it has left would hold its ports and files.
            confine.kill();
        }
        state.state = CommandPhase::Waiting;
        tools.news.command(state);
        let next = next_wait(wait, begun.elapsed());
        tokio::time::sleep(next).await;
        wait = Some(next);
        state.state = CommandPhase::Running;
        state.restarts = state.restarts.saturating_add(1);
        tools.news.command(state);
    }
}

/// Runs it to the end of its process; how that ended, and what holds what it has left.
async fn run(call: &Exec, tools: &Tools) -> (Ended, Option<Rc<Confine>>) {
    match exec::start(call, &tools.processes, &tools.confines) {
        Ok(running) => {
            let (ended, confine, output) = running.apart();
            for pipe in output {
                let console = Rc::clone(&tools.console);
                tokio::task::spawn_local(async move { console.carry(pipe).await });
            }
            // The sender lives in the table of processes until it has sent.
            (ended.await.unwrap_or(Ended::Code(0)), confine)
        }
        Err(refusal) => {
            say(format_args!(
                "cannot run the machine's command: {}",
                refusal.message
            ));
            (Ended::Code(code_of(&refusal)), None)
        }
    }
}

fn code_of(refusal: &Refusal) -> i32 {
    if refusal.code == "not_found" {
        NOT_FOUND
    } else {
        NOT_STARTED
    }
}

fn starts_again(rule: Restart, ended: Ended) -> bool {
    match rule {
        Restart::Never => false,
        Restart::OnFailure => ended != Ended::Code(0),
        Restart::Always => true,
    }
}

/// How long to wait after a run of so long, where the wait before it was `last`.
fn next_wait(last: Option<Duration>, ran: Duration) -> Duration {
    match last {
        Some(last) if ran < WELL => LONGEST_WAIT.min(2 * last),
        _ => FIRST_WAIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_says_after_which_ends_it_is_started_again() {
        for (rule, after_success, after_failure) in [
            (Restart::Never, false, false),
            (Restart::OnFailure, false, true),
            (Restart::Always, true, true),
        ] {
            assert_eq!(starts_again(rule, Ended::Code(0)), after_success);
            assert_eq!(starts_again(rule, Ended::Code(1)), after_failure);
            assert_eq!(starts_again(rule, Ended::Signal(9)), after_failure);
        }
    }

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew_after_a_run_that_was_well() {
        let short = Duration::from_millis(1);
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(next_wait(waits.last().copied(), short));
        }
        let seconds: Vec<u64> = waits.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(next_wait(waits.last().copied(), WELL), FIRST_WAIT);
    }
}
