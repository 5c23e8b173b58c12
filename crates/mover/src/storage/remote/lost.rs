//! What is lost or hangs in the middle, with little patience, so that a test can wait for its end.

use std::time::Instant;

use super::*;
use crate::config::ini::Ini;
use crate::storage::Store;
use crate::testing::{self, reach};
use proxy::{Asks, Fault, Proxy, Rule};

#[path = "../../../tests/mover/common/proxy.rs"]
#[allow(dead_code, unreachable_pub)]
mod proxy;

const QUICK: Patience = Patience {
    answer: Duration::from_secs(1),
    work: Duration::from_secs(1),
    total: Duration::from_secs(3),
    slowest: 8 << 20,
};
const LONG: Patience = Patience { total: Duration::from_secs(8), ..QUICK };

/// A store behind a proxy, and the directory that it keeps.
struct Behind {
    remote: Remote,
    proxy: Proxy,
    dir: tempfile::TempDir,
}

impl Behind {
    async fn new(asks: Asks, times: usize, fault: Fault) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = testing::endpoint(dir.path()).await;
        let proxy = Proxy::start(&address.to_string(), vec![Rule { asks, skip: 0, times, fault }]);
        let ini = reach(&proxy.address);
        let Store::Remote(remote) = Store::open(&Ini::parse(&ini).unwrap()).unwrap() else { panic!("a remote store") };
        let client = super::super::http::client(true).unwrap();
        let remote = Remote::with_patience(&remote.bare, &client, Limits::S3, QUICK, LONG);
        Self { remote, proxy, dir }
    }

    fn unfinished(&self) -> usize {
        std::fs::read_dir(self.dir.path().join(".kbbackup-serve")).unwrap().count()
    }
}

const ALWAYS: usize = usize::MAX;

#[tokio::test(flavor = "multi_thread")]
async fn a_create_once_whose_answer_is_lost_is_ours() {
    let behind = Behind::new(Asks::Put, 1, Fault::AnswerLost).await;
    assert!(behind.remote.put_new("seal", Bytes::from("ours")).await.unwrap());
    assert_eq!(behind.proxy.befallen(), 1);
    assert!(!behind.remote.put_new("seal", Bytes::from("theirs")).await.unwrap());
    // Nobody was in doubt: the same bytes are somebody else's too.
    assert!(!behind.remote.put_new("seal", Bytes::from("ours")).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_once_that_came_too_late_is_not_ours_when_its_answer_is_lost() {
    for bytes in ["longer than theirs", "thiers"] {
        let behind = Behind::new(Asks::Put, 1, Fault::AnswerLost).await;
        std::fs::write(behind.dir.path().join("bucket/seal"), "theirs").unwrap();
        assert!(!behind.remote.put_new("seal", Bytes::from(bytes)).await.unwrap());
        assert_eq!(behind.proxy.befallen(), 1);
        assert_eq!(std::fs::read(behind.dir.path().join("bucket/seal")).unwrap(), b"theirs");
    }
}

async fn upload(behind: &Behind, parts: usize) -> Result<()> {
    let mut upload = behind.remote.create("object")?;
    for _ in 0..parts {
        if let Err(error) = upload.write(Bytes::from(vec![7; 8 << 20])).await {
            upload.abort().await;
            return Err(error);
        }
    }
    upload.commit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_hangs_is_sent_again() {
    let behind = Behind::new(Asks::Part, 2, Fault::Silence).await;
    upload(&behind, 4).await.unwrap();
    assert_eq!(behind.proxy.befallen(), 2);
    assert_eq!(std::fs::metadata(behind.dir.path().join("bucket/object")).unwrap().len(), 32 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_all_hang_are_given_up_and_taken_back() {
    let behind = Behind::new(Asks::Part, ALWAYS, Fault::Silence).await;
    let began = Instant::now();
    let error = upload(&behind, 4).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable, "{error}");
    assert!(began.elapsed() < 3 * LONG.total, "{:?}", began.elapsed());
    for _ in 0..100 {
        if behind.unfinished() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(behind.unfinished(), 0);
    assert!(!behind.dir.path().join("bucket/object").exists());
}

/// An object of 40 MiB, read in whole where a connection counts as fast from so many bytes per second; how many requests that
/// took.
async fn reads(times: usize, fault: Fault, fast: u64) -> (Behind, usize) {
    let behind = Behind::new(Asks::Get, times, fault).await;
    let bytes: Vec<u8> = (0..40 << 20).map(|at: u32| (at * 31 % 251) as u8).collect();
    std::fs::write(behind.dir.path().join("bucket/object"), &bytes).unwrap();
    let Found::File(entry) = behind.remote.lookup("object").await.unwrap() else { panic!("not there") };
    let mut download = Download::new(behind.remote.patient.clone(), &entry, fast);
    let mut read = Vec::new();
    while let Some(chunk) = download.next().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert!(read == bytes);
    let requests = behind.proxy.seen().iter().filter(|(_, asks, _)| *asks == Asks::Get).count();
    (behind, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_is_fetched_on_from_there() {
    for fast in [0, download::FAST] {
        let (behind, _) = reads(3, Fault::Stall { after: 1 << 20 }, fast).await;
        assert_eq!(behind.proxy.befallen(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_slow_store_is_read_by_ranges() {
    let late = || Fault::Late(Duration::from_millis(100));
    let (_, requests) = reads(ALWAYS, late(), download::FAST).await;
    assert_eq!(requests, 1 + 32 / 8);
    let (_, requests) = reads(ALWAYS, late(), 0).await;
    assert_eq!(requests, 2);
}
