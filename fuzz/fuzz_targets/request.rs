//! What a client sends: the first byte is the setting, the rest is its connection.
#![no_main]

use hyperfleet_fuzz::{client, cuts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&setting, bytes)) = input.split_first() else {
        return;
    };
    let setting = client::Setting(setting);
    let whole = client::outcomes(setting, &[bytes]);
    assert_eq!(client::outcomes(setting, &cuts::some(bytes)), whole);
    assert_eq!(client::outcomes(setting, &cuts::bytes(bytes)), whole);
});
