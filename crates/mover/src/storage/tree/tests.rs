//! The tree on a server that does what no real one can be made to do at the right moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::*;

/// Where this server misbehaves.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// A file keeps only so many bytes, and the transfer is reported as a success.
    keeps: Option<usize>,
    /// The answer to the first rename is lost; the rename has happened.
    loses_rename: bool,
    /// So many directories are refused without a reason.
    refuses: usize,
    /// The first download breaks behind so many bytes.
    breaks_at: Option<usize>,
    /// And the file is another by then.
    replaces: bool,
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<String, (Vec<u8>, i64)>,
    dirs: BTreeSet<String>,
    faults: Faults,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Disk>>);

impl Server {
    fn with(faults: Faults) -> Self {
        let server = Self::default();
        server.disk().faults = faults;
        server
    }

    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.disk().files.keys().cloned().collect()
    }
}

struct Sending(Server, String, Vec<u8>);

#[async_trait]
impl Writing for Sending {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.2.extend_from_slice(&bytes);
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<()> {
        let Self(server, path, mut bytes) = *self;
        let mut disk = server.disk();
        bytes.truncate(disk.faults.keeps.unwrap_or(usize::MAX));
        disk.files.insert(path, (bytes, 1));
        Ok(())
    }

    async fn abort(self: Box<Self>) {}
}

struct Receiving {
    bytes: Vec<u8>,
    /// Whether the connection breaks behind them.
    breaks: bool,
}

#[async_trait]
impl Reading for Receiving {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match std::mem::take(&mut self.bytes) {
            bytes if !bytes.is_empty() => Ok(Some(bytes.into())),
            _ if self.breaks => Err(Error::new(Cause::Unreachable, "the connection broke")),
            _ => Ok(None),
        }
    }
}

fn named(name: &str, dir: bool, size: usize, modified: i64) -> Item {
    let modified = Timestamp::from_second(modified).unwrap();
    Item { name: name.to_owned(), dir, size: size as u64, modified }
}

#[async_trait]
impl Files for Server {
    fn parallel(&self) -> usize {
        1
    }

    async fn stat(&self, path: &str) -> Result<Option<Item>> {
        // Others may do something between any two requests.
        tokio::task::yield_now().await;
        let disk = self.disk();
        let file = disk.files.get(path).map(|(bytes, modified)| named(path, false, bytes.len(), *modified));
        Ok(file.or_else(|| disk.dirs.contains(path).then(|| named(path, true, 0, 1))))
    }

    async fn list(&self, _: &str) -> Result<Option<Vec<Item>>> {
        Ok(Some(Vec::new()))
    }

    async fn read(&self, path: &str, offset: u64) -> Result<Box<dyn Reading>> {
        let mut disk = self.disk();
        let mut bytes = disk.files[path].0[offset as usize..].to_vec();
        let breaks = disk.faults.breaks_at.take();
        bytes.truncate(breaks.unwrap_or(usize::MAX));
        if breaks.is_some() && disk.faults.replaces {
            disk.files.get_mut(path).unwrap().1 += 1;
        }
        Ok(Box::new(Receiving { bytes, breaks: breaks.is_some() }))
    }

    async fn write(&self, path: &str) -> Result<Box<dyn Writing>> {
        Ok(Box::new(Sending(self.clone(), path.to_owned(), Vec::new())))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        tokio::task::yield_now().await;
        let mut disk = self.disk();
        let file = disk.files.remove(from).ok_or_else(|| Error::new(Cause::NotFound, "no such file"))?;
        disk.files.insert(to.to_owned(), file);
        if std::mem::take(&mut disk.faults.loses_rename) {
            return Err(Error::new(Cause::Unreachable, "the answer was lost"));
        }
        Ok(())
    }

    async fn remove(&self, path: &str) -> Result<()> {
        self.disk().files.remove(path).map(drop).ok_or_else(|| Error::new(Cause::NotFound, "no such file"))
    }

    async fn mkdir(&self, path: &str) -> Result<bool> {
        tokio::task::yield_now().await;
        let mut disk = self.disk();
        if disk.faults.refuses > 0 {
            disk.faults.refuses -= 1;
            return Err(Error::other("create directory operation failed"));
        }
        Ok(disk.dirs.insert(path.to_owned()))
    }

    async fn rmdir(&self, path: &str) -> Result<()> {
        self.disk().dirs.remove(path);
        Ok(())
    }
}

async fn push(tree: &Tree, key: &str, bytes: &'static [u8]) -> Result<()> {
    let mut writer = tree.create(key);
    writer.write(Bytes::from_static(bytes)).await?;
    writer.commit().await
}

async fn pull(tree: &Tree, key: &str) -> Result<Vec<u8>> {
    let Found::File(entry) = tree.lookup(key).await? else { panic!("no file {key}") };
    let mut reader = tree.read(&entry).await?;
    let mut all = Vec::new();
    while let Some(bytes) = reader.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

#[tokio::test]
async fn a_transfer_cut_short_and_called_a_success_is_damage() {
    let server = Server::default();
    let tree = Tree::new(server.clone(), "");
    push(&tree, "object", b"old").await.unwrap();
    server.disk().faults.keeps = Some(2);
    let error = push(&tree, "object", b"new bytes").await.unwrap_err();
    assert!(error.is(Cause::Damaged), "{error}");
    assert_eq!(server.names(), ["object"], "the temporary file stayed");
    assert_eq!(pull(&tree, "object").await.unwrap(), b"old");
}

#[tokio::test]
async fn a_rename_whose_answer_was_lost_is_found_done() {
    let server = Server::with(Faults { loses_rename: true, ..Faults::default() });
    let tree = Tree::new(server.clone(), "");
    push(&tree, "object", b"bytes").await.unwrap();
    assert_eq!(server.names(), ["object"]);
}

#[tokio::test]
async fn of_two_that_create_at_once_one_is_first() {
    let server = Server::default();
    let tree = Tree::new(server.clone(), "");
    let put = |bytes: &'static [u8]| tree.put_new("seal", Bytes::from_static(bytes));
    let (left, right) = tokio::join!(put(b"left"), put(b"right"));
    let (left, right) = (left.unwrap(), right.unwrap());
    assert!(left != right, "left {left}, right {right}");
    assert_eq!(server.names(), ["seal"]);
    assert_eq!(pull(&tree, "seal").await.unwrap(), if left { &b"left"[..] } else { b"right" });
    assert!(server.disk().dirs.is_empty(), "a claim stayed");
}

/// As when a claim goes between a refusal and the look for its reason.
#[tokio::test]
async fn a_claim_that_is_refused_without_a_reason_is_tried_again() {
    for (refuses, stored) in [(3, true), (usize::MAX, false)] {
        let tree = Tree::new(Server::with(Faults { refuses, ..Faults::default() }), "");
        assert_eq!(tree.put_new("seal", Bytes::from_static(b"x")).await.is_ok(), stored, "{refuses}");
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_was_unless_the_file_is_another() {
    for replaces in [false, true] {
        let server = Server::default();
        let tree = Tree::new(server.clone(), "");
        push(&tree, "object", b"0123456789").await.unwrap();
        server.disk().faults = Faults { breaks_at: Some(4), replaces, ..Faults::default() };
        let pulled = pull(&tree, "object").await;
        if replaces {
            let error = pulled.unwrap_err().to_string();
            assert!(error.contains("replaced while it was read"), "{error}");
        } else {
            assert_eq!(pulled.unwrap(), b"0123456789");
        }
    }
}
