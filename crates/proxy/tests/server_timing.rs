//! What clients are told of where the time went, if they are to be told.

mod support;

use hyperfleet_proxy::server_timing::Timing;
use support::{field, get, Peer, Proxy, Server};

const ON: &[&str] = &["--server-timing", "true"];

/// The names in a `Server-Timing` line of ours and their milliseconds.
#[track_caller]
fn metrics(line: &str) -> Vec<(&str, f64)> {
    let metrics = line.split(", ").map(|metric| {
        let (name, duration) = metric.split_once(";dur=").unwrap();
        (name, duration.parse().unwrap())
    });
    metrics.collect()
}

#[test]
fn times_are_milliseconds_with_three_digits() {
    let mut out = Vec::new();
    let mut timing = Timing {
        hyperfleet_us: 1_234_005,
        upstream_us: Some(7),
    };
    timing.write(&mut out);
    timing.upstream_us = None;
    timing.write(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "Server-Timing: hyperfleet;dur=1234.005, upstream;dur=0.007\r\n\
         Server-Timing: hyperfleet;dur=1234.005\r\n"
    );
}

/// Asks for `/`; the machine answers, with an interim head before. The client gets both heads.
fn asked(client: &mut Peer, server: &Server) -> (String, String) {
    client.send(get("/proxy/web/80/"));
    let mut guest = server.accept();
    guest.head();
    guest.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    let interim = client.head();
    guest.send("HTTP/1.1 200 OK\r\nServer-Timing: db;dur=5\r\nContent-Length: 0\r\n\r\n");
    (interim, client.head())
}

#[test]
fn a_machines_answer_tells_of_both_beside_the_machines_own_word() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], ON);
    let (interim, head) = asked(&mut proxy.connect(), &server);
    assert_eq!(field(&interim, "Server-Timing"), None);
    let lines: Vec<_> = head
        .lines()
        .filter_map(|line| line.strip_prefix("Server-Timing: "))
        .collect();
    assert_eq!(lines[0], "db;dur=5");
    let [("hyperfleet", ours), ("upstream", theirs)] = metrics(lines[1])[..] else {
        panic!("{head}");
    };
    assert!(ours > 0.0 && theirs > 0.0, "{head}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn an_upgrade_tells_too() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], ON);
    let mut client = proxy.connect();
    client.send("GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    let mut guest = server.accept();
    guest.head();
    guest.send("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    let head = client.head();
    assert_eq!(metrics(field(&head, "Server-Timing").unwrap()).len(), 2);
}

#[test]
fn our_own_answers_tell_of_ours_alone() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], ON);
    for target in [
        "/elsewhere",
        "/proxy/nobody/80/",
        "/proxy/web/80",
        "no path",
    ] {
        let answer = proxy.once(&get(target));
        let line = field(&answer, "Server-Timing").unwrap();
        assert!(matches!(metrics(line)[..], [("hyperfleet", _)]), "{answer}");
    }
    // Instead of a machine's.
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut guest = server.accept();
    guest.head();
    guest.send("nonsense\r\n\r\n");
    let (answer, _) = client.response();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let line = field(&answer, "Server-Timing").unwrap();
    assert!(
        matches!(metrics(line)[..], [("hyperfleet", ours)] if ours > 0.0),
        "{answer}"
    );
}

#[test]
fn nothing_is_told_unless_it_is_wanted() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &[]);
    let (_, head) = asked(&mut proxy.connect(), &server);
    assert_eq!(field(&head, "Server-Timing"), Some("db;dur=5"));
    assert_eq!(head.matches("Server-Timing").count(), 1, "{head}");
    let answer = proxy.once(&get("/elsewhere"));
    assert_eq!(field(&answer, "Server-Timing"), None);
}
