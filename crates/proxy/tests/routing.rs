//! Which machine a request reaches, and the answers when it reaches none.

mod support;

use hyperfleet_wire::control::FromProxy;

use support::control_plane::{web, ControlPlane};
use support::{field, get, machine, routes, Proxy, Server, ID};

#[test]
fn path_and_host_lead_to_the_server_by_id_and_by_name() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &["--host-suffix", "local.dev"]);
    let requests = [
        (
            format!("GET /proxy/{ID}/80/a%2Fb//?q=1 HTTP/1.1\r\nHost: h\r\n\r\n"),
            "/a%2Fb//?q=1",
        ),
        (get("/proxy/web/80/"), "/"),
        (
            format!("GET /x HTTP/1.1\r\nHost: {ID}-80.local.dev:4000\r\n\r\n"),
            "/x",
        ),
        (
            "GET /x HTTP/1.1\r\nHost: WEB-80.Local.Dev.\r\n\r\n".to_owned(),
            "/x",
        ),
    ];
    let mut client = proxy.connect();
    let mut upstream = None;
    for (request, target) in requests {
        client.send(request);
        let upstream = upstream.get_or_insert_with(|| server.accept());
        let head = upstream.head();
        assert!(
            head.starts_with(&format!("GET {target} HTTP/1.1\r\n")),
            "{head}"
        );
        assert_eq!(field(&head, "X-Machine-ID"), Some(ID));
        assert_eq!(field(&head, "X-Forwarded-For"), Some("127.0.0.1"));
        assert_eq!(field(&head, "X-Forwarded-Proto"), Some("http"));
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    }
}

#[test]
fn the_four_errors_are_exact_and_in_order() {
    let server = Server::new();
    let closed = Server::new().address;
    let machines = [
        machine(
            ID,
            "web",
            "running",
            1,
            &[(80, server.address), (81, closed)],
        ),
        machine("stopped12345", "off", "stopped", 1, &[(80, server.address)]),
    ];
    let proxy = Proxy::with_routes(&routes(&machines), &[]);
    let mut client = proxy.connect();
    for (path, status, code, body) in [
        (
            "/proxy/nobody/80/",
            "404 Not Found",
            "machine_not_found",
            r#"{"error":"Machine not found"}"#,
        ),
        (
            "/proxy/off/99/",
            "503 Service Unavailable",
            "machine_not_running",
            r#"{"error":"Machine is not running"}"#,
        ),
        (
            "/proxy/web/3000/",
            "403 Forbidden",
            "port_not_exposed",
            r#"{"error":"Port 3000 is not exposed on this machine"}"#,
        ),
        (
            "/proxy/web/81/",
            "502 Bad Gateway",
            "upstream_connect_failed",
            r#"{"error":"Failed to connect to upstream"}"#,
        ),
    ] {
        client.send(get(path));
        let (head, got) = client.response();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{head}"
        );
        assert_eq!(field(&head, "Content-Type"), Some("application/json"));
        assert_eq!(field(&head, "X-Hyperfleet-Error"), Some(code));
        assert_eq!(got, body);
    }
    // All on one connection: none of the four closes it.
    client.send("GET /proxy/web/80?a=b HTTP/1.1\r\nHost: h\r\n\r\n");
    let (head, _) = client.response();
    assert!(head.starts_with("HTTP/1.1 308 "), "{head}");
    assert_eq!(field(&head, "Location"), Some("/proxy/web/80/?a=b"));
    assert!(server.has_no_connection());
}

#[test]
fn what_is_not_http_is_refused_and_nothing_reaches_a_guest() {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &[]);
    for (request, status) in [
        ("GET /proxy/web/80/ HTTP/1.1\nHost: h\n\n", "400 "),
        ("GET /proxy/web/80/ HTTP/2.0\r\nHost: h\r\n\r\n", "505 "),
        ("CONNECT web:80 HTTP/1.1\r\nHost: h\r\n\r\n", "405 "),
        ("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "400 "),
        ("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400 "),
    ] {
        let answer = proxy.once(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        assert_eq!(field(&answer, "Connection"), Some("close"));
    }
    assert!(server.has_no_connection());
}

#[test]
fn an_unread_body_is_read_away_to_keep_the_connection_or_ends_it() {
    let proxy = Proxy::alone(&[], &[]);
    let mut client = proxy.connect();
    let small = "x".repeat(60_000);
    client.send(format!(
        "POST /proxy/nobody/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n{small}"
    ));
    client.send(get("/proxy/nobody/80/"));
    for _ in 0..2 {
        let (head, _) = client.response();
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        assert_eq!(field(&head, "Connection"), None);
    }
    client.send("POST /proxy/nobody/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n");
    let (head, _) = client.response();
    assert_eq!(field(&head, "Connection"), Some("close"));
    client.expect_end();
    let mut client = proxy.connect();
    client.send(
        "POST /proxy/nobody/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    let (head, _) = client.response();
    assert_eq!(field(&head, "Connection"), Some("close"));
}

#[test]
fn a_browser_gets_a_page_that_says_the_same() {
    let proxy = Proxy::alone(&[], &[]);
    let answer = proxy.once(
        "GET /proxy/nobody/80/ HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.contains("<h1>Machine not found</h1>"), "{answer}");
    assert_eq!(
        field(&answer, "X-Hyperfleet-Error"),
        Some("machine_not_found")
    );
}

/// Asks as the browser of a development server does, for a page and for its WebSocket, each on a
/// connection of its own; both heads as the server got them.
fn page_and_websocket(server: &Server, proxy: &Proxy) -> [String; 2] {
    let mut client = proxy.connect();
    client.send("GET /proxy/web/80/a HTTP/1.1\r\nHost: dev.example.com:4000\r\n\r\n");
    let mut upstream = server.accept();
    let page = upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    client.send(
        "GET /proxy/web/80/a HTTP/1.1\r\nHost: dev.example.com:4000\r\n\
         Origin: http://dev.example.com:4000\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    let mut upstream = server.accept();
    let websocket = upstream.head();
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
    client.head();
    client.send("ping");
    upstream.expect("ping");
    [page, websocket]
}

#[test]
fn a_ports_options_hold_for_pages_and_websockets_and_change_while_it_is_open() {
    let server = Server::new();
    let proxy = Proxy::controlled(&[]);
    let mut plane = ControlPlane::new(&proxy);
    let mut machine = web("running", Some(server.address), true);
    plane.snapshot(1, vec![machine.clone()]);
    for head in page_and_websocket(&server, &proxy) {
        assert!(head.starts_with("GET /a HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "Host"), Some("dev.example.com:4000"));
        assert_eq!(field(&head, "X-Forwarded-Prefix"), Some("/proxy/web/80"));
    }
    machine.ports[0].host = Some("localhost:5173".to_owned());
    machine.ports[0].strip_prefix = false;
    plane.change(2, vec![machine], &[]);
    assert_eq!(plane.hear(), FromProxy::Applied { number: 2 });
    let heads = page_and_websocket(&server, &proxy);
    for head in &heads {
        assert!(
            head.starts_with("GET /proxy/web/80/a HTTP/1.1\r\n"),
            "{head}"
        );
        assert_eq!(field(head, "Host"), Some("localhost:5173"));
        // What the browser sees, port and all: servers compare it with its Origin.
        assert_eq!(
            field(head, "X-Forwarded-Host"),
            Some("dev.example.com:4000")
        );
        assert_eq!(field(head, "X-Forwarded-Prefix"), None);
    }
    let origin = field(&heads[1], "Origin");
    assert_eq!(origin, Some("http://dev.example.com:4000"));
    // A host that is none is refused whole, and what was before stays in force.
    let mut bad = web("running", Some(server.address), true);
    bad.ports[0].host = Some("a b".to_owned());
    plane.change(3, vec![bad], &[]);
    let FromProxy::Refused { message } = plane.hear() else {
        panic!("it takes a host that no request could name");
    };
    assert!(message.contains("\"a b\""), "{message}");
    let [page, _] = page_and_websocket(&server, &proxy);
    assert_eq!(field(&page, "Host"), Some("localhost:5173"));
}
