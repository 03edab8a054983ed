//! Framing: bodies, none, and pieces of any size, in order.

use crate::support::{field, get};
use crate::{one_server, OK};

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
