//! What a machine sends: the first byte is the setting, the rest is its connection.
#![no_main]

use hyperfleet_fuzz::{cuts, machine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&setting, bytes)) = input.split_first() else {
        return;
    };
    let setting = machine::Setting(setting);
    let whole = machine::outcomes(setting, &[bytes]);
    assert_eq!(machine::outcomes(setting, &cuts::some(bytes)), whole);
    assert_eq!(machine::outcomes(setting, &cuts::bytes(bytes)), whole);
});
