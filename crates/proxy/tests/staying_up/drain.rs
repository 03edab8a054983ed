//! SIGTERM: what is in flight is finished, and everybody is told where they stand.

use std::time::{Duration, Instant};

use crate::support::{field, figure, get, Peer, Proxy, Server, PATIENCE};

const UPGRADE: &str = "GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                      Connection: upgrade\r\n\r\n";

/// A client and the machine's end, between which a WebSocket is open.
fn websocket(server: &Server, proxy: &Proxy) -> (Peer, Peer) {
    let mut client = proxy.connect();
    client.send(UPGRADE);
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(SWITCH);
    client.head();
    (client, upstream)
}

/// A client whose connection has served a request and is kept.
fn idle(proxy: &Proxy) -> Peer {
    let mut idle = proxy.connect();
    idle.send(get("/proxy/nobody/80/"));
    idle.response();
    idle
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_tells_everybody() {
    let server = Server::new();
    let mut proxy = Proxy::alone(&[(80, server.address)], &["--drain-timeout-ms", "30000"]);
    let mut silent = idle(&proxy);
    let mut asking = idle(&proxy);
    let mut fresh = proxy.connect();
    let (mut between, mut between_up) = websocket(&server, &proxy);
    let (mut within, mut within_up) = websocket(&server, &proxy);
    // A frame of three bytes of which one has come.
    within_up.send([0x82, 3, b'a']);
    within.expect([0x82, 3, b'a']);
    let mut asked = proxy.connect();
    asked.send(get("/proxy/web/80/"));
    let mut asked_up = server.accept();
    asked_up.head();
    let mut half = proxy.connect();
    half.send(get("/proxy/web/80/"));
    let mut half_up = server.accept();
    half_up.head();
    half_up.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
    half.head();
    half.expect("ab");

    let began = Instant::now();
    proxy.signal(libc::SIGTERM);
    // Seen by the close frame of the tunnel that stands between frames.
    between.expect([0x88, 2, 0x03, 0xe9]);
    between.expect_end();
    between_up.expect_end();
    // What was on its way when the drain began is answered, on new connections and kept ones.
    for client in [&mut asking, &mut fresh] {
        client.send(get("/proxy/nobody/80/"));
        let (head, _) = client.response();
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        assert_eq!(field(&head, "Connection"), Some("close"));
        client.expect_end();
    }
    within_up.send("bc");
    within.expect("bc");
    within.expect([0x88, 2, 0x03, 0xe9]);
    within.expect_end();
    silent.expect_end();
    asked_up.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (head, body) = asked.response();
    assert_eq!(
        (field(&head, "Connection"), body.as_str()),
        (Some("close"), "ok")
    );
    asked.expect_end();
    half_up.send("cd");
    half.expect("cd");
    // It was promised to be kept, and is not for long.
    half.expect_end();
    assert_eq!(proxy.wait().code(), Some(0));
    figure(
        "drain with everything in flight",
        format_args!("{} ms", began.elapsed().as_millis()),
    );
}

#[test]
fn a_drain_has_its_limit() {
    let server = Server::new();
    let mut proxy = Proxy::alone(&[(80, server.address)], &["--drain-timeout-ms", "100"]);
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    client.expect_end();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Server::new();
    let mut proxy = Proxy::alone(&[(80, server.address)], &["--drain-timeout-ms", "86400000"]);
    let (mut client, _upstream) = websocket(&server, &proxy);
    let mut asked = proxy.connect();
    asked.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    proxy.signal(libc::SIGTERM);
    client.expect([0x88, 2, 0x03, 0xe9]);
    proxy.signal(libc::SIGTERM);
    let began = Instant::now();
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(began.elapsed() < PATIENCE - Duration::from_secs(1));
    asked.expect_end();
}
