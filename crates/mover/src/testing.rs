//! What tests of the modules share.

use std::net::SocketAddr;
use std::path::Path;

use proptest::test_runner::Config;

use crate::serve;

/// So many cases in CI, and twenty times as many with `--soak`.
pub(crate) fn cases(usual: u32) -> Config {
    let times = if std::env::var_os("KBBACKUP_SOAK").is_some() { 20 } else { 1 };
    Config { cases: usual.saturating_mul(times), failure_persistence: None, ..Config::default() }
}

/// An S3 endpoint inside of this process, on files below `root`, with an empty bucket.
pub(crate) async fn endpoint(root: &Path) -> SocketAddr {
    let (to, from) = tokio::sync::oneshot::channel();
    let settings = serve::Settings {
        root: root.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        health: None,
        access_key: "key".to_owned(),
        secret_key: "test-secret".to_owned(),
        buckets: vec!["bucket".to_owned()],
    };
    tokio::spawn(serve::run(settings, |address| to.send(address).unwrap()));
    from.await.unwrap()
}

/// The configuration by which the bucket of an [`endpoint`] is reached, at it or at something in front of it.
pub(crate) fn reach(address: impl std::fmt::Display) -> String {
    format!(
        "[storage]\ntype = s3\nprovider = Other\nendpoint = http://{address}\nroot = bucket\n\
         access_key_id = key\nsecret_access_key = test-secret\n"
    )
}
