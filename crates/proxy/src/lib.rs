//! The data plane of Hyperfleet: HTTP/1.1 in, HTTP/1.1 out to the machines.
//!
//! The core parses, decides and rewrites; it does no I/O and owns no connection. One exchange goes
//! like this:
//!
//! 1. [`http::request::parse`] on what the client sent, again with more bytes while it says
//!    `Partial`. `Err(reject)`: write [`answer::Answer::Rejected`] and close.
//!    [`http::request::RequestHead::asked`] is what has to be remembered once the bytes are gone.
//! 2. [`route::Site::resolve`] on the head. `NotFound`: [`answer::Answer::NotFound`];
//!    `Redirect`: [`answer::write_redirect`]; `To(destination)`: look the machine up and ask
//!    [`route::check`], which gives the upstream or the answer to write. `Destination` is plain
//!    and owned: it may outlive the bytes.
//! 3. [`forward::write`] writes the head for the machine. The body follows as
//!    [`http::request::RequestHead::framing`] says: `Length` bytes as they are; `Chunked` through
//!    [`http::chunked::Decoder::request`], whose data goes out between [`http::chunked::write_size`] and
//!    [`http::chunked::CHUNK_END`], and [`http::chunked::write_end`] at the end.
//! 4. [`http::response::parse`] on what the machine sent, `Err`: [`answer::Answer::InvalidResponse`].
//!    [`reply::write`] writes the head for the client and says what follows: after `Interim`
//!    another head; after `Final` the body, in the framing it names; after `Tunnel` bytes both
//!    ways, watched by a [`websocket::FrameWalk`] if it is a WebSocket.
//! 5. The body is read as [`http::response::ResponseHead::framing`] says (chunks with
//!    [`http::chunked::Decoder::response`]) and written as [`reply::Body`] says. A body cut short (the machine closes before `Length` or the last chunk, or
//!    the decoder fails) breaks the client's connection: nothing that ends a body is written.
//!
//! The client's connection may be used again if `Final { keep_alive: true }` and the request's body
//! was read to its end; the machine's if [`http::response::ResponseHead::keep_alive`] and both ended
//! exactly.
//!
//! All of the above is pure. Around it stands the process ([`server`]): a thread for each
//! [`worker`], which owns a [`table`] of machines and a [`pool`] of connections to them, and a
//! task for each client ([`connection`]). [`intake`] reads requests, [`exchange`] decides where
//! one is sent, [`relay`] moves its bytes, [`tunnel`] those of an upgraded connection. The
//! routes come from [`control`] or a file ([`routes`]).

mod access;
mod account;
mod address;
pub mod answer;
mod backlog;
pub mod body;
mod bounds;
mod buffers;
pub mod cli;
mod client;
mod clients;
mod clock;
mod connection;
mod control;
mod counters;
mod descriptors;
mod exchange;
mod fault;
pub mod forward;
mod held;
mod histogram;
pub mod http;
mod index;
mod intake;
mod io;
mod life;
pub mod limits;
pub mod log;
mod measure;
mod meter;
mod metering;
mod moment;
mod page;
mod pool;
mod port;
mod privileges;
mod probe;
mod record;
mod relay;
pub mod reply;
pub mod route;
mod routes;
mod runtime;
pub mod server;
pub mod server_timing;
pub mod settings;
mod signals;
mod socket;
mod splice;
mod table;
mod takeover;
mod tunnel;
mod turns;
mod upstream;
pub mod websocket;
mod worker;
