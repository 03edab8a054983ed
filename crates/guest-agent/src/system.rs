//! What the agent does to the computer it runs on as a whole: a machine's guest, or, in tests, a
//! host that must stay as it is.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hyperfleet_wire::guest::Config;
use rustix::process::Signal;

use crate::answers::Refusal;
use crate::configure::{self, Plan};
use crate::confines::Confines;
use crate::power;
use crate::processes::Processes;

/// Where the agent runs.
pub enum System {
    /// PID 1 of a machine. Holds what the last `configure` asked for.
    Guest(Option<Plan>),
    /// A host, for tests: `configure` is checked and not carried out, `shutdown` ends the agent and
    /// what it started.
    Host,
}

impl System {
    /// Makes name, clock and network be as `config` says; nothing changes that already is.
    ///
    /// # Errors
    /// `invalid` for what can't be, `failed` for what the kernel would not do.
    pub fn configure(&mut self, config: &Config) -> Result<(), Refusal> {
        let plan = Plan::check(config)?;
        if let System::Guest(current) = self {
            configure::apply(&plan, current.as_ref())?;
            *current = Some(plan);
        }
        Ok(())
    }

    /// The guest's own IPv4 address.
    pub fn own_address(&self) -> Option<Ipv4Addr> {
        match self {
            System::Guest(plan) => plan.as_ref()?.address(),
            System::Host => None,
        }
    }

    /// Where relays listen.
    pub fn relay_address(&self) -> IpAddr {
        match self {
            System::Guest(_) => self.own_address().unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            System::Host => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// What holds the processes of a call together.
    pub fn confines(&self) -> Confines {
        match self {
            System::Guest(_) => Confines::of_guest(),
            System::Host => Confines::none(),
        }
    }

    /// Ends every process: TERM, then KILL to those that are left after `grace`.
    pub async fn end_all(&self, processes: &Processes, grace: Duration) {
        let signal = |signal| match self {
            System::Guest(_) => power::signal_everyone(signal),
            System::Host => processes.signal_all(signal),
        };
        signal(Signal::TERM);
        // A stopped process takes its TERM only when it goes on.
        signal(Signal::CONT);
        if processes.all_gone(grace).await {
            return;
        }
        // Rounds, because what a killed process was about to start may come after the first.
        for _ in 0..power::KILL_ROUNDS {
            signal(Signal::KILL);
            if processes.all_gone(power::KILL_ROUND).await {
                return;
            }
        }
    }
}
