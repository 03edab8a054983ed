//! Connections to machines: which are used again, how many there are, and what is sent twice.

use crate::support::{field, get, machine, routes, Peer, Proxy, Server, ID};
use crate::{one_server, OK};

#[test]
fn a_connection_with_bytes_left_over_is_not_used_again() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/1"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n");
    client.expect(OK);
    upstream.expect_end();
    client.send(get("/proxy/web/80/2"));
    assert!(server.accept().head().starts_with("GET /2 "));
}

#[test]
fn an_idle_connection_that_the_machine_closes_is_dropped_at_once() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/1"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    client.expect(OK);
    upstream.shut();
    // Dropped without a request to wake it.
    upstream.expect_end();
}

/// A kept connection that the machine closes only after it has read the next request.
fn dies_on_its_second_request(server: &Server, client: &mut Peer, request: &str) {
    client.send(get("/proxy/web/80/1"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    client.expect(OK);
    client.send(request);
    upstream.head();
}

#[test]
fn only_an_idempotent_request_without_body_is_sent_again_and_once() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    dies_on_its_second_request(&server, &mut client, &get("/proxy/web/80/2"));
    let mut again = server.accept();
    assert!(again.head().starts_with("GET /2 "));
    again.send(OK);
    client.expect(OK);
    drop(again);
    let mut client = proxy.connect();
    dies_on_its_second_request(&server, &mut client, &get("/proxy/web/80/2"));
    drop(server.accept());
    assert!(client.response().0.starts_with("HTTP/1.1 502 "));
    for request in [
        "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "PUT /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let mut client = proxy.connect();
        dies_on_its_second_request(&server, &mut client, request);
        assert!(client.response().0.starts_with("HTTP/1.1 502 "));
        assert!(server.has_no_connection());
    }
}

#[test]
fn a_connection_kept_to_one_port_makes_room_for_another() {
    let (first, second) = (Server::new(), Server::new());
    let ports = [(80, first.address), (81, second.address)];
    let proxy = Proxy::alone(&ports, &["--max-machine-connections", "1"]);
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = first.accept();
    upstream.head();
    upstream.send(OK);
    client.expect(OK);
    client.send(get("/proxy/web/81/"));
    let mut other = second.accept();
    upstream.expect_end();
    let answer = proxy.once(&get("/proxy/web/80/"));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    other.send(OK);
    client.expect(OK);
}

#[test]
fn a_machine_has_so_many_requests_in_flight_and_no_more() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &["--max-machine-requests", "1"]);
    let mut first = proxy.connect();
    first.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    let mut second = proxy.connect();
    second.send(get("/proxy/web/80/"));
    let (head, body) = second.response();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(field(&head, "Retry-After"), Some("1"));
    assert_eq!(body, r#"{"error":"Too many requests to this machine"}"#);
    upstream.send(OK);
    first.expect(OK);
    second.send(get("/proxy/web/80/"));
    upstream.head();
    upstream.send(OK);
    second.expect(OK);
}

#[test]
fn a_lifecycle_has_its_own_connections() {
    let server = Server::new();
    let of = |lifecycle| {
        routes(&[machine(
            ID,
            "web",
            "running",
            lifecycle,
            &[(80, server.address)],
        )])
    };
    let proxy = Proxy::with_routes(&of(1), &[]);
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut old = server.accept();
    old.head();
    old.send(OK);
    client.expect(OK);
    std::fs::write(proxy.routes_file(), of(2)).unwrap();
    proxy.signal(libc::SIGHUP);
    assert!(proxy.complaint().ends_with("read again"));
    old.expect_end();
    client.send(get("/proxy/web/80/"));
    let mut new = server.accept();
    new.head();
    new.send(OK);
    client.expect(OK);
}
