//! `install`: puts the mover and its certificates into a folder that other containers share. Needs no shell.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Context;
use crate::error::{Error, Result};
use crate::storage::CERTIFICATES;

/// Name under which scripts call the mover.
const NAME: &str = "datasafed";
const BUNDLE: &str = "ca-certificates.crt";

pub(super) async fn run(context: Context) -> Result<()> {
    let [dir] = context.args.exactly()?;
    let dir = Path::new(dir);
    fs::create_dir_all(dir).map_err(|error| Error::file("mkdir", dir, &error))?;
    let this = Path::new("/proc/self/exe");
    let exe = fs::read(this).map_err(|error| Error::file("read", this, &error))?;
    put(dir, NAME, &exe, 0o755)?;
    let certificates = dir.join(CERTIFICATES);
    fs::create_dir_all(&certificates).map_err(|error| Error::file("mkdir", &certificates, &error))?;
    put(&certificates, BUNDLE, bundle().as_bytes(), 0o644)?;
    // Certificates beside this executable are private authorities that somebody added to the image.
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(CERTIFICATES)));
    for item in beside.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let name = item.file_name().to_string_lossy().into_owned();
        if name != BUNDLE && item.path().is_file() && item.path().parent() != Some(&certificates) {
            let bytes = fs::read(item.path()).map_err(|error| Error::file("read", &item.path(), &error))?;
            put(&certificates, &name, &bytes, 0o644)?;
        }
    }
    Ok(())
}

/// Writes a file whole or not at all: another container may already be running the old one.
fn put(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let path = dir.join(name);
    let failed = |error: std::io::Error| Error::file("write", &path, &error);
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            // The umask may have taken rights that other users need.
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        });
    written.and_then(|()| fs::rename(&temporary, &path)).map_err(failed)
}

/// The bundled authorities in the usual text form.
fn bundle() -> String {
    let mut text = String::new();
    for der in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(der);
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
