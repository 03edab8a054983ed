//! What an exec call asks for, checked and made ready: environment, program, directory. The
//! questions to the file system are all here; nothing is started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hyperfleet_wire::guest::Exec;
use rustix::fs::{access, Access};

use crate::answers::Refusal;

/// The environment a process has before the call's own is added.
pub const DEFAULT_ENV: [(&str, &str); 6] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/sh"),
    ("LANG", "C.UTF-8"),
];

/// `TERM` of a process with a terminal that is told no other: all that people sit at understand it.
const TERMINAL: &str = "xterm-256color";

/// A call that can be spawned.
#[derive(Debug)]
pub struct Program {
    /// Where the program is.
    pub path: PathBuf,
    /// What the program is told it was called, and its arguments.
    pub argv: Vec<String>,
    pub env: BTreeMap<OsString, OsString>,
    pub cwd: PathBuf,
}

impl Program {
    /// Checks `call` and looks its program up, as a shell would.
    ///
    /// # Errors
    /// `invalid` for what no process can have, `failed` for a working directory that is not one,
    /// `not_found` and `not_executable` for the program.
    pub fn find(call: &Exec) -> Result<Self, Refusal> {
        let name = match call.argv.first() {
            Some(name) if !name.is_empty() => name,
            _ => return Err(Refusal::invalid("argv names no program")),
        };
        if call.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(Refusal::invalid("argv holds a NUL byte"));
        }
        let mut env: BTreeMap<OsString, OsString> = DEFAULT_ENV
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        for (name, value) in &call.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(Refusal::invalid(format!(
                    "env holds a name or value that no process can have: {name:?}"
                )));
            }
            env.insert(name.into(), value.into());
        }
        if call.terminal.is_some() {
            env.entry("TERM".into()).or_insert_with(|| TERMINAL.into());
        }
        let cwd = PathBuf::from(call.cwd.as_deref().unwrap_or("/"));
        match std::fs::metadata(&cwd) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                return Err(Refusal::failed(format!(
                    "cannot work in {}: not a directory",
                    cwd.display()
                )))
            }
            Err(why) => {
                return Err(Refusal::failed(format!(
                    "cannot work in {}: {why}",
                    cwd.display()
                )))
            }
        }
        let path = look_up(name, env.get(&OsString::from("PATH")), &cwd)?;
        Ok(Self {
            path,
            argv: call.argv.clone(),
            env,
            cwd,
        })
    }
}

/// POSIX's search (XCU 2.9.1.4): a name with a slash is a path as it stands, else the first
/// executable file of that name in the directories of `PATH`.
fn look_up(name: &str, path: Option<&OsString>, cwd: &Path) -> Result<PathBuf, Refusal> {
    if name.contains('/') {
        return match judge(&cwd.join(name)) {
            // Kept as it was written: a relative one is resolved from the working directory.
            Found::Program => Ok(PathBuf::from(name)),
            Found::NotExecutable => Err(Refusal::not_executable(name)),
            Found::Nothing => Err(Refusal::not_found(name)),
        };
    }
    let mut unusable = false;
    let directories = path.map(|path| path.as_bytes()).unwrap_or_default();
    for directory in directories.split(|&byte| byte == b':') {
        // An empty entry is the working directory.
        let directory = Path::new(std::ffi::OsStr::from_bytes(directory));
        let candidate = cwd.join(directory).join(name);
        match judge(&candidate) {
            Found::Program => return Ok(candidate),
            Found::NotExecutable => unusable = true,
            Found::Nothing => {}
        }
    }
    Err(if unusable {
        Refusal::not_executable(name)
    } else {
        Refusal::not_found(name)
    })
}

enum Found {
    Program,
    NotExecutable,
    Nothing,
}

fn judge(path: &Path) -> Found {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() && access(path, Access::EXEC_OK).is_ok() => Found::Program,
        Ok(_) => Found::NotExecutable,
        Err(why) if why.kind() == std::io::ErrorKind::PermissionDenied => Found::NotExecutable,
        Err(_) => Found::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(argv: &[&str]) -> Exec {
        Exec {
            argv: argv.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            cwd: None,
            timeout_ms: 0,
            stdin: false,
            output_limit: 0,
            output_window: None,
            terminal: None,
        }
    }

    fn code(call: &Exec) -> &'static str {
        Program::find(call).expect_err("must be refused").code
    }

    #[test]
    fn a_program_is_found_in_the_path_of_its_own_environment() {
        let mut sh = call(&["sh", "-c", "true"]);
        assert!(Program::find(&sh).unwrap().path.ends_with("sh"));
        sh.env = vec![("PATH".into(), "/nonexistent".into())];
        assert_eq!(code(&sh), "not_found");
        sh.env.push(("PATH".into(), "/nonexistent:/bin".into()));
        assert_eq!(Program::find(&sh).unwrap().path, Path::new("/bin/sh"));
    }

    #[test]
    fn a_path_with_a_slash_is_never_searched() {
        let mut relative = call(&["./sh"]);
        assert_eq!(code(&relative), "not_found");
        relative.cwd = Some("/bin".into());
        assert_eq!(Program::find(&relative).unwrap().path, Path::new("./sh"));
    }

    #[test]
    fn what_is_there_but_cannot_run_is_told_apart() {
        assert_eq!(code(&call(&["/etc/passwd"])), "not_executable");
        assert_eq!(code(&call(&["/etc"])), "not_executable");
        assert_eq!(code(&call(&["/etc/passwd/x"])), "not_found");
        let mut in_path = call(&["passwd"]);
        in_path.env = vec![("PATH".into(), "/etc".into())];
        assert_eq!(code(&in_path), "not_executable");
    }

    #[test]
    fn what_no_process_can_have_is_invalid() {
        assert_eq!(code(&call(&[])), "invalid");
        assert_eq!(code(&call(&[""])), "invalid");
        assert_eq!(code(&call(&["sh", "a\0b"])), "invalid");
        for (name, value) in [("", "x"), ("a=b", "x"), ("a\0", "x"), ("a", "\0")] {
            let mut bad = call(&["sh"]);
            bad.env = vec![(name.into(), value.into())];
            assert_eq!(code(&bad), "invalid", "{name:?}={value:?}");
        }
    }

    #[test]
    fn a_working_directory_must_be_one() {
        for cwd in ["/nonexistent", "/etc/passwd", ""] {
            let mut bad = call(&["sh"]);
            bad.cwd = Some(cwd.into());
            assert_eq!(code(&bad), "failed", "{cwd}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_variable_wins() {
        let mut twice = call(&["sh"]);
        twice.env = vec![("A".into(), "1".into()), ("A".into(), "2".into())];
        let env = Program::find(&twice).unwrap().env;
        assert_eq!(env[&OsString::from("A")], "2");
        assert_eq!(env[&OsString::from("HOME")], "/root");
    }
}
