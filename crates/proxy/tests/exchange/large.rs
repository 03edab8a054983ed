//! Large bodies, which pass without being looked at.

use crate::support::{get, Peer};
use crate::{one_server, OK};

#[test]
fn large_bodies_pass_in_flat_memory() {
    const SIZE: usize = 100 << 20;
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send(format!(
        "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: {SIZE}\r\n\r\n"
    ));
    let mut upstream = server.accept();
    upstream.head();
    let before = proxy.peak_memory();
    pass(&mut client, &mut upstream, SIZE);
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
    client.head();
    pass(&mut upstream, &mut client, SIZE);
    let grown = proxy.peak_memory() - before;
    // Of 200 MiB that passed: what sockets did not take at once, and what the allocator keeps.
    assert!(grown < 16 << 10, "grew by {grown} KiB");
}

#[test]
fn a_large_body_cut_short_is_passed_on_as_far_as_it_came_and_never_completed() {
    const SIZE: usize = 8 << 20;
    const CAME: usize = 3 << 20;
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
    client.head();
    pass(&mut upstream, &mut client, CAME);
    drop(upstream);
    client.expect_end();

    let mut client = proxy.connect();
    client.send(format!(
        "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: {SIZE}\r\n\r\n"
    ));
    let mut upstream = server.accept();
    upstream.head();
    pass(&mut client, &mut upstream, CAME);
    drop(client);
    upstream.expect_end();
}

#[test]
fn what_follows_a_large_body_is_the_next_request() {
    const SIZE: usize = 2 << 20;
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send(format!(
        "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: {SIZE}\r\n\r\n"
    ));
    let mut upstream = server.accept();
    upstream.head();
    pass(&mut client, &mut upstream, SIZE);
    client.send(get("/proxy/web/80/next"));
    upstream.send(OK);
    client.expect(OK);
    assert!(upstream.head().starts_with("GET /next HTTP/1.1\r\n"));
    upstream.send(OK);
    client.expect(OK);
}

/// Sends `size` bytes that differ, from one end to the other, and compares them.
fn pass(from: &mut Peer, to: &mut Peer, size: usize) {
    let block: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..size / block.len() {
                from.send(&block);
            }
        });
        for _ in 0..size / block.len() {
            assert!(to.bytes(block.len()) == block);
        }
    });
}
