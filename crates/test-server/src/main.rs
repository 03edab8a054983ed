//! `hyperfleet-test-server`: what the end-to-end tests run inside a machine.
//!
//! It stands on axum, an HTTP and WebSocket stack that shares nothing with ours, so that what the
//! proxy forwards is read by somebody else.
//!
//! ```text
//! hyperfleet-test-server ADDRESS:PORT...        [::]:PORT is IPv6-only with the prefix only6=
//! GET  /seen                the request as it arrived: method, target, header lines in order
//! GET  /bytes?n=N           N bytes of a fixed sequence
//! POST /digest              {"length", "sha256"} of the body
//! GET  /events              server-sent events; POST /events sends its body to all who listen
//! GET  /ws                  WebSocket echo; the first subprotocol offered is taken
//! GET  /slow?ms=N           answers after N milliseconds
//! ```

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Query, Request, State};
use axum::http::{header, HeaderMap};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use socket2::{Domain, Socket, Type};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// Bytes of one piece of `/bytes`; the sequence repeats after each.
const PIECE: usize = 64 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        eprintln!("usage: hyperfleet-test-server [only6=]ADDRESS:PORT...");
        std::process::exit(2);
    }
    let app = app();
    let mut servers = tokio::task::JoinSet::new();
    for argument in arguments {
        let listener = match listen(&argument) {
            Ok(listener) => listener,
            Err(error) => {
                eprintln!("can't listen on {argument}: {error}");
                std::process::exit(1);
            }
        };
        let app = app.clone();
        servers.spawn(async move { axum::serve(listener, app).await });
    }
    while let Some(ended) = servers.join_next().await {
        eprintln!("a server ended: {ended:?}");
    }
}

fn app() -> Router {
    let (events, _) = broadcast::channel::<String>(64);
    Router::new()
        .route("/bytes", get(bytes))
        .route("/digest", post(digest))
        .route("/events", get(subscribe).post(publish))
        .route("/ws", get(echo))
        .route("/slow", get(slow))
        .fallback(seen)
        .with_state(events)
}

fn listen(argument: &str) -> std::io::Result<tokio::net::TcpListener> {
    let (only_v6, address) = match argument.strip_prefix("only6=") {
        Some(address) => (true, address),
        None => (false, argument),
    };
    let address: SocketAddr = address
        .parse()
        .map_err(|_| std::io::Error::other("not an ADDRESS:PORT"))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(256)?;
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket.into())
}

async fn seen(request: Request) -> Json<serde_json::Value> {
    let (parts, body) = request.into_parts();
    let headers: Vec<(String, String)> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let body = axum::body::to_bytes(body, 1 << 20)
        .await
        .unwrap_or_default();
    Json(serde_json::json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
}

#[derive(Deserialize)]
struct Count {
    n: usize,
}

async fn bytes(Query(Count { n }): Query<Count>) -> Response {
    let piece: Bytes = (0..PIECE).map(|i| (i * 31 % 251) as u8).collect();
    let pieces = (0..n.div_ceil(PIECE)).map(move |index| {
        let length = (n - index * PIECE).min(PIECE);
        Ok::<_, Infallible>(piece.slice(..length))
    });
    (
        [(header::CONTENT_LENGTH, n.to_string())],
        Body::from_stream(futures_util::stream::iter(pieces)),
    )
        .into_response()
}

async fn digest(body: Body) -> Response {
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else {
            return axum::http::StatusCode::BAD_REQUEST.into_response();
        };
        length += piece.len();
        hash.update(&piece);
    }
    let sha256: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Json(serde_json::json!({"length": length, "sha256": sha256})).into_response()
}

async fn subscribe(State(events): State<broadcast::Sender<String>>) -> Response {
    let stream = BroadcastStream::new(events.subscribe())
        .map(|event| Ok::<_, Infallible>(format!("data: {}\n\n", event.unwrap_or_default())));
    let begin = futures_util::stream::iter([Ok(String::from(": here\n\n"))]);
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(begin.chain(stream)),
    )
        .into_response()
}

async fn publish(State(events): State<broadcast::Sender<String>>, event: String) -> String {
    // Nobody listening is no error here: the answer tells how many did.
    events.send(event).unwrap_or(0).to_string()
}

async fn echo(headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let offered = headers
        .get(header::SEC_WEBSOCKET_PROTOCOL)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(',').next())
        .map(|protocol| protocol.trim().to_owned());
    upgrade
        .max_message_size(64 << 20)
        .max_frame_size(64 << 20)
        .protocols(offered)
        .on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                let again = matches!(message, Message::Text(_) | Message::Binary(_));
                if again && socket.send(message).await.is_err() {
                    return;
                }
            }
        })
}

#[derive(Deserialize)]
struct Wait {
    ms: u64,
}

async fn slow(Query(Wait { ms }): Query<Wait>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    "done"
}
