//! The OCI image format: one layer, a config, a manifest and an index in one tar.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Entry;

/// How a container of the image starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    /// A name or `uid:gid`; empty means root.
    pub user: String,
    pub workdir: String,
    /// What ends a container; empty means TERM.
    pub stop_signal: String,
    /// What the image says of itself.
    pub labels: Vec<(&'static str, String)>,
}

impl Config {
    pub(crate) fn to_json(&self) -> Value {
        let mut config = serde_json::Map::new();
        for (name, list) in [("Entrypoint", &self.entrypoint), ("Cmd", &self.cmd), ("Env", &self.env)] {
            if !list.is_empty() {
                config.insert(name.to_owned(), json!(list));
            }
        }
        for (name, text) in [("User", &self.user), ("WorkingDir", &self.workdir), ("StopSignal", &self.stop_signal)] {
            if !text.is_empty() {
                config.insert(name.to_owned(), json!(text));
            }
        }
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value)));
            config.insert("Labels".to_owned(), Value::Object(labels.collect()));
        }
        Value::Object(config)
    }
}

/// Writes a tar with the entries and the folders they need. The same entries give the same bytes.
pub(super) fn layer_from_entries(entries: &[Entry], layer: &Path) -> Result<()> {
    let mut tar = tar::Builder::new(BufWriter::new(File::create(layer)?));
    let mut folders = BTreeSet::from(["tmp".to_owned()]);
    for entry in entries {
        let path = entry.path.trim_start_matches('/');
        folders.extend(path.match_indices('/').map(|(end, _)| path[..end].to_owned()));
    }
    for folder in &folders {
        let mode = if folder == "tmp" { 0o1777 } else { 0o755 };
        tar.append_data(&mut header(tar::EntryType::Directory, mode, 0), format!("{folder}/"), io::empty())?;
    }
    for entry in entries {
        let file = File::open(&entry.host).with_context(|| format!("cannot read {}", entry.host.display()))?;
        let size = file.metadata()?.len();
        let mut header = header(tar::EntryType::Regular, entry.mode, size);
        tar.append_data(&mut header, entry.path.trim_start_matches('/'), BufReader::new(file))?;
    }
    Ok(tar.into_inner()?.flush()?)
}

/// Wraps a layer (a tar) into an OCI archive that `ctr images import` and `kind load image-archive` read.
pub(super) fn write(name: &str, layer: &Path, config: &Config, archive: &Path) -> Result<()> {
    let folder = archive.parent().context("an archive lies in a folder")?;
    let mut compressed = tempfile::NamedTempFile::new_in(folder)?;
    let (diff_id, layer_digest, layer_size) = compress(layer, compressed.as_file_mut())?;

    let config = json!({
        "architecture": architecture(), "os": "linux", "config": config.to_json(),
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
        "history": [{"created_by": "cargo xtask"}],
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &digest(&config), config.len() as u64),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+zstd", &layer_digest, layer_size)],
    })
    .to_string();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &digest(&manifest), manifest.len() as u64);
    entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag(name)});
    entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry],
    })
    .to_string();

    let mut tar = tar::Builder::new(BufWriter::new(File::create(archive)?));
    let mut add = |path: &str, size: u64, content: &mut dyn Read| {
        tar.append_data(&mut header(tar::EntryType::Regular, 0o644, size), path, content)
    };
    let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
    for (path, text) in [
        ("oci-layout", layout),
        ("index.json", &index),
        (&format!("blobs/sha256/{}", digest(&manifest)), &manifest),
        (&format!("blobs/sha256/{}", digest(&config)), &config),
    ] {
        add(path, text.len() as u64, &mut text.as_bytes())?;
    }
    add(&format!("blobs/sha256/{layer_digest}"), layer_size, &mut File::open(compressed.path())?)?;
    let mut file = tar.into_inner()?;
    file.flush()?;
    // The archive is renamed to its final name next; after a crash it must not be there without its content.
    Ok(file.get_ref().sync_all()?)
}

/// Returns the digest of the plain layer, and digest and size of the compressed one.
fn compress(layer: &Path, to: &mut File) -> Result<(String, String, u64)> {
    let mut plain = Hashing::new(File::open(layer)?);
    let mut packed = Hashing::new(BufWriter::new(to));
    let mut encoder = zstd::Encoder::new(&mut packed, 3)?;
    let _ = encoder.multithread(std::thread::available_parallelism().map_or(1, |count| count.get() as u32));
    io::copy(&mut BufReader::with_capacity(1 << 20, &mut plain), &mut encoder)?;
    encoder.finish()?;
    packed.flush()?;
    let (digest, size) = packed.finish();
    Ok((plain.finish().0, digest, size))
}

/// Counts and hashes what passes.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
    size: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }
    fn pass(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }
    fn finish(self) -> (String, u64) {
        (hex::encode(self.hash.finalize()), self.size)
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.pass(&buffer[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.pass(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn tag(name: &str) -> &str {
    name.rsplit_once(':').map_or("latest", |(_, tag)| tag)
}

pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_its_image_and_its_digests_are_true() {
        let dir = tempfile::tempdir().unwrap();
        let (host, layer, archive) = (dir.path().join("f"), dir.path().join("layer"), dir.path().join("image.tar"));
        std::fs::write(&host, "hello").unwrap();
        layer_from_entries(&[Entry::new("/a/b/f", &host, 0o755)], &layer).unwrap();
        write("example.test/x:1", &layer, &Config { user: "65532".into(), ..Config::default() }, &archive).unwrap();

        let mut index = Value::Null;
        let mut blobs = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(File::open(&archive).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if path == "index.json" {
                index = serde_json::from_slice(&content).unwrap();
            } else if let Some(named) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(hex::encode(Sha256::digest(&content)), named);
                blobs.insert(format!("sha256:{named}"), content);
            }
        }
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "example.test/x:1");
        let manifest: Value = serde_json::from_slice(&blobs[entry["digest"].as_str().unwrap()]).unwrap();
        let config: Value = serde_json::from_slice(&blobs[manifest["config"]["digest"].as_str().unwrap()]).unwrap();
        assert_eq!(config["config"]["User"], "65532");
        let packed = &blobs[manifest["layers"][0]["digest"].as_str().unwrap()];
        let plain = zstd::decode_all(packed.as_slice()).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex::encode(Sha256::digest(&plain))));
        let paths: Vec<String> = tar::Archive::new(plain.as_slice())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(paths, ["a/", "a/b/", "tmp/", "a/b/f"]);
    }
}
