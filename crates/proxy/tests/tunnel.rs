//! Upgraded connections.

mod support;

use support::{field, get, machine, routes, Peer, Proxy, Server, ID};

const UPGRADE: &str = "GET /proxy/web/80/ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
/// Opcode close, two bytes, 1001 (RFC 6455 section 5.5.1).
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

fn open(server: &Server, proxy: &Proxy) -> (Peer, Peer) {
    let mut client = proxy.connect();
    client.send(UPGRADE);
    let mut upstream = server.accept();
    let head = upstream.head();
    assert_eq!(field(&head, "Upgrade"), Some("websocket"));
    assert_eq!(field(&head, "Sec-WebSocket-Protocol"), Some("chat"));
    upstream.send(SWITCH);
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    (client, upstream)
}

#[test]
fn early_bytes_of_both_sides_are_kept_and_half_closes_pass() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &[]);
    let mut client = proxy.connect();
    client.send([UPGRADE, "early"].concat());
    let mut upstream = server.accept();
    upstream.head();
    upstream.send([SWITCH, "first"].concat());
    upstream.expect("early");
    client.head();
    client.expect("first");
    client.send("ping");
    upstream.expect("ping");
    client.shut();
    upstream.expect_end();
    upstream.send("pong");
    client.expect("pong");
    drop(upstream);
    client.expect_end();
}

#[test]
fn an_upgrade_may_have_a_body_which_comes_first() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &[]);
    let head = UPGRADE.replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n");
    let mut client = proxy.connect();
    client.send(format!("{head}abcearly"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.expect("abc");
    upstream.send(SWITCH);
    client.head();
    upstream.expect("early");
    // The machine may end first; what the client still sends passes.
    upstream.shut();
    client.expect_end();
    client.send("more");
    upstream.expect("more");
    drop(client);
    upstream.expect_end();
    // A tunnel that begins within the body would take its rest for the tunnel's bytes.
    let mut client = proxy.connect();
    client.send(format!("{head}ab"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(SWITCH);
    assert!(client.response().0.starts_with("HTTP/1.1 502 "));
    upstream.rest();
}

#[test]
fn another_answer_to_an_upgrade_is_an_ordinary_one() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &[]);
    let mut client = proxy.connect();
    client.send(UPGRADE);
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(client.response().1, "no");
    // A 101 that nobody asked for is none.
    client.send(get("/proxy/web/80/"));
    upstream.head();
    upstream.send(SWITCH);
    assert!(client.response().0.starts_with("HTTP/1.1 502 "));
}

#[test]
fn a_stop_ends_everything_of_the_machine_at_once() {
    let server = Server::new();
    let ports = [(80, server.address)];
    let proxy = Proxy::with_routes(&routes(&[machine(ID, "web", "running", 1, &ports)]), &[]);
    let (mut between, mut one) = open(&server, &proxy);
    one.send([0x81, 2, b'h', b'i']);
    between.expect([0x81, 2, b'h', b'i']);
    let (mut within, mut two) = open(&server, &proxy);
    two.send([0x82, 5, b'h']);
    within.expect([0x82, 5, b'h']);
    let mut waiting = proxy.connect();
    waiting.send(get("/proxy/web/80/"));
    let mut three = server.accept();
    three.head();
    let stopped = routes(&[machine(ID, "web", "stopping", 1, &ports)]);
    std::fs::write(proxy.routes_file(), stopped).unwrap();
    proxy.signal(libc::SIGHUP);
    between.expect(GOING_AWAY);
    between.expect_end();
    within.expect_end();
    assert_eq!(
        waiting.response().1,
        r#"{"error":"Machine is not running"}"#
    );
    for upstream in [&mut one, &mut two, &mut three] {
        upstream.expect_end();
    }
    waiting.send(get("/proxy/web/80/"));
    assert!(waiting.response().0.starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_tunnel_without_a_byte_ends_after_its_limit() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &["--tunnel-timeout-ms", "100"]);
    let (mut client, mut upstream) = open(&server, &proxy);
    client.expect_end();
    upstream.expect_end();
}

#[test]
fn a_websocket_is_told_when_the_proxy_ends() {
    let server = Server::new();
    let mut proxy = Proxy::alone(&[(80, server.address)], &[]);
    let (mut client, _upstream) = open(&server, &proxy);
    proxy.signal(libc::SIGTERM);
    client.expect(GOING_AWAY);
    client.expect_end();
    drop(client);
    assert!(proxy.wait().success());
}
