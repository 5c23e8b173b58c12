//! A repository as a set of objects with keys: files of this machine, object stores through OpenDAL, and servers that show a
//! tree of files.
//!
//! The contract promises things about files that an object store cannot (links, real directories, the exact words of the
//! operating system), so the file system has an implementation of its own, and so have FTP, SFTP and `WebDAV`, where only a rename
//! makes an object appear whole; see `FORMAT.md`.

mod azure;
mod certificates;
mod connect;
mod ftp;
mod gcs;
mod held;
mod http;
mod leftovers;
mod local;
mod remote;
mod s3;
mod sftp;
mod transport;
mod tree;
mod upload;
mod webdav;

use bytes::Bytes;
use jiff::Timestamp;

pub(crate) use certificates::{CERTIFICATES, tls};
pub(crate) use connect::{Endpoint, Resolver};
pub(crate) use held::{By, Held};
use local::Local;
use remote::Remote;
pub(crate) use transport::cut_off;
use tree::Tree;

use crate::config::env;
use crate::config::ini::Ini;
use crate::config::obscure::reveal;
use crate::config::value::Options;
use crate::error::{Cause, Error, Result};

/// Names of unfinished files begin with this; no listing shows them.
pub(crate) const TEMPORARY: &str = ".kbbackup-tmp-";

/// An object or a directory.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Relative to the repository's root, without slashes at its ends.
    pub(crate) key: String,
    pub(crate) dir: bool,
    /// In bytes; what the back end says for a directory.
    pub(crate) size: i64,
    pub(crate) modified: Timestamp,
    /// Version of the content, where the back end has one.
    pub(crate) etag: Option<String>,
}

/// What lies at a key.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    File(Entry),
    Dir,
    Missing,
}

/// How far a listing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// This many levels, at least 1.
    Levels(usize),
    All,
}

/// Receives a listing in blocks: a directory's sorted entries, or a page of a store.
pub(crate) type Visit<'a> = &'a mut (dyn FnMut(Vec<Entry>) -> Result<()> + Send);

/// Receives objects one by one.
pub(crate) type Each<'a> = &'a mut (dyn FnMut(Entry) -> Result<()> + Send);

/// An open repository.
pub(crate) enum Store {
    Local(Local),
    Remote(Box<Remote>),
    Tree(Tree),
}

impl Store {
    /// Builds the repository of a configuration. Object stores are not contacted.
    ///
    /// # Errors
    /// A missing or unknown type, or an option that is wrong for it.
    pub(crate) fn open(ini: &Ini) -> Result<Self> {
        let options = Options::new(ini);
        match options.text("type") {
            None => Err(Error::other("didn't find section in config file (\"backend\")")),
            Some("local") => Local::open(&options).map(Self::Local),
            Some("s3") => s3::open(&options).map(Self::remote),
            Some("azureblob") => azure::open(&options).map(Self::remote),
            Some("google cloud storage" | "gcs") => gcs::open(&options).map(Self::remote),
            Some("ftp") => ftp::open(&options).map(Self::Tree),
            Some("webdav") => webdav::open(&options).map(Self::Tree),
            Some("sftp") => sftp::open(&options).map(Self::Tree),
            Some(other) => Err(Error::other(format!("didn't find backend called {other:?}"))),
        }
    }

    fn remote(remote: Remote) -> Self {
        Self::Remote(Box::new(remote))
    }

    /// Whether directories exist by themselves, as in a file system.
    pub(crate) fn has_directories(&self) -> bool {
        !matches!(self, Self::Remote(_))
    }

    /// Whether the entries of a directory come sorted by name.
    pub(crate) fn lists_in_order(&self) -> bool {
        !matches!(self, Self::Remote(_))
    }

    /// What lies at `key`.
    ///
    /// # Errors
    /// When the back end refuses or cannot be reached.
    pub(crate) async fn lookup(&self, key: &str) -> Result<Found> {
        match self {
            Self::Local(local) => local.lookup(key),
            Self::Remote(remote) => remote.lookup(key).await,
            Self::Tree(tree) => tree.lookup(key).await,
        }
    }

    /// Lists below the directory `key`, never the directory itself.
    ///
    /// # Errors
    /// [`Cause::NotFound`] when there is no such directory and directories are real here.
    pub(crate) async fn walk(&self, key: &str, depth: Depth, visit: Visit<'_>) -> Result<()> {
        match self {
            Self::Local(local) => local.walk(key, depth, visit),
            Self::Remote(remote) => remote.walk(key, depth, visit).await,
            Self::Tree(tree) => tree.walk(key, depth, visit).await,
        }
    }

    /// Gives every object below the directory `key`, hidden ones too, in no order and without keeping them. None when there
    /// is no such directory.
    ///
    /// # Errors
    /// When anything cannot be listed.
    pub(crate) async fn objects(&self, key: &str, each: Each<'_>) -> Result<()> {
        match self {
            Self::Local(local) => local.objects(key, each),
            Self::Remote(remote) => remote.objects(key, each).await,
            Self::Tree(tree) => tree.objects(key, each).await,
        }
    }

    /// Opens an object for reading from its start.
    ///
    /// # Errors
    /// [`Cause::NotFound`], [`Cause::IsDirectory`], or what the back end says.
    pub(crate) async fn read(&self, entry: &Entry) -> Result<Source> {
        match self {
            Self::Local(local) => local.read(&entry.key).map(Source::Local),
            Self::Remote(remote) => Ok(Source::Remote(Box::new(remote.read(entry)))),
            Self::Tree(tree) => tree.read(entry).await.map(|reader| Source::Tree(Box::new(reader))),
        }
    }

    /// Begins an object. Nothing is visible before [`Sink::commit`].
    ///
    /// # Errors
    /// When the back end refuses.
    pub(crate) fn create(&self, key: &str) -> Result<Sink> {
        match self {
            Self::Local(local) => local.create(key).map(|file| Sink::Local(Box::new(file))),
            Self::Remote(remote) => Ok(Sink::Remote(Box::new(remote.create(key)?))),
            Self::Tree(tree) => Ok(Sink::Tree(Box::new(tree.create(key)))),
        }
    }

    /// The same for an object that must not exist: then [`Sink::commit`] fails with [`Cause::Exists`].
    ///
    /// # Errors
    /// When the back end refuses.
    pub(crate) fn create_once(&self, key: &str) -> Result<Sink> {
        let mut sink = self.create(key)?;
        match &mut sink {
            Sink::Local(file) => file.once = true,
            Sink::Remote(upload) => upload.once = true,
            Sink::Tree(file) => file.once = true,
        }
        Ok(sink)
    }

    /// Stores a small object, whole or not at all.
    ///
    /// # Errors
    /// When the back end refuses.
    pub(crate) async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let mut sink = self.create(key)?;
        match sink.write(bytes).await {
            Ok(()) => sink.commit().await,
            Err(error) => {
                sink.abort().await;
                Err(error)
            }
        }
    }

    /// Stores a small object unless the key is taken. Returns whether it was stored.
    ///
    /// # Errors
    /// When the back end refuses.
    pub(crate) async fn put_new(&self, key: &str, bytes: Bytes) -> Result<bool> {
        match self {
            Self::Local(local) => local.put_new(key, &bytes),
            Self::Remote(remote) => remote.put_new(key, bytes).await,
            Self::Tree(tree) => tree.put_new(key, bytes).await,
        }
    }

    /// Reads a small object whole; `None` when it does not exist.
    ///
    /// # Errors
    /// When it is larger than `limit` bytes or cannot be read.
    pub(crate) async fn get(&self, key: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Found::File(entry) = self.lookup(key).await? else { return Ok(None) };
        if entry.size as u64 > limit {
            return Err(Error::other(format!("{key} has {} bytes, more than the {limit} expected", entry.size)));
        }
        let mut source = self.read(&entry).await?;
        let mut bytes = Vec::with_capacity(entry.size as usize);
        while let Some(chunk) = source.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// Removes one object; a missing one is a success.
    ///
    /// # Errors
    /// [`Cause::IsDirectory`], or what the back end says.
    pub(crate) async fn remove(&self, key: &str) -> Result<()> {
        match self {
            Self::Local(local) => local.remove(key),
            Self::Remote(remote) => remote.remove(key).await,
            Self::Tree(tree) => tree.remove(key).await,
        }
    }

    /// Removes a directory with everything below it, hidden and temporary files too.
    ///
    /// # Errors
    /// The first refusal, after everything else was tried.
    pub(crate) async fn remove_all(&self, key: &str) -> Result<()> {
        match self {
            Self::Local(local) => local.remove_all(key),
            Self::Remote(remote) => remote.remove_all(key).await,
            Self::Tree(tree) => tree.remove_all(key).await,
        }
    }

    /// Makes a directory and its parents; a success without effect where directories are not real.
    ///
    /// # Errors
    /// When something else has the name.
    pub(crate) async fn mkdir(&self, key: &str) -> Result<()> {
        match self {
            Self::Local(local) => local.mkdir(key),
            Self::Remote(_) => Ok(()),
            Self::Tree(tree) => tree.mkdir(key).await,
        }
    }

    /// Removes an empty directory; a missing one is a success.
    ///
    /// # Errors
    /// [`Cause::NotEmpty`], [`Cause::NotDirectory`].
    pub(crate) async fn rmdir(&self, key: &str) -> Result<()> {
        match self {
            Self::Local(local) => local.rmdir(key),
            Self::Remote(_) => Ok(()),
            Self::Tree(tree) => tree.rmdir(key).await,
        }
    }

    /// Removes what unfinished writes left below a directory, as far as nobody is writing it any more.
    ///
    /// # Errors
    /// When the back end refuses.
    pub(crate) async fn sweep(&self, key: &str) -> Result<()> {
        match self {
            Self::Local(local) => local.sweep(key),
            Self::Remote(remote) => remote.sweep(key).await,
            Self::Tree(tree) => tree.sweep(key).await,
        }
    }
}

/// An object being read.
pub(crate) enum Source {
    Local(local::Reader),
    Remote(Box<remote::Download>),
    Tree(Box<tree::TreeReader>),
}

impl Source {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When reading fails for good.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Local(reader) => reader.next(),
            Self::Remote(download) => download.next().await,
            Self::Tree(reader) => reader.next().await,
        }
    }
}

/// An object being written.
pub(crate) enum Sink {
    Local(Box<local::Writer>),
    Remote(Box<upload::Upload>),
    Tree(Box<tree::TreeWriter>),
}

impl Sink {
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match self {
            Self::Local(file) => file.write(&bytes),
            Self::Remote(upload) => upload.write(bytes).await,
            Self::Tree(file) => file.write(bytes).await,
        }
    }

    /// Makes the object durable and visible, at once and whole.
    pub(crate) async fn commit(self) -> Result<()> {
        match self {
            Self::Local(file) => file.commit(),
            Self::Remote(upload) => upload.commit().await,
            Self::Tree(file) => file.commit().await,
        }
    }

    /// Leaves no trace of the object.
    pub(crate) async fn abort(self) {
        match self {
            Self::Local(file) => file.abort(),
            Self::Remote(upload) => upload.abort().await,
            Self::Tree(file) => file.abort().await,
        }
    }
}

/// Who logs in: the user of this process when the configuration does not say.
fn login_name(options: &Options<'_>) -> String {
    let owner = || {
        let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").ok()?);
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
    };
    let user = options.text("user").map(str::to_owned);
    user.or_else(|| env("USER")).or_else(|| env("LOGNAME")).or_else(owner).unwrap_or_else(|| "anonymous".to_owned())
}

/// A password of the configuration file, in clear.
fn password(options: &Options<'_>, key: &str) -> Result<Option<String>> {
    options.text(key).map(reveal).transpose()
}

/// Whether a name may not be shown: our hidden folder, or an unfinished file.
pub(crate) fn is_hidden(key: &str) -> bool {
    key.split('/').any(|name| name == kbbackup_core::layout::HIDDEN || name.starts_with(TEMPORARY))
}

/// The error of a name that is taken.
fn exists() -> Error {
    Error::new(Cause::Exists, "the object exists already")
}

/// The error of a missing directory.
pub(crate) fn no_directory() -> Error {
    Error::new(Cause::NotFound, "directory not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the templates of the shipped providers give, in full, as the contract lists the keys.
    #[test]
    fn behaviour_2_2_every_provider_s_configuration_opens() {
        const KEYS: &str = "env_auth = false\naccess_key_id = AK\nsecret_access_key = SK\n";
        const CHECKS: &str = "no_check_certificate = false\nno_check_bucket = false\nchunk_size = 50Mi\n";
        let s3 =
            |provider: &str, rest: &str| format!("type = s3\nprovider = {provider}\n{KEYS}{rest}root = b\n{CHECKS}");
        for text in [
            s3("AWS", "region = eu-west-1\nendpoint =\n"),
            s3("TencentCOS", "endpoint = cos.ap-guangzhou.myqcloud.com\n"),
            s3("GCS", "endpoint = https://storage.googleapis.com\nregion = us\n"),
            s3("HuaweiOBS", "region = cn-north-1\nendpoint = obs.cn-north-1.myhuaweicloud.com\n"),
            s3("Alibaba", "endpoint = oss-cn-hangzhou.aliyuncs.com\n") + "use_already_exists = false\n",
            s3("Minio", "region =\nendpoint = http://minio:9000\n"),
            s3("Other", "region =\nendpoint = https://s3.example\n") + "force_path_style = true\n",
            "type = azureblob\naccount = a\nkey = a2V5\nroot = c\nno_check_container = false\nchunk_size = 50Mi\n".to_owned(),
            "type = azureblob\naccount = a\nkey = a2V5\nendpoint = https://a.blob.example\nroot = c\nno_check_container = true\n\
             chunk_size = 50Mi\n"
                .to_owned(),
            // The clear password of the template is obscured when the file is read.
            "type = ftp\nhost = h\nport = 21\nuser = u\npass = hand3zwvOZRkZqiB45vMRZ-hVFl540A\ntls = false\n".to_owned(),
        ] {
            let opened = Store::open(&Ini::parse(&format!("[storage]\n{text}")).unwrap());
            assert!(opened.is_ok(), "{text}: {}", opened.err().unwrap());
        }
        for (text, says) in [
            ("type = sftp\nport = 22\n", "host is missing"),
            ("type = webdav\nuser = u\n", "url is missing"),
            ("type = webdav\nurl = http://h/\nvendor = sharepoint-ntlm\n", "sharepoint-ntlm cannot be used"),
            ("type = webdav\nurl = http://h/\nurI = x\n", "unknown key \"urI\""),
            ("type = ftp\nhost = h\nsocks_proxy = p\n", "socks_proxy cannot be used"),
            ("type = ftp\nhost = h\ntls = true\nexplicit_tls = true\n", "exclude each other"),
        ] {
            let refused = Store::open(&Ini::parse(&format!("[storage]\n{text}")).unwrap()).err().unwrap().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
