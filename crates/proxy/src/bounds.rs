//! The bounds whose being met is counted, in one table. What each is and what happens at it:
//! docs/reference/bounds.md.

use crate::answer::Answer;
use crate::http::chunked;
use crate::http::response::{HEAD_TOO_LARGE, TOO_MANY_FIELDS};
use crate::http::{Invalid, Part, Reject};

macro_rules! bounds {
    ($($name:ident = $text:literal,)*) => {
        /// What was met.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bound { $($name),* }

        /// Their names in the counters, in the order of [`Bound`].
        pub const NAMES: [&str; [$($text),*].len()] = [$($text),*];
    };
}

bounds! {
    RequestHead = "request_head",
    RequestTarget = "request_target",
    RequestBody = "request_body",
    ChunkLine = "chunk_line",
    ResponseHead = "response_head",
    Connections = "connections",
    AddressConnections = "address_connections",
    MachineConnections = "machine_connections",
    MachineRequests = "machine_requests",
    HostSockets = "host_sockets",
    HeldBytes = "held_bytes",
    AccessLog = "access_log",
    SystemCalls = "system_calls",
    SentAhead = "sent_ahead",
    Pipes = "pipes",
    IdleMachineConnections = "idle_machine_connections",
    ListenBacklog = "listen_backlog",
}

impl Bound {
    /// The bound that an answer to a client tells of. Capacity is counted where it is missing:
    /// the answer does not say whose it was.
    pub fn of(answer: Answer) -> Option<Bound> {
        match answer {
            Answer::Rejected(reject) => Bound::of_reject(reject),
            Answer::ProxyFull { .. } => Some(Bound::Connections),
            Answer::AddressFull { .. } => Some(Bound::AddressConnections),
            _ => None,
        }
    }

    /// The bound that a request, or a chunked body of either direction, went over.
    pub fn of_reject(reject: Reject) -> Option<Bound> {
        match reject {
            Reject::TooLarge(Part::Head) => Some(Bound::RequestHead),
            Reject::TooLarge(Part::Target) => Some(Bound::RequestTarget),
            Reject::TooLarge(Part::Body) => Some(Bound::RequestBody),
            chunked::LINE_TOO_LONG => Some(Bound::ChunkLine),
            _ => None,
        }
    }

    /// The bound that a response's head went over.
    pub fn of_invalid(invalid: Invalid) -> Option<Bound> {
        matches!(invalid, HEAD_TOO_LARGE | TOO_MANY_FIELDS).then_some(Bound::ResponseHead)
    }

    /// The bound that a response's body went over: its trailers are bounded like a head.
    pub fn of_response_body(reject: Reject) -> Option<Bound> {
        match Bound::of_reject(reject)? {
            Bound::RequestHead => Some(Bound::ResponseHead),
            bound => Some(bound),
        }
    }
}
