//! Peers that break off, stall, flood or lie: what the other side gets, and that nothing is left.

mod support;

use std::time::{Duration, Instant};

use support::{get, Proxy, Server};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CLOSING: &str = "GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const OLD: &str = "GET /proxy/web/80/ HTTP/1.0\r\n\r\n";

fn one_server(arguments: &[&str]) -> (Server, Proxy) {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], arguments);
    (server, proxy)
}

#[test]
fn a_head_that_drips_has_to_be_whole_in_time() {
    let (server, proxy) = one_server(&["--response-timeout-ms", "300"]);
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nX: ");
    while !client.comes(Duration::from_millis(10)) {
        upstream.send("a");
    }
    assert!(client.response().0.starts_with("HTTP/1.1 504 "));
    // Not read to the end, hence perhaps a reset.
    upstream.rest_and_reset();
}

#[test]
fn an_interim_answer_gives_the_next_head_its_own_time() {
    let (server, proxy) = one_server(&["--response-timeout-ms", "1000"]);
    let mut client = proxy.connect();
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        upstream.send("HTTP/1.1 102 Processing\r\n\r\n");
        client.expect("HTTP/1.1 102 Processing\r\n\r\n");
        assert!(!client.comes(Duration::from_millis(300)));
    }
    upstream.send(OK);
    client.expect(OK);
}

#[test]
fn a_crlf_after_a_body_begins_no_request() {
    let (_, proxy) = one_server(&["--head-timeout-ms", "100", "--idle-timeout-ms", "500"]);
    let request = "POST /proxy/nobody/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi\r\n";
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(request);
        assert!(client.response().0.starts_with("HTTP/1.1 404 "));
    }
    // Idle, not late with a head.
    client.expect_end();
}

#[test]
fn a_body_where_none_may_be_reaches_nobody() {
    let (server, proxy) = one_server(&[]);
    let mut client = proxy.connect();
    // A 204 that speaks of a body: it will send it.
    client.send(get("/proxy/web/80/"));
    let mut upstream = server.accept();
    upstream.head();
    upstream.send("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n");
    client.expect("HTTP/1.1 204 No Content\r\n\r\n");
    upstream.expect_end();
    // To HEAD, and on 304, a length is right; a body comes late, with the next request.
    for (request, status) in [
        ("HEAD /proxy/web/80/ HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK"),
        (
            "GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "304 Not Modified",
        ),
    ] {
        client.send(request);
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(format!("HTTP/1.1 {status}\r\nContent-Length: 38\r\n\r\n"));
        client.head();
        proxy.signal(libc::SIGSTOP);
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        client.send(CLOSING);
        proxy.signal(libc::SIGCONT);
        let mut fresh = server.accept();
        fresh.head();
        fresh.send(OK);
        assert!(client.rest().ends_with("\r\n\r\nok"));
        client = proxy.connect();
    }
}

#[test]
fn a_flood_of_small_things_does_not_hold_up_other_clients() {
    let (server, proxy) = one_server(&[]);
    for head in [
        // Dropped one by one, and written anew one by one.
        "",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut flooded = proxy.connect();
        flooded.send(OLD);
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(head);
        let small = if head.is_empty() {
            "HTTP/1.1 100\r\n\r\n"
        } else {
            "1\r\na\r\n"
        };
        let flood = small.repeat(65536);
        std::thread::scope(|scope| {
            let ending = upstream.stream.try_clone().unwrap();
            let reading = flooded.stream.try_clone().unwrap();
            scope.spawn(|| {
                use std::io::Write;
                while (&upstream.stream).write_all(flood.as_bytes()).is_ok() {}
            });
            scope.spawn(move || std::io::copy(&mut &reading, &mut std::io::sink()));
            let began = Instant::now();
            let mut other = proxy.connect();
            for _ in 0..20 {
                other.send(get("/proxy/nobody/80/"));
                other.response();
            }
            // Well below a second, even unoptimised and on a busy machine; minutes without turns.
            assert!(began.elapsed() < Duration::from_secs(10));
            let _ = ending.shutdown(std::net::Shutdown::Both);
            let _ = flooded.stream.shutdown(std::net::Shutdown::Both);
        });
    }
}

#[test]
fn clients_that_vanish_at_any_byte_leave_nothing() {
    const REQUESTS: [&str; 3] = [
        "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
         5;a=b\r\nhello\r\n0\r\nT: u\r\n\r\n",
        "GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ];
    let (server, proxy) = one_server(&[]);
    assert!(proxy.once(&get("/proxy/nobody/80/")).contains("404"));
    let before = proxy.descriptors();
    for request in REQUESTS {
        let head = request.find("\r\n\r\n").unwrap() + 4;
        for length in 0..=request.len() {
            for reset in [false, true] {
                let mut client = proxy.connect();
                client.send(&request[..length]);
                let upstream = (length >= head).then(|| {
                    let mut upstream = server.accept();
                    upstream.head();
                    upstream
                });
                if reset {
                    client.reset();
                } else {
                    drop(client);
                }
                if let Some(mut upstream) = upstream {
                    if length == request.len() && !reset {
                        // A client that only sends no more still gets its answer.
                        upstream.send(
                            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                        );
                    }
                    upstream.rest();
                }
            }
        }
    }
    proxy.expect_descriptors(before);
}
