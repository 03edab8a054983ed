//! What breaks inside: a panic, no descriptors, no control plane.

use crate::support::control_plane::{web, ControlPlane};
use crate::support::{field, figure, get, Proxy, Server};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Panics can be asked for only where they are compiled in.
#[cfg(debug_assertions)]
#[test]
fn a_panic_ends_its_own_connection_and_gives_all_back() {
    const PANICS: u64 = 50;
    let server = Server::new();
    let faulty = Server::new();
    let proxy = Proxy::controlled_and_faulty(faulty.address.port());
    let mut plane = ControlPlane::new(&proxy);
    let mut machine = web("running", Some(server.address), true);
    let mut other = machine.ports[0].clone();
    other.port = 81;
    other.upstream = Some(faulty.address.to_string());
    machine.ports.push(other);
    plane.snapshot(1, vec![machine]);
    let mut bystander = proxy.connect();
    bystander.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    let before = proxy.descriptors();
    for _ in 0..PANICS {
        let mut client = proxy.connect();
        client.send(get("/proxy/web/81/"));
        // The machine's connection was made, and is closed with the client's.
        faulty.accept().expect_end();
        client.expect_end();
    }
    while !proxy.complaint().contains("panicked") {}
    upstream.send(OK);
    bystander.expect(OK);
    plane.until("places are given back", |counters| {
        counters.connections == 1
    });
    proxy.expect_descriptors(before);
    figure("panics outlived", PANICS);
}

#[test]
fn without_descriptors_it_serves_what_it_has_and_accepts_again() {
    const DESCRIPTORS: u64 = 64;
    let server = Server::new();
    let proxy = Proxy::controlled_with_descriptors(DESCRIPTORS);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    let mut known = proxy.connect();
    known.send(get("/proxy/nobody/80/"));
    assert!(known.response().0.starts_with("HTTP/1.1 404 "));
    assert_eq!(plane.counters().bounds["host_sockets"], 0);

    // More than there are descriptors for: the rest waits in the kernel.
    let mut crowd: Vec<_> = (0..DESCRIPTORS).map(|_| proxy.connect()).collect();
    assert!(proxy.complaint().contains("accept: "));
    known.send(get("/proxy/nobody/80/"));
    assert!(known.response().0.starts_with("HTTP/1.1 404 "));
    known.send(get("/proxy/web/80/"));
    let (head, _) = known.response();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(field(&head, "X-Hyperfleet-Error"), Some("over_capacity"));
    assert_eq!(field(&head, "Retry-After"), Some("1"));
    let counters = plane.until("accepting is tried again", |counters| {
        counters.bounds["host_sockets"] > 6
    });
    // One line of each of the two workers, whatever they met since.
    assert!(proxy.further_complaints().len() <= 1);

    // Those that go make room for those that wait.
    let mut waiting = crowd.split_off(crowd.len() / 2);
    drop(crowd);
    for client in &mut waiting {
        client.send(get("/proxy/nobody/80/"));
        assert!(client.response().0.starts_with("HTTP/1.1 404 "));
    }
    known.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    assert!(known.response().0.starts_with("HTTP/1.1 200 "));
    figure(
        "clients with 64 descriptors, of 64 that came",
        format_args!(
            "{} served after others left; met {} times",
            waiting.len(),
            counters.bounds["host_sockets"]
        ),
    );
}

#[test]
fn the_control_plane_may_be_dead() {
    const SESSIONS: u64 = 20;
    let server = Server::new();
    let proxy = Proxy::controlled(&[]);
    let mut client = proxy.connect();
    for number in 0..SESSIONS {
        let mut plane = ControlPlane::new(&proxy);
        plane.snapshot(number, vec![web("running", Some(server.address), true)]);
        drop(plane);
        client.send(get("/proxy/web/80/"));
        let mut upstream = server.accept();
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(client.response().1, "ok");
    }
    figure("control planes outlived", SESSIONS);
}
