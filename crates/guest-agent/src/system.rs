//! What the agent does to the computer it runs on as a whole: a machine's guest, or, in tests, a
//! host that must stay as it is.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use hyperfleet_wire::guest::{Config, Disk};
use rustix::process::Signal;

use crate::answers::Refusal;
use crate::boot::Door;
use crate::configure::{self, Plan};
use crate::confines::Confines;
use crate::console::Console;
use crate::disks;
use crate::failure::say;
use crate::listening;
use crate::power;
use crate::processes::Processes;
use crate::random;

/// Where the agent runs.
pub enum System {
    /// PID 1 of a machine.
    Guest(Box<Guest>),
    /// A host, for tests: `configure` is checked and not carried out, `shutdown` ends the agent and
    /// what it started.
    Host(Rc<Confines>),
}

/// A machine's guest.
pub struct Guest {
    root: Root,
    /// What the last `configure` asked for.
    plan: Option<Plan>,
    /// Those that are mounted.
    disks: Vec<Disk>,
    /// What holds the processes of a call together.
    confines: Rc<Confines>,
}

/// Where the guest stands with its disk.
enum Root {
    /// Before it.
    Before(Door),
    On,
    /// It can't be had: why.
    Lost(String),
}

impl System {
    /// A guest that has not been told yet that it is one.
    pub fn guest(door: Door) -> Self {
        Self::Guest(Box::new(Guest {
            root: Root::Before(door),
            plan: None,
            disks: Vec::new(),
            confines: Rc::new(Confines::of_guest()),
        }))
    }

    /// A host.
    pub fn host() -> Self {
        Self::Host(Rc::new(Confines::none()))
    }

    /// Makes name, clock and network be as `config` says; nothing changes that already is. The
    /// first one has a guest enter its disk.
    ///
    /// # Errors
    /// `invalid` for what can't be, `failed` for what the kernel would not do.
    pub fn configure(&mut self, config: &Config) -> Result<(), Refusal> {
        let plan = Plan::check(config)?;
        disks::check(&config.disks)?;
        if let System::Guest(guest) = self {
            // What is mounted and written from here on has the right time.
            configure::set_clock(&plan)?;
            guest.enter()?;
            disks::attach(&config.disks, &mut guest.disks)?;
            configure::apply(&plan, guest.plan.as_ref())?;
            guest.plan = Some(plan);
        }
        Ok(())
    }

    /// Takes random bytes of the host's for the kernel's own.
    pub fn seed(&self, seed: &[u8]) {
        if let (System::Guest(_), false) = (self, seed.is_empty()) {
            if let Err(failure) = random::add(seed) {
                say(failure);
            }
        }
    }

    /// Has `hears` called whenever sockets of the guest begin or cease to listen. A kernel that
    /// can't tell of them leaves it to those who look now and then.
    pub fn watch_sockets(&self, hears: impl Fn() + 'static) {
        if let System::Guest(_) = self {
            if let Err(failure) = listening::watch(hears) {
                say(failure);
            }
        }
    }

    /// Whether programs can run.
    ///
    /// # Errors
    /// `failed`: there is no disk, or not yet.
    pub fn must_be_up(&self) -> Result<(), Refusal> {
        match self {
            System::Guest(guest) => guest.must_be_up(),
            System::Host(_) => Ok(()),
        }
    }

    /// The guest's own IPv4 address.
    pub fn own_address(&self) -> Option<Ipv4Addr> {
        match self {
            System::Guest(guest) => guest.plan.as_ref()?.address(),
            System::Host(_) => None,
        }
    }

    /// Where relays listen.
    pub fn relay_address(&self) -> IpAddr {
        match self {
            System::Guest(_) => self.own_address().unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            System::Host(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// What holds the processes of a call together.
    pub fn confines(&self) -> &Rc<Confines> {
        match self {
            System::Guest(guest) => &guest.confines,
            System::Host(confines) => confines,
        }
    }

    /// Where the output of the machine's command goes.
    pub fn console(&self) -> Console {
        match self {
            System::Guest(_) => Console::of_guest(),
            System::Host(_) => Console::of_host(),
        }
    }

    /// Ends every process: TERM, then KILL to those that are left after `grace`.
    pub async fn end_all(&self, processes: &Processes, grace: Duration) {
        let signal = |signal| match self {
            System::Guest(_) => power::signal_everyone(signal),
            System::Host(_) => processes.signal_all(signal),
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

impl Guest {
    fn enter(&mut self) -> Result<(), Refusal> {
        let Root::Before(door) = &self.root else {
            return self.must_be_up();
        };
        let entered = door.enter();
        self.root = match &entered {
            Ok(()) => Root::On,
            Err(failure) => {
                // The kernel's own words stand there too.
                say(failure);
                Root::Lost(failure.to_string())
            }
        };
        Ok(entered?)
    }

    fn must_be_up(&self) -> Result<(), Refusal> {
        match &self.root {
            Root::Before(_) => Err(Refusal::failed("not configured yet: configure comes first")),
            Root::On => Ok(()),
            Root::Lost(why) => Err(Refusal::failed(why.as_str())),
        }
    }
}
