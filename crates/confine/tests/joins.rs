//! A plain folder stands in for a cgroup: its `cgroup.procs` has what the kernel would be told.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A folder of the test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let place =
            std::env::temp_dir().join(format!("hyperfleet-joins-{name}-{}", std::process::id()));
        fs::create_dir(&place).unwrap();
        Self(place)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a program that writes `cgroup.procs` out has seen there.
fn seen(folder: &Folder) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hyperfleet-confine"))
        .arg("--cgroup")
        .arg(&folder.0)
        .args(["--", "cat"])
        .arg(folder.0.join("cgroup.procs"))
        .output()
        .unwrap()
}

#[test]
fn the_program_begins_in_the_cgroup() {
    let folder = Folder::new("begins");
    fs::write(folder.0.join("cgroup.procs"), "").unwrap();
    let output = seen(&folder);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"0");
}

#[test]
fn without_the_cgroup_it_does_not_begin() {
    let folder = Folder::new("without");
    let output = seen(&folder);
    assert_eq!(output.status.code(), Some(126));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("No such file or directory"), "{words}");
    // None was made, either.
    assert!(!folder.0.join("cgroup.procs").exists());
}
