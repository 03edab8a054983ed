//! `hyperfleet-guest-agent`, PID 1 of every machine: makes the machine out of a kernel, an initramfs
//! and a disk, then does what the host asks, over a virtio-serial port.
//!
//! `hyperfleet-guest-agent --test-socket PATH` does the same for clients of a Unix socket, as an
//! ordinary process that leaves the computer as it is. `hyperfleet-guest-agent files …` is `files`.

mod answers;
mod backlog;
mod boot;
mod calls;
mod configure;
mod confines;
mod console;
mod credit;
mod disks;
mod exec;
mod failure;
mod files;
mod flow;
mod keeper;
mod kept;
mod leftovers;
mod listeners;
mod listening;
mod network;
mod news;
mod output;
mod power;
mod processes;
mod program;
mod random;
mod relay;
mod service;
mod sock_diag;
mod spawn;
mod stdin;
mod supervisor;
mod system;
mod terminal;
mod transport;
mod uevent;
mod virtio;
mod way;

use std::fs;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{signal, SignalKind};
use tokio::task::LocalSet;

use failure::{say, Failure, OrCannot};
use processes::Processes;
use service::{End, Service};
use system::System;
use transport::Channel;

/// What processes get to end by themselves when a signal asks PID 1 to stop.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if rustix::process::getpid().is_init() {
        let failure = match run(be_a_machine) {
            Ok(()) => power::off(),
            Err(failure) => failure,
        };
        say(failure);
        power::restart()
    }
    let done = match &arguments[..] {
        [option] if option == "--version" => {
            println!("hyperfleet-guest-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        // What the host has run for files, as a process like any other.
        [first, rest @ ..] if first == hyperfleet_wire::files::SUBCOMMAND => {
            return files::main(rest);
        }
        [option, path] if option == "--test-socket" => {
            let path = Path::new(path);
            run(|| be_a_test(path))
        }
        _ => {
            eprintln!("usage: hyperfleet-guest-agent --test-socket PATH | --version");
            eprintln!("Without either it is the first process of a machine.");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(failure);
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` on a runtime of this one thread.
fn run<W: Future<Output = Result<(), Failure>>>(work: impl FnOnce() -> W) -> Result<(), Failure> {
    spawn::ignore_nothing();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_cannot("start")?;
    runtime.block_on(LocalSet::new().run_until(work()))
}

/// PID 1. Returns when the machine shall power off.
async fn be_a_machine() -> Result<(), Failure> {
    std::panic::set_hook(Box::new(|panic| {
        say(format_args!("cannot go on: {panic}"));
        power::restart()
    }));
    let (port, door) = boot::bring_up()?;
    let processes = Processes::default();
    processes.reap_for_ever().or_cannot("watch for children")?;
    let channel = Channel::virtio_serial(port).or_cannot("use the port")?;
    let mut service = Service::new(System::guest(door), processes.clone());
    let end = tokio::select! {
        end = service.serve(&channel) => end.or_cannot("serve the host")?,
        stop = stop_signal() => stop.map(|()| End::Shutdown { grace: GRACE })?,
    };
    if let End::Shutdown { grace } = end {
        service.end_all(grace).await;
    }
    Ok(())
}

/// The same service on the host. Returns when it is told to stop.
async fn be_a_test(socket: &Path) -> Result<(), Failure> {
    let processes = Processes::default();
    // Orphans come to this process, as they do to PID 1.
    let myself = Some(rustix::process::getpid());
    rustix::process::set_child_subreaper(myself).or_cannot("be a subreaper")?;
    processes.reap_for_ever().or_cannot("watch for children")?;
    let listener =
        UnixListener::bind(socket).or_cannot(format_args!("listen at {}", socket.display()))?;
    // For whoever started this and waits to connect.
    println!("listening");
    let mut service = Service::new(System::host(), processes.clone());
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await.or_cannot("accept a host")?;
            let channel = stream
                .into_std()
                .map(Into::into)
                .and_then(Channel::unix)
                .or_cannot("use the connection")?;
            let end = service.serve(&channel).await.or_cannot("serve the host")?;
            if end != End::HostGone {
                return Ok(end);
            }
        }
    };
    let end = tokio::select! {
        end = serve => end,
        stop = stop_signal() => stop.map(|()| End::Shutdown { grace: Duration::ZERO }),
    };
    let _ = fs::remove_file(socket);
    if let End::Shutdown { grace } = end? {
        service.end_all(grace).await;
    }
    Ok(())
}

/// Waits for one of the signals that ask an init to stop: TERM and INT of anyone, USR1 and USR2 of
/// busybox's `halt` and `poweroff`.
async fn stop_signal() -> Result<(), Failure> {
    let watch = |kind| signal(kind).or_cannot("watch for signals");
    let (mut term, mut int) = (
        watch(SignalKind::terminate())?,
        watch(SignalKind::interrupt())?,
    );
    let (mut usr1, mut usr2) = (
        watch(SignalKind::user_defined1())?,
        watch(SignalKind::user_defined2())?,
    );
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = usr1.recv() => {}
        _ = usr2.recv() => {}
    }
    Ok(())
}
