//! The Debian packages the local node runs on.

use anyhow::{Context as _, Result, bail};

use super::{cache, sh};
use crate::ui;

const PACKAGES: &[&str] = &[
    "btrfs-progs",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "etcd-server",
    "iproute2",
    "ipset",
    "iptables",
    "mmdebstrap",
    "mount",
    "openssl",
    "postgresql-client-15",
    "procps",
    "runc",
    "socat",
    "util-linux",
    "zstd",
];

/// Installs what is missing.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

/// Installs packages.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let log = cache::root()?.join("logs");
    std::fs::create_dir_all(&log)?;
    let log = log.join("apt.log");
    ui::long_step(&format!("install {}", packages.join(" ")), || {
        sh::logged(&mut sh::command("apt-get", ["update", "-q"]), &log)?;
        let mut install = sh::command("apt-get", ["install", "-q", "-y", "--no-install-recommends"]);
        install.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
        sh::logged(&mut install, &log)
    })
}

fn missing() -> Result<Vec<&'static str>> {
    let installed = sh::command("dpkg-query", ["--show", "--showformat", "${db:Status-Status} ${Package}\\n"])
        .output()
        .context("the local node needs a Debian machine (there is no dpkg-query); use --context or Docker with kind")?;
    let installed = String::from_utf8_lossy(&installed.stdout);
    let missing = PACKAGES.iter().copied().filter(|name| !is_installed(&installed, name)).collect::<Vec<_>>();
    if !missing.is_empty() && !rustix::process::geteuid().is_root() {
        bail!("these packages are missing and only root can install them: {}", missing.join(" "));
    }
    Ok(missing)
}

fn is_installed(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.strip_prefix("installed ") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_only_left_its_configuration_is_missing() {
        assert!(is_installed("installed runc\nconfig-files zstd", "runc"));
        assert!(!is_installed("installed runc\nconfig-files zstd", "zstd"));
        assert!(!is_installed("installed runc-extra", "runc"));
    }
}
