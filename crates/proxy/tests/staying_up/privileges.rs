//! What the process has given up once it serves, as the kernel tells it.

use std::os::unix::fs::PermissionsExt;

use crate::support::control_plane::{web, ControlPlane};
use crate::support::{figure, get, run, Folder, Proxy, Server};

fn is_root() -> bool {
    // SAFETY: it only reads a number and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A line of the status of each of its threads.
fn threads(proxy: &Proxy, name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    tasks
        .map(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

#[test]
fn nothing_is_left_in_any_thread() {
    let server = Server::new();
    let proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n");
    client.head();
    let none = "0000000000000000";
    for (name, wanted) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapInh", none),
        ("CapPrm", none),
        ("CapEff", none),
        ("CapAmb", none),
    ] {
        let found = threads(&proxy, name);
        assert!(found.len() >= 3, "two workers and the main thread");
        assert!(
            found.iter().all(|value| value == wanted),
            "{name}: {found:?}"
        );
    }
    if is_root() {
        for name in ["Uid", "Gid"] {
            let found = threads(&proxy, name);
            let root = |value: &String| value.split(' ').any(|id| id == "0");
            assert!(!found.iter().any(root), "{name}: {found:?}");
        }
        assert!(threads(&proxy, "Groups").iter().all(String::is_empty));
    }
    // Its control socket is its starter's alone, whoever it is now.
    let socket = std::fs::metadata(proxy.control_socket()).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    figure(
        "threads without privileges",
        format_args!("{} of {0}", threads(&proxy, "Seccomp").len()),
    );
}

#[test]
fn another_user_is_taken_by_number_and_the_filter_can_be_left_out() {
    let proxy = Proxy::controlled(&["--user", "4242", "--seccomp", "false"]);
    assert!(threads(&proxy, "Seccomp").iter().all(|mode| mode != "2"));
    assert!(threads(&proxy, "NoNewPrivs").iter().all(|mode| mode == "1"));
    if is_root() {
        let four = "4242 4242 4242 4242";
        assert!(threads(&proxy, "Uid").iter().all(|ids| ids == four));
        assert!(threads(&proxy, "Gid").iter().all(|ids| ids == four));
    }
}

#[test]
fn without_an_ordinary_user_root_does_not_serve() {
    if !is_root() {
        // Then there is nobody to become, and nothing is looked up.
        Proxy::controlled(&["--user", "no-such-user"]);
        return;
    }
    let folder = Folder::new();
    let socket = folder.path("control");
    for user in ["no-such-user", "root", "0"] {
        let arguments = ["--listen", "127.0.0.1:0", "--user", user, "--control"];
        let (code, stdout, stderr) = run(&[&arguments[..], &[socket.to_str().unwrap()]].concat());
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&format!("--user {user}: ")), "{stderr}");
    }
}
