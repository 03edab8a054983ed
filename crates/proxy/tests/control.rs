//! The control socket, spoken by a control plane in the test's hands.

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use hyperfleet_wire::control::{FromProxy, Machine, ProbeOutcome, ToProxy, PROTOCOL};
use hyperfleet_wire::{encode, length};
use support::control_plane::{web, ControlPlane};
use support::{field, get, run, Folder, Proxy, Server, ID};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn listening(address: SocketAddr) -> ProbeOutcome {
    ProbeOutcome::Listening {
        upstream: address.to_string(),
    }
}

fn other(id: &str) -> Machine {
    Machine {
        id: id.to_owned(),
        name: format!("name-{id}"),
        status: "stopped".to_owned(),
        lifecycle: 0,
        ports: vec![],
    }
}

/// Status code of one GET to the machine.
fn status(proxy: &Proxy) -> String {
    proxy.once(&get("/proxy/web/80/"))[9..12].to_owned()
}

#[test]
fn snapshot_then_changes_then_a_gap_then_resync() {
    let proxy = Proxy::controlled(&["--snapshot-timeout-ms", "60000"]);
    let mode = std::fs::metadata(proxy.control_socket())
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    // Not told yet is not unknown: it waits for the first snapshot.
    let mut early = proxy.connect();
    early.send(get("/proxy/web/80/"));
    let mut plane = ControlPlane::new(&proxy);
    plane.change(1, vec![], &[]);
    assert_eq!(plane.hear(), FromProxy::Resync { have: 0 });
    plane.snapshot(7, vec![other("a"), web("stopped", None, false), other("b")]);
    assert!(early.response().0.starts_with("HTTP/1.1 503 "));
    for turn in 0..20 {
        let number = 8 + 2 * turn;
        plane.change(number, vec![], &[ID]);
        assert_eq!(plane.hear(), FromProxy::Applied { number });
        assert_eq!(status(&proxy), "404", "applied means every worker");
        plane.change(number + 1, vec![web("stopped", None, false)], &[]);
        assert_eq!(plane.hear(), FromProxy::Applied { number: number + 1 });
        assert_eq!(status(&proxy), "503", "applied means every worker");
    }
    plane.change(50, vec![], &[ID]);
    assert_eq!(plane.hear(), FromProxy::Resync { have: 47 });
    plane.change(51, vec![], &[ID]);
    assert_eq!(status(&proxy), "503", "it serves on with what it has");
    plane.snapshot(60, vec![other("c")]);
    assert_eq!(status(&proxy), "404");
    plane.change(61, vec![web("stopped", None, false)], &[]);
    assert_eq!(plane.hear(), FromProxy::Applied { number: 61 });
}

#[test]
fn a_hundred_thousand_machines_and_a_change() {
    let server = Server::new();
    let proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    plane.say(&ToProxy::SnapshotBegin { number: 1 });
    for part in 0..100 {
        let machines = (0..1000)
            .map(|at| other(&format!("m{part}-{at}")))
            .collect();
        plane.say(&ToProxy::SnapshotPart { machines });
    }
    plane.say(&ToProxy::SnapshotEnd { number: 1 });
    assert_eq!(plane.hear(), FromProxy::Applied { number: 1 });
    let answer = proxy.once(&get("/proxy/name-m99-999/80/"));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    plane.change(
        2,
        vec![web("running", Some(server.address), true)],
        &["m0-0"],
    );
    assert_eq!(plane.hear(), FromProxy::Applied { number: 2 });
    assert_eq!(proxy.once(&get("/proxy/m0-0/80/"))[9..12], *"404");
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    client.expect(OK);
}

#[test]
fn without_any_snapshot_it_says_so_in_time() {
    let proxy = Proxy::controlled(&["--snapshot-timeout-ms", "50"]);
    let answer = proxy.once(&get("/proxy/web/80/"));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(field(&answer, "X-Hyperfleet-Error"), Some("over_capacity"));
    assert_eq!(field(&answer, "Retry-After"), Some("1"));
    let answer = proxy.once(&get("/"));
    assert!(
        answer.starts_with("HTTP/1.1 404 "),
        "no table is needed: {answer}"
    );
}

#[test]
fn a_port_that_did_not_listen_is_asked_for_before_anything_is_sent() {
    let server = Server::new();
    let proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", None, false)]);
    let mut client = proxy.connect();
    client.send("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    let id = plane.probe();
    plane.answer(id, listening(server.address));
    let mut upstream = server.accept();
    upstream.head();
    upstream.expect("hi");
    upstream.send(OK);
    client.expect(OK);
}

#[test]
fn what_a_probe_says_decides() {
    let server = Server::new();
    let elsewhere = Server::new();
    let closed = Server::new().address;
    let proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    let code = |answer: &str| {
        field(answer, "X-Hyperfleet-Error")
            .unwrap_or("-")
            .to_owned()
    };
    let mut number = 1;
    plane.snapshot(number, vec![]);
    let mut ask = |upstream, listens, ends_first: bool, outcome: ProbeOutcome| {
        number += 1;
        plane.change(number, vec![web("running", Some(upstream), listens)], &[]);
        assert_eq!(plane.hear(), FromProxy::Applied { number });
        let mut client = proxy.connect();
        client.send(get("/proxy/web/80/"));
        if ends_first {
            // As a closed guest port looks through user-mode networking.
            server.accept().head();
        }
        let id = plane.probe();
        let there = outcome == listening(elsewhere.address);
        plane.answer(id, outcome);
        if there {
            let mut upstream = elsewhere.accept();
            upstream.head();
            upstream.send(OK);
        }
        client.shut();
        code(&client.rest())
    };
    let unknown = ProbeOutcome::Unknown;
    assert_eq!(
        ask(closed, true, false, ProbeOutcome::Closed),
        "upstream_connect_failed"
    );
    assert_eq!(
        ask(closed, true, false, unknown.clone()),
        "upstream_connect_failed"
    );
    assert_eq!(ask(closed, true, false, listening(elsewhere.address)), "-");
    assert_eq!(
        ask(closed, true, false, listening(closed)),
        "upstream_connect_failed"
    );
    assert_eq!(
        ask(server.address, false, false, ProbeOutcome::Closed),
        "upstream_connect_failed"
    );
    assert_eq!(
        ask(server.address, true, true, ProbeOutcome::Closed),
        "upstream_connect_failed"
    );
    assert_eq!(
        ask(server.address, true, true, listening(server.address)),
        "upstream_invalid_response"
    );
    assert_eq!(
        ask(server.address, true, true, listening(elsewhere.address)),
        "-"
    );
    assert_eq!(
        ask(server.address, true, true, unknown),
        "upstream_invalid_response"
    );
}

#[test]
fn what_a_kept_connection_may_have_heard_is_sent_nowhere_else() {
    let server = Server::new();
    let proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    client.expect(OK);
    client.send("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    upstream.head();
    drop(upstream);
    let (head, _) = client.response();
    assert_eq!(
        field(&head, "X-Hyperfleet-Error"),
        Some("upstream_invalid_response")
    );
    // Nor was it asked whether the port listens elsewhere.
    plane.say(&ToProxy::CountersRequest);
    assert!(matches!(plane.hear(), FromProxy::Counters { .. }));
    assert!(server.has_no_connection());
}

#[test]
fn a_probe_that_is_never_answered_ends_in_a_502() {
    let closed = Server::new().address;
    let proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", Some(closed), true)]);
    let answer = proxy.once(&get("/proxy/web/80/"));
    assert_eq!(
        field(&answer, "X-Hyperfleet-Error"),
        Some("upstream_connect_failed")
    );
    plane.probe();
}

#[test]
fn garbage_is_refused_and_serving_goes_on() {
    let server = Server::new();
    let proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    let mut bad_address = web("running", None, true);
    bad_address.ports[0].upstream = Some("nowhere".to_owned());
    let bad = [
        vec![0xff; 8],
        vec![0, 0, 0, 1, 0xc1],
        framed(&ToProxy::Hello {
            protocol: PROTOCOL + 1,
        }),
        framed(&ToProxy::CountersRequest),
    ];
    for bytes in bad {
        let mut stranger = ControlPlane::silent(&proxy);
        stranger.stream.write_all(&bytes).unwrap();
        assert!(
            matches!(stranger.hear(), FromProxy::Refused { .. }),
            "{bytes:?}"
        );
        assert_eq!(stranger.try_hear(), None);
    }
    // None of them was a control plane: the first one still is.
    plane.change(2, vec![], &[]);
    assert_eq!(plane.hear(), FromProxy::Applied { number: 2 });
    plane.change(3, vec![bad_address], &[]);
    assert!(matches!(plane.hear(), FromProxy::Refused { message } if message.contains("nowhere")));
    assert_eq!(plane.try_hear(), None);
    let mut client = proxy.connect();
    client.send("GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    assert!(client.rest().ends_with("ok"));
}

fn framed(message: &ToProxy) -> Vec<u8> {
    let mut frame = Vec::new();
    length::write(&encode(message), &mut frame).unwrap();
    frame
}

#[test]
fn the_newest_control_plane_wins_and_a_lost_one_costs_nothing() {
    let server = Server::new();
    let proxy = Proxy::controlled(&[]);
    let mut first = ControlPlane::new(&proxy);
    first.snapshot(1, vec![web("running", Some(server.address), true)]);
    let mut second = ControlPlane::new(&proxy);
    assert_eq!(first.try_hear(), None, "the older one is let go");
    second.change(2, vec![], &[]);
    assert_eq!(
        second.hear(),
        FromProxy::Resync { have: 0 },
        "numbers are a session's own"
    );
    drop(second);
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    client.expect(OK);
    // The next one's table keeps the connections of machines that have not changed.
    let mut third = ControlPlane::new(&proxy);
    third.snapshot(1, vec![web("running", Some(server.address), true)]);
    client.send(get("/proxy/web/80/"));
    upstream.head();
    upstream.send(OK);
    client.expect(OK);
    third.say(&ToProxy::CountersRequest);
    let FromProxy::Counters { counters } = third.hear() else {
        panic!("counters are wanted");
    };
    assert_eq!((counters.requests, counters.responses[1]), (2, 2));
    assert_eq!(
        (counters.upstream_connects, counters.upstream_reuses),
        (1, 1)
    );
    assert_eq!((counters.connections, counters.accepted), (1, 1));
}

#[test]
fn a_stop_and_a_removal_reach_requests_that_wait() {
    let server = Server::new();
    let proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    for (number, upsert, remove, wanted) in [
        (2, vec![web("stopping", None, false)], vec![], "503"),
        (
            3,
            vec![web("running", Some(server.address), true)],
            vec![],
            "",
        ),
        (4, vec![], vec![ID], "404"),
    ] {
        let mut client = proxy.connect();
        let upstream = (!wanted.is_empty()).then(|| {
            client.send(get("/proxy/web/80/"));
            let mut upstream = server.accept();
            upstream.head();
            upstream
        });
        plane.change(number, upsert, &remove);
        assert_eq!(plane.hear(), FromProxy::Applied { number });
        if let Some(mut upstream) = upstream {
            assert_eq!(client.response().0[9..12], *wanted);
            upstream.expect_end();
        }
    }
}

#[test]
fn drain_is_a_message_too() {
    let mut proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![]);
    plane.say(&ToProxy::Drain { timeout_ms: 1000 });
    assert_eq!(proxy.wait().code(), Some(0));
    // As root its file stays: whom it has become may not write to root's folder.
    assert!(std::os::unix::net::UnixStream::connect(proxy.control_socket()).is_err());
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_respected() {
    let folder = Folder::new();
    let path = folder.path("control");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--control",
        path.to_str().unwrap(),
    ];
    let live = UnixListener::bind(&path).unwrap();
    let (code, _, stderr) = run(&arguments);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("another data plane"), "{stderr}");
    drop(live);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    let (code, _, stderr) = run(&arguments);
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let proxy = Proxy::controlled_over_a_dead_socket();
    ControlPlane::new(&proxy).snapshot(1, vec![]);
}
