//! One request and its response: framing, streaming, early and broken ends, reuse and retry.

mod support;

use support::{field, get, machine, routes, Peer, Proxy, Server, ID};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn one_server() -> (Server, Proxy) {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &[]);
    (server, proxy)
}

#[test]
fn pipelined_requests_are_answered_in_order_over_one_kept_connection() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send(
        [
            get("/proxy/web/80/1"),
            get("/proxy/nobody/80/"),
            get("/proxy/web/80/3"),
        ]
        .concat(),
    );
    let mut upstream = server.accept();
    assert!(upstream.head().starts_with("GET /1 "));
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    assert_eq!(client.response().1, "one");
    assert!(client.response().0.starts_with("HTTP/1.1 404 "));
    assert!(upstream.head().starts_with("GET /3 "));
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthree");
    assert_eq!(client.response().1, "three");
    assert!(server.has_no_connection());
}

#[test]
fn a_request_one_byte_at_a_time_and_a_half_closed_client() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    for byte in get("/proxy/web/80/slow").bytes() {
        client.send([byte]);
    }
    client.shut();
    let mut upstream = server.accept();
    assert!(upstream.head().starts_with("GET /slow "));
    upstream.send(OK);
    client.expect(OK);
    client.expect_end();
}

#[test]
fn fifty_mixed_requests_in_small_pieces_keep_their_order_and_their_bodies() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    let request = |at: usize| match at % 5 {
        0 => get(&format!("/proxy/web/80/{at}")),
        1 => format!("POST /proxy/web/80/{at} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"),
        2 => get("/proxy/nobody/80/"),
        3 => format!(
            "PUT /proxy/web/80/{at} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nxyz\r\n0\r\n\r\n"
        ),
        _ => format!("HEAD /proxy/web/80/{at} HTTP/1.1\r\nHost: h\r\n\r\n"),
    };
    let all: String = (0..50).map(request).collect();
    let mut sending = client.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            use std::io::Write;
            for piece in all.as_bytes().chunks(7) {
                sending.write_all(piece).unwrap();
            }
        });
        let mut upstream = server.accept();
        for at in 0..50 {
            let (method, body) = match at % 5 {
                0 => ("GET", ""),
                1 => ("POST", "abc"),
                2 => {
                    assert!(client.response().0.starts_with("HTTP/1.1 404 "));
                    continue;
                }
                3 => ("PUT", "3\r\nxyz\r\n0\r\n\r\n"),
                _ => ("HEAD", ""),
            };
            let head = upstream.head();
            assert!(head.starts_with(&format!("{method} /{at} ")), "{head}");
            upstream.expect(body);
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
            client.head();
            if method != "HEAD" {
                upstream.send("body");
                client.expect("body");
            }
        }
    });
    assert!(server.has_no_connection(), "one connection serves all");
}

#[test]
fn chunks_pass_both_ways_with_trailers() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5;ext=1\r\nhello\r\n");
    let mut upstream = server.accept();
    let head = upstream.head();
    assert_eq!(field(&head, "Transfer-Encoding"), Some("chunked"));
    upstream.expect("5\r\nhello\r\n");
    client.send("0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n");
    upstream.expect("0\r\nX-Sum: 1\r\n\r\n");
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.expect("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    upstream.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
    client.send(get("/proxy/web/80/again"));
    assert!(upstream.head().starts_with("GET /again "));
}

#[test]
fn events_arrive_one_by_one() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/events"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    assert_eq!(field(&client.head(), "Transfer-Encoding"), Some("chunked"));
    for count in 0..3 {
        upstream.send(format!("data: {count}\n\n"));
        client.expect(format!("9\r\ndata: {count}\n\n\r\n"));
    }
    drop(upstream);
    client.expect("0\r\n\r\n");
    // The connection is kept all the same.
    client.send(get("/proxy/nobody/80/"));
    client.response();
}

#[test]
fn answers_without_a_body_have_none() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send("HEAD /proxy/web/80/ HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    for status in ["204 No Content", "304 Not Modified"] {
        client.send(get("/proxy/web/80/"));
        upstream.head();
        upstream.send(format!("HTTP/1.1 {status}\r\n\r\n"));
        client.expect(format!("HTTP/1.1 {status}\r\n\r\n"));
    }
}

#[test]
fn an_early_answer_comes_at_once_and_the_upload_goes_on() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
    let mut upstream = server.accept();
    upstream.head();
    upstream.expect("hello");
    upstream.send(OK);
    client.expect(OK);
    client.send("world");
    upstream.expect("world");
    client.send(get("/proxy/web/80/next"));
    assert!(upstream.head().starts_with("GET /next "));
}

#[test]
fn an_early_answer_and_close_reaches_a_client_that_is_still_sending() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
    );
    drop(upstream);
    assert_eq!(client.response().1, "big");
}

#[test]
fn continue_and_early_hints_pass_but_not_to_http_1_0() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send(
        "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    );
    let mut upstream = server.accept();
    assert_eq!(field(&upstream.head(), "Expect"), Some("100-continue"));
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hi");
    upstream.expect("hi");
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    client.expect("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    upstream.send(OK);
    client.expect(OK);
    let mut old = proxy.connect();
    old.send("GET /proxy/web/80/ HTTP/1.0\r\n\r\n");
    upstream.head();
    upstream.send("HTTP/1.1 103 Early Hints\r\n\r\n");
    upstream.send(OK);
    let answer = old.rest();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[test]
fn a_final_answer_to_a_client_that_waits_with_its_body_ends_the_connection() {
    // What it sends next could be read as the body or as a request.
    let expecting =
        "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 99\r\n\r\n";
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send(expecting);
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    let (head, body) = client.response();
    assert_eq!(
        (field(&head, "Connection"), body.as_str()),
        (Some("close"), "no")
    );
    client.expect_end();
    upstream.expect_end();
    let mut client = proxy.connect();
    client.send(expecting);
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("nonsense\r\n\r\n");
    let (head, _) = client.response();
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert_eq!(field(&head, "Connection"), Some("close"));
    client.expect_end();
}

#[test]
fn a_body_cut_short_is_never_completed() {
    let (server, proxy) = one_server();
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = proxy.connect();
        client.send(get("/proxy/web/80/"));
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n3\r\nabc\r\n"));
        drop(upstream);
        let answer = client.rest();
        assert!(answer.ends_with("3\r\nabc\r\n"), "{answer}");
    }
    // Without chunks a client can only tell by a reset.
    let mut client = proxy.connect();
    client.send("GET /proxy/web/80/ HTTP/1.0\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.head();
    client.expect("abc");
    drop(upstream);
    client.expect_reset();
}

#[test]
fn a_request_cut_short_breaks_the_machines_connection() {
    let (server, proxy) = one_server();
    let mut client = proxy.connect();
    client.send(
        "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    );
    let mut upstream = server.accept();
    upstream.head();
    upstream.expect("2\r\nhe\r\n");
    drop(client);
    upstream.expect_end();
    // Bad framing on the way is told, since no answer has begun.
    let mut client = proxy.connect();
    client.send("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    client.send("zz\r\n");
    let answer = client.rest();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    upstream.expect_end();
}

#[test]
fn what_is_no_http_response_is_a_502() {
    let (server, proxy) = one_server();
    for answer in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "",
    ] {
        let mut client = proxy.connect();
        client.send("POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(answer);
        drop(upstream);
        let (head, body) = client.response();
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert_eq!(body, r#"{"error":"Upstream sent an invalid response"}"#);
        // The client's connection is fit for more.
        client.send(get("/proxy/nobody/80/"));
        client.response();
    }
}

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
fn time_limits_end_what_waits_too_long() {
    let server = Server::new();
    let proxy = Proxy::alone(
        &[(80, server.address)],
        &[
            "--head-timeout-ms",
            "100",
            "--response-timeout-ms",
            "100",
            "--idle-timeout-ms",
            "100",
        ],
    );
    let mut client = proxy.connect();
    client.send("GET /proxy/web/80/ HTTP/1.1\r\n");
    let answer = client.rest();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    let (head, body) = client.response();
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    assert_eq!(body, r#"{"error":"Upstream did not answer in time"}"#);
    upstream.expect_end();
    // Idle: closed without a word, and so is what is kept to a machine, clients or none.
    client.expect_end();
    let mut client = proxy.connect();
    client.send("GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(OK);
    client.rest();
    drop(client);
    upstream.expect_end();
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
