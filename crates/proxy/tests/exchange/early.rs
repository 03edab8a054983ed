//! Answers that come before the request has, and interim ones.

use crate::support::{field, get};
use crate::{one_server, OK};

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
