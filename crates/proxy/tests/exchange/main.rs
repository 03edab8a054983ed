//! One request and its response: framing, streaming, early and broken ends, reuse and retry.

#[path = "../support/mod.rs"]
mod support;

mod broken;
mod early;
mod large;
mod reuse;
mod streaming;

use support::{Proxy, Server};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn one_server() -> (Server, Proxy) {
    let server = Server::new();
    let proxy = Proxy::alone(&[(80, server.address)], &[]);
    (server, proxy)
}
