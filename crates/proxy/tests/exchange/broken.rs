//! Messages that end too soon, come too late, or are none.

use crate::support::{get, Proxy, Server};
use crate::{one_server, OK};

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
fn what_follows_a_last_request_does_not_cost_the_client_its_answer() {
    let (server, proxy) = one_server();
    // In one segment with the request; and after a body, when the machine has it already.
    for (request, more) in [
        ("GET /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n\r\n", ""),
        ("GET /proxy/web/80/ HTTP/1.0\r\n\r\nGET", ""),
        (
            "POST /proxy/web/80/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1",
            "\r\n",
        ),
    ] {
        let mut client = proxy.connect();
        client.send(request);
        let mut upstream = server.accept();
        upstream.head();
        client.send(more);
        upstream.send(OK);
        client.shut();
        let (answer, reset) = client.rest_and_reset();
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        assert!(!reset, "{request}");
        drop(upstream);
    }
}
