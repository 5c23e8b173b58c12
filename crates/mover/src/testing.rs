//! What tests of the modules share.

use proptest::test_runner::Config;

/// So many cases in CI, and twenty times as many with `--soak`.
pub(crate) fn cases(usual: u32) -> Config {
    let times = if std::env::var_os("KBBACKUP_SOAK").is_some() { 20 } else { 1 };
    Config { cases: usual.saturating_mul(times), failure_persistence: None, ..Config::default() }
}
