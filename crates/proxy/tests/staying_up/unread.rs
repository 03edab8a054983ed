//! Peers that never read: they are held back, and cost little, one by one and all together.

use crate::support::control_plane::{web, ControlPlane};
use crate::support::{figure, fill, get, Peer, Proxy, Server};

const ENDLESS: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
/// No length, so no splice(2): what a client does not take is held in memory.
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n";
const UPLOAD: &str =
    "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n";

/// A client that does not read its response, and the machine that sends it.
fn unread_response(server: &Server, proxy: &Proxy, head: &str) -> (Peer, Peer) {
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    // While nobody takes it: what is then read in one go is as much as is ever read.
    proxy.signal(libc::SIGSTOP);
    upstream.send(head);
    fill(&upstream);
    proxy.signal(libc::SIGCONT);
    fill(&upstream);
    (client, upstream)
}

#[test]
fn peers_that_never_read_cost_little_and_are_held_back() {
    const PEERS: usize = 20;
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &[]);
    let before = proxy.peak_memory();
    let mut held = Vec::new();
    for _ in 0..PEERS {
        held.push(unread_response(&server, &proxy, ENDLESS));
        // And a machine that does not read its request.
        let mut client = proxy.connect();
        client.send(UPLOAD);
        let mut upstream = server.accept();
        upstream.head();
        // Returns only because the client is held back.
        fill(&client);
        held.push((client, upstream));
    }
    let grown = (proxy.peak_memory() - before) / (2 * PEERS as u64);
    // One read's bytes each, which the socket did not take, and the allocator's rounding.
    assert!(grown < 768, "{grown} KiB for each");
    figure("peer that never reads", format_args!("{grown} KiB"));
}

#[test]
fn all_that_never_read_together_are_bounded() {
    const PEERS: usize = 40;
    const BOUND: usize = 2 << 20;
    let server = Server::new();
    let proxy = Proxy::controlled(&["--max-held-bytes", &BOUND.to_string()]);
    let mut plane = ControlPlane::new(&proxy);
    plane.snapshot(1, vec![web("running", Some(server.address), true)]);
    let mut held = Vec::new();
    while plane.counters().bounds["held_bytes"] == 0 {
        held.push(unread_response(&server, &proxy, CHUNKED));
        assert!(held.len() < PEERS, "the bound is never met");
    }
    // Not before: no connection holds more than a read.
    assert!(held.len() > BOUND / (256 << 10));
    let before = proxy.memory();
    let more: Vec<_> = (0..PEERS)
        .map(|_| unread_response(&server, &proxy, CHUNKED))
        .collect();
    let grown = proxy.memory().saturating_sub(before) / PEERS as u64;
    // Sockets may still take what the first ones held, which the allocator keeps: as much again is
    // within the bound. Unbounded it is what the first ones hold, about 100 KiB for each.
    let again = (BOUND >> 10) as u64 / PEERS as u64;
    assert!(grown < again + 16, "{grown} KiB for each one more");
    assert!(plane.counters().bounds["held_bytes"] > 0);
    figure(
        "one more peer that never reads, at the bound",
        format_args!("{grown} KiB"),
    );
    // Those that read go on, and nobody's bytes are lost.
    let (mut client, mut upstream) = {
        let mut client = proxy.connect();
        client.send(get("/proxy/web/80/"));
        let mut upstream = server.accept();
        upstream.head();
        (client, upstream)
    };
    let body: Vec<u8> = (0..1_000_000_u32).map(|at| (at >> 6) as u8).collect();
    let sent = body.clone();
    let sending = std::thread::spawn(move || {
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        upstream.send(format!("{:x}\r\n", sent.len()));
        upstream.send(&sent);
        upstream.send("\r\n0\r\n\r\n");
    });
    client.head();
    assert!(client.try_chunks().unwrap() == body);
    sending.join().unwrap();
    // What is held is given back with its connections.
    drop((held, more));
    let counters = plane.until("they are gone", |counters| counters.connections <= 1);
    let met = counters.bounds["held_bytes"];
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.response().1, "ok");
    assert_eq!(plane.counters().bounds["held_bytes"], met);
}
