//! A small disk of its own, for tests of what happens when it is full or may only be read.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system in memory.
pub(crate) struct Disk {
    dir: TempDir,
}

impl Disk {
    /// Mounts one of so many MiB. None when this process may not mount: only the superuser can.
    pub(crate) fn new(size: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}m,mode=755"), "test"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            crate::common::not_tried("a file system cannot be mounted");
            return None;
        }
        Some(Self { dir })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        assert!(Command::new("mount").args(["-o", &options]).arg(self.path()).status().unwrap().success());
    }

    /// Fills it but for so many bytes.
    pub(crate) fn fill_but(&self, left: u64) -> PathBuf {
        let path = self.path().join("filling");
        let mut file = std::fs::File::create(&path).unwrap();
        // Ends with the disk.
        let written = std::io::copy(&mut std::io::repeat(1), &mut file);
        assert!(written.is_err());
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(left)).unwrap();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
