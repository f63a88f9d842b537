//! All targets in one binary: `DRIFTLESS_DECODER=name` says which. One for each would be the same code twenty times, since
//! nothing that counts its coverage is left out when it is linked.

#![no_main]

use std::sync::LazyLock;

use driftless_tests::decoders::Decoder;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

static DECODER: LazyLock<&Decoder> = LazyLock::new(|| {
    let name = std::env::var("DRIFTLESS_DECODER").expect("DRIFTLESS_DECODER names the decoder");
    Decoder::of_name(&name).unwrap_or_else(|| panic!("there is no decoder {name:?}"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let decoder = *DECODER;
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    (decoder.run)(bytes);
    let held = MEMORY.peak_usage().saturating_sub(before);
    let most = decoder.memory_for(bytes.len());
    assert!(held <= most, "{} bytes made it hold {held}, more than {most}", bytes.len());
});
