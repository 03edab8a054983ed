//! `hyperfleet-confine`: becomes a program that has as little as it needs.
//!
//! ```text
//! hyperfleet-confine [--cgroup FOLDER] [--user UID:GID] [--group GID]... [--file-size BYTES]
//!                    [--oom-score N] -- PROGRAM [ARGUMENT]...
//! ```
//!
//! Always: no new privileges, no core dumps (a guest's memory would be in them), files for nobody
//! else. `--cgroup`: it is in this one before it becomes the program. `--user` gives up root, all groups but `--group`s and every capability. `--file-size`: no
//! file grows beyond (setrlimit(2), RLIMIT_FSIZE); a write that would fails and kills nobody.
//! `--oom-score`: how much rather than others it is ended where the host is out of memory (proc(5)).
//!
//! The process stays the same, so whoever started it knows its pid. What it says goes to standard
//! error; the exit status is 126 if the program was not reached.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use lexopt::prelude::*;
use rustix::fs::Mode;
use rustix::process::{setrlimit, umask, Gid, Resource, Rlimit, Uid};
use rustix::thread;

const NOT_REACHED: u8 = 126;

#[derive(Debug, Default)]
struct Wanted {
    cgroup: Option<PathBuf>,
    user: Option<(Uid, Gid)>,
    groups: Vec<Gid>,
    file_size: Option<u64>,
    oom_score: Option<i16>,
    program: Vec<OsString>,
}

fn main() -> ExitCode {
    let why = match parse(lexopt::Parser::from_env()) {
        Ok(wanted) => match confine(&wanted) {
            Ok(()) => {
                let program = &wanted.program[0];
                let error = Command::new(program).args(&wanted.program[1..]).exec();
                format!("{}: {error}", program.to_string_lossy())
            }
            Err(why) => why,
        },
        Err(error) => error.to_string(),
    };
    eprintln!("hyperfleet-confine: {why}");
    ExitCode::from(NOT_REACHED)
}

/// One line that says what the system would not do.
fn confine(wanted: &Wanted) -> Result<(), String> {
    if let Some(cgroup) = &wanted.cgroup {
        hyperfleet_confine::join(cgroup)
            .map_err(|error| format!("cgroup {}: {error}", cgroup.display()))?;
    }
    umask(Mode::RWXG | Mode::RWXO);
    if let Some(score) = wanted.oom_score {
        // Raising it needs no privilege; a system that hides /proc has no such thing.
        let _ = std::fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    let limit = |resource, most| {
        let both = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, both).map_err(|error| format!("{resource:?}: {error}"))
    };
    limit(Resource::Core, 0)?;
    if let Some(most) = wanted.file_size {
        limit(Resource::Fsize, most)?;
        // Else the signal ends it; what is ignored stays so in the program.
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    }
    if let Some((uid, gid)) = wanted.user {
        let refused = |error: rustix::io::Errno| format!("becoming user {}: {error}", uid.as_raw());
        thread::set_thread_groups(&wanted.groups).map_err(refused)?;
        thread::set_thread_res_gid(gid, gid, gid).map_err(refused)?;
        // Root's capabilities go with the last of its ids (capabilities(7)).
        thread::set_thread_res_uid(uid, uid, uid).map_err(refused)?;
    }
    thread::set_no_new_privs(true).map_err(|error| format!("no new privileges: {error}"))
}

fn parse(mut arguments: lexopt::Parser) -> Result<Wanted, lexopt::Error> {
    let mut wanted = Wanted::default();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("cgroup") => wanted.cgroup = Some(PathBuf::from(arguments.value()?)),
            Long("user") => wanted.user = Some(arguments.value()?.parse_with(read_user)?),
            Long("group") => {
                let group = arguments.value()?.parse_with(read_id)?;
                wanted.groups.push(Gid::from_raw(group));
            }
            Long("file-size") => wanted.file_size = Some(arguments.value()?.parse()?),
            Long("oom-score") => wanted.oom_score = Some(arguments.value()?.parse()?),
            Value(program) => {
                wanted.program.push(program);
                wanted.program.extend(arguments.raw_args()?);
            }
            _ => return Err(argument.unexpected()),
        }
    }
    if wanted.program.is_empty() {
        return Err("which program?".into());
    }
    Ok(wanted)
}

fn read_user(text: &str) -> Result<(Uid, Gid), String> {
    let (uid, gid) = text.split_once(':').ok_or("not UID:GID")?;
    Ok((Uid::from_raw(read_id(uid)?), Gid::from_raw(read_id(gid)?)))
}

fn read_id(text: &str) -> Result<u32, String> {
    let id = text.parse().ok().filter(|id| ![0, u32::MAX].contains(id));
    id.ok_or_else(|| format!("{text:?} is no id of an ordinary user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Wanted, lexopt::Error> {
        parse(lexopt::Parser::from_args(words))
    }

    #[test]
    fn what_is_behind_the_program_is_its_own() {
        let words = [
            "--cgroup",
            "/cgroups/one",
            "--user",
            "7:8",
            "--group",
            "9",
            "--file-size",
            "10",
            "--",
            "ls",
            "--user",
            "-l",
        ];
        let wanted = parsed(&words).unwrap();
        assert_eq!(wanted.program, ["ls", "--user", "-l"]);
        assert_eq!(wanted.cgroup, Some(PathBuf::from("/cgroups/one")));
        assert_eq!(wanted.user, Some((Uid::from_raw(7), Gid::from_raw(8))));
        assert_eq!(
            (wanted.groups, wanted.file_size),
            (vec![Gid::from_raw(9)], Some(10))
        );
    }

    #[test]
    fn root_and_what_is_no_number_are_refused() {
        for words in [
            &["--user", "0:1", "ls"][..],
            &["--user", "1:0", "ls"],
            &["--user", "1", "ls"],
            &["--user", "4294967295:1", "ls"],
            &["--group", "root", "ls"],
            &["--file-size", "-1", "ls"],
            &["--user", "7:8"],
            &["--other", "ls"],
        ] {
            assert!(parsed(words).is_err(), "{words:?}");
        }
    }
}
