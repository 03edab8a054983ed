//! What the fuzz targets share: readers written a second time, plainly and strictly, from the
//! RFCs, to hold the proxy's own against; and one connection of a client and of a machine, played
//! through the proxy's core.
//!
//! Nothing here uses the proxy's parsers to judge the proxy.

pub mod chunks;
pub mod client;
pub mod cuts;
pub mod machine;
pub mod memory;
pub mod messages;
pub mod reader;
