//! The images of a release, as archives that registries and container runtimes take.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::VERSION;
use crate::artifacts::Binaries;
use crate::cluster::image::{self, Config, Entry};

/// Writes the images under the names that the plugin installs, and reads them back.
pub(super) fn write(root: &Path, binaries: &Binaries, out: &Path) -> Result<Vec<PathBuf>> {
    let licence = root.join("LICENSE");
    let mut written = Vec::new();
    for (name, path, binary) in
        [("controller", "/kbbackup-controller", &binaries.controller), ("mover", "/datasafed", &binaries.mover)]
    {
        let labels = vec![
            ("org.opencontainers.image.title", format!("kbbackup {name}")),
            ("org.opencontainers.image.version", VERSION.to_owned()),
            ("org.opencontainers.image.source", env!("CARGO_PKG_REPOSITORY").to_owned()),
            ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE").to_owned()),
        ];
        let entrypoint = vec![path.to_owned()];
        let config = Config { entrypoint, user: "65532:65532".to_owned(), labels, ..Config::default() };
        let image = format!("ghcr.io/kbbackup/{name}:{VERSION}");
        let files = [Entry::new(path, binary, 0o755), Entry::new("/LICENSE", &licence, 0o644)];
        let made = image::scratch(&image, &files, &config)?;
        let file = out.join(format!("kbbackup-{name}_v{VERSION}_linux_{}.oci.tar", image::architecture()));
        fs::copy(&made.archive, &file).with_context(|| format!("cannot write {}", file.display()))?;
        check(&file, &image).with_context(|| format!("{} is no image", file.display()))?;
        written.push(file);
    }
    Ok(written)
}

/// Reads an archive as a runtime does: from the index to the files, each blob by its size and digest.
fn check(archive: &Path, name: &str) -> Result<()> {
    let mut files = BTreeMap::new();
    let mut tar = tar::Archive::new(File::open(archive)?);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(path, content);
    }
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).context("this is not JSON");
    let file = |path: &str| files.get(path).with_context(|| format!("{path} is missing"));
    let blob = |descriptor: &Value| -> Result<&Vec<u8>> {
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        let digest = digest.context("a descriptor has no digest")?;
        let content = file(&format!("blobs/sha256/{digest}"))?;
        ensure!(hex::encode(Sha256::digest(content)) == digest, "blob {digest} is not what its name says");
        ensure!(descriptor["size"] == content.len(), "blob {digest} has {} bytes", content.len());
        Ok(content)
    };
    ensure!(json(file("oci-layout")?)?["imageLayoutVersion"] == "1.0.0", "the layout has another version");
    let index = json(file("index.json")?)?;
    let entry = &index["manifests"][0];
    ensure!(entry["annotations"]["io.containerd.image.name"] == name, "it has another name");
    let manifest = json(blob(entry)?)?;
    let config = json(blob(&manifest["config"])?)?;
    ensure!(config["config"]["Labels"]["org.opencontainers.image.version"] == VERSION, "it has another version");
    let layer = zstd::decode_all(&blob(&manifest["layers"][0])?[..])?;
    let diff = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
    ensure!(config["rootfs"]["diff_ids"][0] == diff, "the layer is not the one of the configuration");
    let mut inside = Vec::new();
    for entry in tar::Archive::new(&layer[..]).entries()? {
        inside.push(entry?.path()?.display().to_string());
    }
    let program = config["config"]["Entrypoint"][0].as_str().unwrap_or_default().trim_start_matches('/').to_owned();
    for wanted in [program.as_str(), "LICENSE"] {
        ensure!(inside.iter().any(|path| path == wanted), "{wanted} is not inside: {inside:?}");
    }
    Ok(())
}
