//! A machine's stop, and the time limits: what they do to a request in each of its phases.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use support::{field, get, machine, routes, Peer, Proxy, Server, ID};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OLD: &str = "GET /proxy/web/80/ HTTP/1.0\r\n\r\n";
const UPLOAD: &str =
    "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n";

/// A client and its machine's end, `request` sent and its head read.
fn begun(server: &Server, proxy: &Proxy, request: &str) -> (Peer, Peer) {
    let mut client = proxy.connect();
    client.send(request);
    let mut upstream = server.accept();
    upstream.head();
    (client, upstream)
}

/// The same, and `response` on its way, whose part `seen` has reached the client.
fn answering(
    server: &Server,
    proxy: &Proxy,
    request: &str,
    response: &str,
    seen: &str,
) -> (Peer, Peer) {
    let (mut client, mut upstream) = begun(server, proxy, request);
    upstream.send(response);
    if !seen.is_empty() {
        client.head();
        client.expect(seen);
    }
    (client, upstream)
}

/// An address that takes connections and never makes them: its backlog is full.
struct Deaf {
    address: SocketAddr,
    _listener: socket2::Socket,
    _filling: Vec<socket2::Socket>,
}

impl Deaf {
    fn new() -> Deaf {
        let socket =
            || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let listener = socket();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // One fits (listen(2)); the others wait without an answer.
        let filling = (0..4)
            .map(|_| {
                let client = socket();
                client.set_nonblocking(true).unwrap();
                let _ = client.connect(&address.into());
                client
            })
            .collect();
        Deaf {
            address,
            _listener: listener,
            _filling: filling,
        }
    }
}

#[test]
fn a_stop_reaches_a_request_in_every_phase() {
    let server = Server::new();
    let deaf = Deaf::new();
    let ports = [(80, server.address), (81, deaf.address)];
    let of = |status, lifecycle| routes(&[machine(ID, "web", status, lifecycle, &ports)]);
    let proxy = Proxy::with_routes(&of("running", 1), &[]);
    let chunked = "HTTP/1.1 200 OK\r\n\r\nab";
    let mut told = vec![
        ("head", begun(&server, &proxy, &get("/proxy/web/80/"))),
        ("upload", begun(&server, &proxy, UPLOAD)),
        (
            "half a head",
            answering(&server, &proxy, OLD, "HTTP/1.1 200 O", ""),
        ),
        (
            "after an interim answer",
            answering(
                &server,
                &proxy,
                &get("/proxy/web/80/"),
                "HTTP/1.1 103 Hints\r\n\r\n",
                "",
            ),
        ),
    ];
    told[3].1 .0.head();
    let mut cut = [
        (
            "1.1",
            answering(
                &server,
                &proxy,
                &get("/proxy/web/80/"),
                chunked,
                "2\r\nab\r\n",
            ),
            false,
        ),
        ("1.0", answering(&server, &proxy, OLD, chunked, "ab"), true),
    ];
    let (mut idle, mut kept) = answering(&server, &proxy, &get("/proxy/web/80/"), OK, "ok");
    let mut connecting = proxy.connect();
    connecting.send(get("/proxy/web/81/"));
    let mut typing = proxy.connect();
    typing.send("GET /proxy/web/80/ HT");
    // All of it has arrived once this is answered.
    idle.send(get("/proxy/nobody/80/"));
    idle.response();

    std::fs::write(proxy.routes_file(), of("stopping", 1)).unwrap();
    proxy.signal(libc::SIGHUP);
    for (phase, (client, upstream)) in &mut told {
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 503 "), "{phase}: {head}");
        assert_eq!(
            field(&head, "X-Hyperfleet-Error"),
            Some("machine_not_running")
        );
        upstream.expect_end();
    }
    for (phase, (client, upstream), reset) in &mut cut {
        assert_eq!(client.rest_and_reset(), (String::new(), *reset), "{phase}");
        upstream.expect_end();
    }
    kept.expect_end();
    assert!(connecting.response().0.starts_with("HTTP/1.1 503 "));
    typing.send("TP/1.1\r\nHost: h\r\n\r\n");
    assert!(typing.response().0.starts_with("HTTP/1.1 503 "));

    // The clients' connections outlive the stop, and meet the next life.
    std::fs::write(proxy.routes_file(), of("running", 2)).unwrap();
    proxy.signal(libc::SIGHUP);
    assert!(proxy.complaint().ends_with("read again"));
    assert!(proxy.complaint().ends_with("read again"));
    for client in [&mut typing, &mut connecting, &mut idle] {
        client.send(get("/proxy/web/80/"));
        let mut upstream = server.accept();
        upstream.head();
        upstream.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 204 "));
    }
}

#[test]
fn a_connection_that_is_not_made_in_time_is_a_502() {
    let deaf = Deaf::new();
    let proxy = Proxy::alone(&[(80, deaf.address)], &["--connect-timeout-ms", "100"]);
    let answer = proxy.once(&get("/proxy/web/80/"));
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(
        field(&answer, "X-Hyperfleet-Error"),
        Some("upstream_connect_failed")
    );
}

#[test]
fn a_body_that_stalls_is_told_to_whom_it_is_owed() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &["--body-timeout-ms", "200"]);
    // The client sends no more.
    let (mut client, mut upstream) = begun(&server, &proxy, UPLOAD);
    let (head, _) = client.response();
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert_eq!(field(&head, "Connection"), Some("close"));
    upstream.expect_end();
    // The machine takes no more.
    let (mut client, _upstream) = begun(&server, &proxy, UPLOAD);
    support::fill(&client);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    // The machine sends no more; the client takes no more.
    let partly = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nab";
    let request = get("/proxy/web/80/");
    let (mut client, mut upstream) = answering(&server, &proxy, &request, partly, "ab");
    assert_eq!(client.rest(), "");
    upstream.expect_end();
    let (_client, mut upstream) = answering(&server, &proxy, &request, partly, "ab");
    support::fill(&upstream);
    upstream.rest_and_reset();
}

#[test]
fn both_connections_of_a_tunnel_are_kept_alive_and_pass_backpressure() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &[]);
    let upgrade =
        "GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n!";
    let (mut client, mut upstream) = answering(&server, &proxy, upgrade, switch, "!");
    assert!(has_keep_alive(&client.stream));
    assert!(has_keep_alive(&upstream.stream));
    // Neither is read: both stop taking, and lose nothing.
    let down = support::fill(&upstream);
    let up = support::fill(&client);
    upstream.shut();
    client.shut();
    assert_eq!(client.rest().len(), down);
    assert_eq!(upstream.rest().len(), up);
}

/// Whether the other end of `stream` has a keep-alive timer: 2 in the field of timers (proc(5)).
fn has_keep_alive(stream: &TcpStream) -> bool {
    let hex = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let (mine, theirs) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let ends = format!("{} {}", hex(theirs), hex(mine));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|line| line.contains(&ends)).unwrap();
    let timer = line.split_whitespace().nth(5).unwrap();
    timer.starts_with("02:")
}

#[test]
fn after_an_interim_answer_the_limit_holds_again() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &["--response-timeout-ms", "200"]);
    let (mut client, mut upstream) = begun(&server, &proxy, &get("/proxy/web/80/"));
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    assert!(client.comes(Duration::from_secs(10)));
    assert!(client.response().0.starts_with("HTTP/1.1 504 "));
}
