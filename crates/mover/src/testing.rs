//! What tests of the modules share.

use proptest::test_runner::Config;

/// So many cases in CI; `KBBACKUP_SOAK` multiplies them.
pub(crate) fn cases(usual: u32) -> Config {
    let times = std::env::var("KBBACKUP_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    Config { cases: usual.saturating_mul(times), failure_persistence: None, ..Config::default() }
}
