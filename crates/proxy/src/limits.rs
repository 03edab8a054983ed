//! How much of anything a peer may send before it is refused.

/// Bounds of heads, bodies and chunk framing. The defaults are the documented settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request head, its final empty line included; more is 431. Trailers of either
    /// direction have the same bound, counted for themselves.
    pub head: usize,
    /// Field lines of a request head or of trailers; more is 431.
    pub fields: usize,
    /// Bytes of a request target; more is 414.
    pub target: usize,
    /// Bytes of a request body, if it is bounded at all; more is 413.
    pub body: Option<u64>,
    /// Bytes of a response head; more is an invalid response.
    pub response_head: usize,
    /// Field lines of a response head; more is an invalid response.
    pub response_fields: usize,
    /// Bytes of a chunk's size line, its extension included, without CRLF; more is 400.
    pub chunk_line: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 32 * 1024,
            fields: 128,
            target: 16 * 1024,
            body: None,
            response_head: 64 * 1024,
            response_fields: 256,
            chunk_line: 1024,
        }
    }
}
