//! The access log: what a line says, what is kept, and what happens to its file.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use support::control_plane::ControlPlane;
use support::{get, machine, routes, run, Folder, Peer, Proxy, Server, ID, PATIENCE};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Waits for so many lines of a log, and reads them; there are no more.
#[track_caller]
fn lines(path: &Path, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(path).unwrap();
        if text.lines().count() >= count && text.ends_with('\n') {
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            let lines: Vec<Value> = lines.collect();
            assert_eq!(lines.len(), count, "{text}");
            return lines;
        }
        assert!(began.elapsed() < PATIENCE, "{text:?}");
        std::thread::yield_now();
    }
}

/// One request on a kept connection, answered by the machine with [`OK`].
fn exchange(client: &mut Peer, guest: &mut Peer, request: &str) {
    client.send(request);
    guest.head();
    guest.send(OK);
    client.response();
}

/// A proxy with a log `access.log` in a folder of the test's.
fn logging(server: &Server, folder: &Folder, more: &[&str]) -> Proxy {
    let path = folder.path("access.log");
    let mut arguments = vec!["--access-log", path.to_str().unwrap()];
    arguments.extend(more);
    Proxy::alone(&[(80, server.address)], &arguments)
}

#[test]
fn a_line_says_what_was_asked_and_what_came_of_it_but_no_secret() {
    let (server, folder) = (Server::new(), Folder::new());
    let proxy = logging(&server, &folder, &["--host-suffix", ".local.dev"]);
    let mut client = proxy.connect();
    let head = "POST /proxy/web/80/a%22b?token=secret HTTP/1.1\r\nHost: secret\r\n\
        Authorization: secret\r\nContent-Length: 5\r\n\r\n";
    client.send(format!("{head}hello"));
    let mut guest = server.accept();
    guest.head();
    guest.bytes(5);
    guest.send(OK);
    let (answer, _) = client.response();
    let host = "GET /b?secret HTTP/1.1\r\nHost: web-80.local.dev\r\n\r\n";
    exchange(&mut client, &mut guest, host);
    let path = folder.path("access.log");
    let lines = lines(&path, 2);
    let line = &lines[0];
    assert_eq!(line["method"], "POST");
    assert_eq!(line["mode"], "path");
    assert_eq!((&line["machine"], &line["port"]), (&ID.into(), &80.into()));
    assert_eq!(line["path"], "/proxy/web/80/a%22b");
    assert_eq!(
        (&line["status"], &line["error"]),
        (&200.into(), &Value::Null)
    );
    assert_eq!(line["bytes_in"], head.len() + 5);
    assert_eq!(line["bytes_out"], answer.len() + 2);
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(line["protocol"], "http");
    let (whole, first) = (&line["duration_ms"], &line["first_byte_ms"]);
    assert!(first.as_f64().unwrap() > 0.0 && whole.as_f64() >= first.as_f64());
    let time = line["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let line = &lines[1];
    assert_eq!(
        (&line["mode"], &line["machine"]),
        (&"host".into(), &ID.into())
    );
    assert_eq!(
        (&line["path"], &line["bytes_in"]),
        (&"/b".into(), &host.len().into())
    );
    assert!(!fs::read_to_string(&path).unwrap().contains("secret"));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn our_own_answers_have_their_code() {
    let (server, folder) = (Server::new(), Folder::new());
    let proxy = logging(&server, &folder, &[]);
    let path = folder.path("access.log");
    let mut seen = 0;
    for (request, expected) in [
        (
            get("/proxy/nobody/80/"),
            (404, "machine_not_found", "nobody", 80),
        ),
        (get("/proxy/web/81/"), (403, "port_not_exposed", ID, 81)),
    ] {
        proxy.once(&request);
        seen += 1;
        let line = &lines(&path, seen)[seen - 1];
        let (status, code, machine, port) = expected;
        assert_eq!(
            (&line["status"], &line["error"]),
            (&status.into(), &code.into())
        );
        assert_eq!(
            (&line["machine"], &line["port"]),
            (&machine.into(), &port.into())
        );
        assert_eq!(line["first_byte_ms"], Value::Null);
        assert_eq!(line["bytes_in"], request.len());
        assert!(line["bytes_out"].as_u64() > Some(0));
    }
    proxy.once(&get("/elsewhere?secret"));
    let line = &lines(&path, 3)[2];
    assert_eq!(
        (&line["path"], &line["mode"]),
        (&"/elsewhere".into(), &Value::Null)
    );
    assert_eq!(line["error"], "not_found");
    proxy.once("GET secret HTTP/1.1\r\nHost: h\r\n\r\n");
    let line = &lines(&path, 4)[3];
    assert_eq!(
        (&line["status"], &line["error"]),
        (&400.into(), &"bad_request".into())
    );
    assert_eq!(
        (&line["method"], &line["path"]),
        (&Value::Null, &Value::Null)
    );
    proxy.once(&get("/proxy/web/80"));
    let line = &lines(&path, 5)[4];
    assert_eq!(
        (&line["status"], &line["error"]),
        (&308.into(), &Value::Null)
    );
    // The machine was asked, and said nothing that could be passed on.
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut guest = server.accept();
    guest.head();
    guest.send("nonsense\r\n\r\n");
    client.response();
    drop(client);
    let line = &lines(&path, 6)[5];
    assert_eq!(
        (&line["status"], &line["error"]),
        (&502.into(), &"upstream_invalid_response".into())
    );
    assert!(!fs::read_to_string(&path).unwrap().contains("secret"));
}

#[test]
fn a_websocket_has_one_line_at_its_end() {
    let (server, folder) = (Server::new(), Folder::new());
    let proxy = logging(&server, &folder, &[]);
    let mut client = proxy.connect();
    client.send(
        "GET /proxy/web/80/ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let mut guest = server.accept();
    guest.head();
    guest.send("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let head = client.head();
    guest.send("12345678");
    client.expect("12345678");
    let path = folder.path("access.log");
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    guest.shut();
    client.shut();
    let line = &lines(&path, 1)[0];
    assert_eq!(
        (&line["status"], &line["protocol"]),
        (&101.into(), &"websocket".into())
    );
    assert_eq!(line["bytes_out"], head.len() + 8);
}

#[test]
fn a_sample_keeps_every_error() {
    let (server, folder) = (Server::new(), Folder::new());
    let proxy = logging(&server, &folder, &["--access-log-sample", "3"]);
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/0"));
    let mut guest = server.accept();
    guest.head();
    guest.send(OK);
    client.response();
    for number in 1..7 {
        exchange(
            &mut client,
            &mut guest,
            &get(&format!("/proxy/web/80/{number}")),
        );
        client.send(get("/proxy/nobody/80/"));
        client.response();
    }
    let lines = lines(&folder.path("access.log"), 3 + 6);
    let paths = lines.iter().filter(|line| line["error"].is_null());
    let paths: Vec<_> = paths.map(|line| line["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        ["/proxy/web/80/0", "/proxy/web/80/3", "/proxy/web/80/6"]
    );
}

#[test]
fn a_signal_opens_the_file_anew_or_leaves_the_old_one() {
    let (server, folder) = (Server::new(), Folder::new());
    let proxy = logging(&server, &folder, &[]);
    // Whoever it has become may make files here.
    let all = fs::Permissions::from_mode(0o777);
    fs::set_permissions(folder.path("."), all).unwrap();
    let (path, moved) = (folder.path("access.log"), folder.path("access.log.1"));
    proxy.once(&get("/first"));
    lines(&path, 1);
    fs::rename(&path, &moved).unwrap();
    let reopened = |word: &str| {
        proxy.signal(libc::SIGHUP);
        // The routes are read again too; which of the two comes first is open.
        let both = [proxy.complaint(), proxy.complaint()];
        assert!(both.iter().any(|line| line.contains(word)), "{both:?}");
    };
    reopened("access log opened again");
    proxy.once(&get("/second"));
    assert_eq!(lines(&path, 1)[0]["path"], "/second");
    assert_eq!(lines(&moved, 1)[0]["path"], "/first");
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    reopened("it stays in the old file");
    proxy.once(&get("/third"));
    assert_eq!(lines(&moved, 2)[1]["path"], "/third");
}

#[test]
fn lines_that_wait_are_written_when_the_process_ends() {
    let (server, folder) = (Server::new(), Folder::new());
    let mut proxy = logging(&server, &folder, &[]);
    let mut client = proxy.connect();
    client.send(get("/elsewhere").repeat(50));
    for _ in 0..50 {
        client.response();
    }
    drop(client);
    proxy.signal(libc::SIGTERM);
    assert!(proxy.wait().success());
    lines(&folder.path("access.log"), 50);
}

#[test]
fn a_file_that_takes_nothing_holds_nobody_up_and_what_is_lost_is_counted() {
    let folder = Folder::new();
    let fifo = folder.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let (code, _, stderr) = run(&[
        "--listen",
        "127.0.0.1:0",
        "--access-log",
        fifo.to_str().unwrap(),
    ]);
    assert_eq!(code, Some(2), "nobody reads it: {stderr}");
    assert!(stderr.contains("--access-log"), "{stderr}");
    // Open both ways, a FIFO waits for nobody (fifo(7)).
    let reader = OpenOptions::new().read(true).write(true).open(&fifo);
    let reader: File = reader.unwrap();
    let proxy = Proxy::controlled(&["--access-log", fifo.to_str().unwrap()]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![]);
    let mut client = proxy.connect();
    let request = get(&format!("/{}", "x".repeat(2000)));
    let mut asked = 0;
    while counted(&mut plane) == 0 {
        assert!(asked < 20_000, "nothing is lost");
        client.send(request.repeat(8));
        for _ in 0..8 {
            client.response();
        }
        asked += 8;
    }
    // A line follows its answer: only when the connection is over has the last one been tried.
    drop(client);
    plane.until("the client is gone", |counters| counters.connections == 0);
    let lost = counted(&mut plane);
    let mut lines = BufReader::new(reader).lines();
    for _ in 0..asked - lost {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["error"], "not_found");
    }
    assert_eq!(counted(&mut plane), lost);
}

fn counted(plane: &mut ControlPlane) -> u64 {
    plane.counters().bounds["access_log"]
}

#[test]
fn a_full_disk_is_told_once_and_counted() {
    let proxy = Proxy::controlled(&["--access-log", "/dev/full"]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![]);
    for _ in 0..3 {
        proxy.once(&get("/elsewhere"));
    }
    plane.until("three lines are lost", |counters| {
        counters.bounds["access_log"] == 3
    });
    assert!(proxy.complaint().contains("access log: "));
    assert_eq!(proxy.further_complaints(), [""; 0]);
}

#[test]
fn standard_error_will_do_and_without_the_setting_nothing_is_written() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &["--access-log", "-"]);
    proxy.once(&get("/elsewhere"));
    let line: Value = serde_json::from_str(&proxy.complaint()).unwrap();
    assert_eq!(line["status"], 404);
    let table = routes(&[machine(ID, "web", "running", 1, &[])]);
    let mut silent = Proxy::with_routes(&table, &["--access-log", ""]);
    silent.once(&get("/elsewhere"));
    let threads = fs::read_dir(format!("/proc/{}/task", silent.pid())).unwrap();
    let names = threads.map(|thread| thread.unwrap().path().join("comm"));
    let names: Vec<_> = names
        .filter_map(|comm| fs::read_to_string(comm).ok())
        .collect();
    assert!(
        !names.iter().any(|name| name.starts_with("access-log")),
        "{names:?}"
    );
    silent.signal(libc::SIGTERM);
    assert!(silent.wait().success());
    assert_eq!(silent.further_complaints(), [""; 0]);
}
