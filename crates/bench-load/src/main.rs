//! `bench-load`: the two ends around a proxy that is measured.
//!
//! ```text
//! bench-load upstream [--workers N]           serves; its first line is the address
//! bench-load run --target ADDRESS --job JOB [--host NAME] [--prefix PATH] [--size BYTES]
//!                [--connections N] [--seconds S] [--rate N]
//! JOB: get (keep-alive), connect (a new connection each), upload, echo (WebSocket)
//! ```
//!
//! `run` opens its connections, gets one answer on each, prints `ready` and waits for a line on
//! stdin: then the load runs and one line of JSON tells what was found. At stdin's end instead the
//! connections, which were idle so far, are only looked at.

use std::io::{self, BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;

use crate::job::{Job, Place};
use crate::load::Load;
use crate::schedule::Pace;

mod content;
mod job;
mod load;
mod poller;
mod reply;
mod schedule;
mod summary;
mod upstream;
mod websocket;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut arguments = lexopt::Parser::from_env();
    let result = match arguments.next() {
        Ok(Some(Value(command))) if command == "upstream" => upstream(arguments),
        Ok(Some(Value(command))) if command == "run" => run(arguments),
        Ok(_) => Err("what: upstream or run?".into()),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn upstream(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    let mut workers = 1;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("workers") => workers = arguments.value()?.parse()?,
            _ => return Err(argument.unexpected().into()),
        }
    }
    let listeners = upstream::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), workers)?;
    let address = listeners.first().ok_or("no worker")?.local_addr()?;
    writeln!(io::stdout(), "{address}")?;
    let threads: Vec<_> = listeners
        .into_iter()
        .map(|listener| std::thread::spawn(move || upstream::serve(&listener)))
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a worker panicked")??;
    }
    Ok(())
}

fn run(mut arguments: lexopt::Parser) -> Result<(), Failure> {
    let (mut target, mut kind) = (None, None);
    let mut place = Place {
        host: "bench.test".to_owned(),
        prefix: String::new(),
    };
    let (mut size, mut connections, mut seconds, mut rate) = (100_u64, 1_usize, 1.0, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("target") => target = Some(arguments.value()?.parse()?),
            Long("job") => kind = Some(arguments.value()?.string()?),
            Long("host") => place.host = arguments.value()?.string()?,
            Long("prefix") => place.prefix = arguments.value()?.string()?,
            Long("size") => size = arguments.value()?.parse()?,
            Long("connections") => connections = arguments.value()?.parse()?,
            Long("seconds") => seconds = arguments.value()?.parse()?,
            Long("rate") => rate = Some(arguments.value()?.parse()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    let job = match kind.as_deref() {
        Some("get") => Job::get(&place, size),
        Some("connect") => Job::connect(&place, size),
        Some("upload") => Job::upload(&place, size),
        Some("echo") => Job::echo(&place, usize::try_from(size)?),
        _ => return Err("--job: get, connect, upload or echo".into()),
    };
    let target = target.ok_or("--target is wanted")?;
    let length = Duration::try_from_secs_f64(seconds)?;
    let mut load = Load::new(target, job, connections)?;
    load.open()?;
    writeln!(io::stdout(), "ready")?;
    let go = io::stdin().lock().read_line(&mut String::new())? > 0;
    let took = if go {
        load.run(length, rate.map_or(Pace::Flood, Pace::Rate))?
    } else {
        load.look_at_idle()?;
        Duration::ZERO
    };
    let summary = serde_json::to_string(&load.tally().summary(took))?;
    writeln!(io::stdout(), "{summary}")?;
    Ok(())
}
