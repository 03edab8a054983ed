//! Every bound: a clear answer or a closed connection, and a count.

use std::io::Write;
use std::time::Instant;

use socket2::{Domain, Socket, Type};

use crate::crowds::raise_descriptor_limit;
use crate::support::control_plane::{web, ControlPlane};
use crate::support::{field, figure, get, Peer, Proxy, Server, PATIENCE};

/// A data plane with small bounds, its machine, and its control plane.
fn bounded(arguments: &[&str]) -> (Server, Proxy, ControlPlane) {
    let server = Server::new();
    let proxy = Proxy::controlled(arguments);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    (server, proxy, plane)
}

fn met(plane: &mut ControlPlane, name: &str) -> u64 {
    plane.counters().bounds[name]
}

#[track_caller]
fn expect_full(client: &mut Peer, text: &str) {
    let (head, body) = client.response();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(field(&head, "X-Hyperfleet-Error"), Some("over_capacity"));
    assert_eq!(field(&head, "Retry-After"), Some("1"));
    assert_eq!(body, format!(r#"{{"error":"{text}"}}"#));
}

#[test]
fn what_a_client_sends_too_much_of_is_answered_and_counted() {
    let (_, proxy, mut plane) = bounded(&[
        "--max-head-bytes",
        "1024",
        "--max-target-bytes",
        "256",
        "--max-head-fields",
        "8",
        "--max-body-bytes",
        "10",
    ]);
    let post = |framing: &str, body: &str| {
        format!("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n{body}")
    };
    let chunked = |body: &str| post("Transfer-Encoding: chunked", body);
    for (bound, status, request) in [
        (
            "request_head",
            431,
            format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(1024)),
        ),
        (
            "request_head",
            431,
            format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(8)),
        ),
        ("request_target", 414, get(&"/".repeat(257))),
        ("request_body", 413, post("Content-Length: 11", "")),
        ("request_body", 413, chunked("b\r\n")),
        (
            "chunk_line",
            400,
            chunked(&format!("1;{}", "x".repeat(1024))),
        ),
        (
            "request_head",
            431,
            chunked(&format!("0\r\nX: {}", "x".repeat(1024))),
        ),
    ] {
        let before = met(&mut plane, bound);
        let mut client = proxy.connect();
        client.send(&request);
        let (head, _) = client.response();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{bound}: {head}"
        );
        client.expect_end();
        assert_eq!(met(&mut plane, bound), before + 1, "{bound}");
    }
}

#[test]
fn what_a_machine_sends_too_much_of_is_answered_and_counted() {
    let (server, proxy, mut plane) = bounded(&[]);
    let long = "x".repeat(64 * 1024);
    let many = "X: y\r\n".repeat(257);
    for (bound, response, answered) in [
        (
            "response_head",
            format!("HTTP/1.1 200 OK\r\nX: {long}\r\n\r\n"),
            true,
        ),
        (
            "response_head",
            format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
            true,
        ),
        (
            "chunk_line",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{long}\r\n"),
            false,
        ),
        (
            "response_head",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {long}\r\n\r\n"),
            false,
        ),
    ] {
        let before = met(&mut plane, bound);
        let mut client = proxy.connect();
        client.send(get("/proxy/web/80/"));
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(&response);
        let head = client.head();
        if answered {
            assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        } else {
            // Cut: no last chunk.
            assert!(!client.rest().ends_with("0\r\n\r\n"));
        }
        assert_eq!(met(&mut plane, bound), before + 1, "{bound}");
    }
}

#[test]
fn a_machine_has_so_many_requests_and_connections() {
    for (argument, bound) in [
        ("--max-machine-requests", "machine_requests"),
        ("--max-machine-connections", "machine_connections"),
    ] {
        let (server, proxy, mut plane) = bounded(&[argument, "1"]);
        let mut first = proxy.connect();
        first.send(get("/proxy/web/80/"));
        let mut upstream = server.accept();
        upstream.head();
        let mut second = proxy.connect();
        second.send(get("/proxy/web/80/"));
        expect_full(&mut second, "Too many requests to this machine");
        assert_eq!(met(&mut plane, bound), 1, "{bound}");
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        first.response();
    }
}

#[test]
fn clients_have_so_many_connections_and_what_is_told_is_bounded_too() {
    const MOST: usize = 8;
    for (arguments, bound, text) in [
        (
            vec!["--max-connections", "8"],
            "connections",
            "Too many connections to the proxy",
        ),
        (
            vec!["--max-address-connections", "8", "--trusted", ""],
            "address_connections",
            "Too many connections from this address",
        ),
    ] {
        let (_, proxy, mut plane) = bounded(&arguments);
        let mut clients: Vec<_> = (0..MOST).map(|_| proxy.connect()).collect();
        for client in &mut clients {
            client.send(get("/proxy/nobody/80/"));
            assert!(client.response().0.starts_with("HTTP/1.1 404 "));
        }
        expect_full(&mut proxy.connect(), text);
        assert_eq!(met(&mut plane, bound), 1);
        // Each holds a place while it is told, but not more than so many.
        let mut over: Vec<_> = (0..100).map(|_| proxy.connect()).collect();
        let told = over.iter_mut().filter_map(Peer::try_head).count();
        assert!((1..100).contains(&told), "{told}");
        assert_eq!(met(&mut plane, bound), 101);
        figure(bound, format_args!("{MOST} served, {told} of 100 told"));
        drop((over, clients));
        plane.until("all places are free", |counters| counters.connections == 0);
        let answer = proxy.once(&get("/proxy/nobody/80/"));
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
}

#[test]
fn a_trusted_proxy_has_as_many_connections_as_all() {
    let (_, proxy, mut plane) = bounded(&["--max-address-connections", "1"]);
    let mut clients: Vec<_> = (0..5).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send(get("/proxy/nobody/80/"));
        assert!(client.response().0.starts_with("HTTP/1.1 404 "));
    }
    assert_eq!(met(&mut plane, "address_connections"), 0);
}

#[test]
fn requests_sent_ahead_wait_with_the_client() {
    let (server, proxy, mut plane) = bounded(&[]);
    let flood = || {
        let mut client = proxy.connect();
        client.send(get("/proxy/web/80/"));
        let mut upstream = server.accept();
        upstream.head();
        // The sockets' buffers take some; returns only because the client is held back.
        assert!(crate::support::fill(&client) > 64 << 10);
        (client, upstream)
    };
    let first: Vec<_> = (0..4).map(|_| flood()).collect();
    let before = proxy.memory();
    let more: Vec<_> = (0..40).map(|_| flood()).collect();
    let grown = proxy.memory().saturating_sub(before) / more.len() as u64;
    assert!(grown < 128, "{grown} KiB each");
    assert_eq!(met(&mut plane, "sent_ahead"), 44);
    figure(
        "held of what one client sends ahead",
        format_args!("{grown} KiB"),
    );
    drop((first, more));
}

#[test]
fn a_machines_port_keeps_so_many_idle_connections() {
    // One more than both workers may keep.
    const KEPT: usize = 256;
    const CLIENTS: usize = 2 * KEPT + 1;
    raise_descriptor_limit();
    let (server, proxy, mut plane) = bounded(&[]);
    let mut exchanges: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = proxy.connect();
            client.send(get("/proxy/web/80/"));
            let mut upstream = server.accept();
            upstream.head();
            (client, upstream)
        })
        .collect();
    assert_eq!(met(&mut plane, "idle_machine_connections"), 0);
    for (client, upstream) in &mut exchanges {
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.response().1, "ok");
        upstream.stream.set_nonblocking(true).unwrap();
    }
    // The kernel spreads clients over the workers as it likes: how many are too many for one, and
    // which of the old ones were its, is not known. That the end of each has come takes a moment.
    let began = Instant::now();
    let ended = loop {
        let told = met(&mut plane, "idle_machine_connections") as usize;
        let ended: Vec<_> = (0..CLIENTS)
            .filter(|&at| exchanges[at].1.stream.peek(&mut [0]).is_ok())
            .collect();
        if told > 0 && ended.len() == told {
            break ended;
        }
        assert!(began.elapsed() < PATIENCE, "{told} told, ended: {ended:?}");
    };
    // Both workers have at least their newest left.
    assert!(*ended.last().unwrap() < CLIENTS - KEPT, "{ended:?}");
}

#[test]
fn bodies_without_a_pipe_are_copied_and_counted() {
    // More slow clients than both workers have pipes.
    const CLIENTS: usize = 2 * 64 + 1;
    const LENGTH: usize = 64 << 20;
    let (server, proxy, mut plane) = bounded(&[]);
    let mut slow: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = small(&proxy);
            client.send(get("/proxy/web/80/"));
            let mut upstream = server.accept();
            upstream.head();
            upstream.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
            ));
            (client, upstream)
        })
        .collect();
    assert_eq!(met(&mut plane, "pipes"), 0);
    let block = vec![b'x'; 256 << 10];
    for (_, upstream) in &slow {
        upstream.stream.set_nonblocking(true).unwrap();
    }
    let began = Instant::now();
    while met(&mut plane, "pipes") == 0 {
        assert!(began.elapsed() < PATIENCE, "nobody goes without a pipe");
        for (_, upstream) in &slow {
            let _ = (&upstream.stream).write(&block);
        }
    }
    // What goes without is whole all the same, as far as it was sent.
    for (client, _) in &mut slow {
        client.head();
        client.expect(&block[..64 << 10]);
    }
}

/// A client whose kernel takes little of what it does not read.
fn small(proxy: &Proxy) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&proxy.address.into()).unwrap();
    Peer::new(socket.into())
}
