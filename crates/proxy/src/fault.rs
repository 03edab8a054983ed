//! A panic on demand, for the tests of what one leads to. Nothing of it is in a release build.

/// Panics when `HYPERFLEET_PROXY_PANIC_AT` names the port of the upstream that a request is about
/// to be sent to.
#[cfg(debug_assertions)]
pub fn panic_at(port: u16) {
    use std::sync::OnceLock;
    static PORT: OnceLock<Option<u16>> = OnceLock::new();
    let wanted = PORT.get_or_init(|| {
        let text = std::env::var("HYPERFLEET_PROXY_PANIC_AT").ok()?;
        text.parse().ok()
    });
    assert_ne!(*wanted, Some(port), "a panic was asked for");
}

#[cfg(not(debug_assertions))]
pub fn panic_at(_port: u16) {}
