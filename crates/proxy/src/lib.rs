//! The data plane of Hyperfleet: HTTP/1.1 in, HTTP/1.1 out to the machines.
