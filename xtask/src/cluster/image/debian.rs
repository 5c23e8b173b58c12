//! Root file systems of database engines, from Debian suites by mmdebstrap.

use std::path::Path;

use anyhow::Result;

use super::recipes::{Debian, Kind, Suite};
use super::{Config, Image, recipe_file};
use crate::cluster::cache::{self, Key};
use crate::cluster::sh;

/// Raised when the steps below change what comes out.
const VERSION: &str = "2";

pub(super) fn make(name: &str, recipe: &Debian) -> Result<Image> {
    let entrypoint = entrypoint(recipe.kind);
    let mut key =
        Key::default().text(VERSION).text(format!("{:?} {:?} {:?}", recipe.suite, recipe.packages, recipe.kind));
    if let Some(file) = entrypoint {
        key = key.file(&recipe_file(file)?)?;
    }
    super::from_rootfs(name, key, &config(recipe.kind), |tar| {
        let logs = cache::root()?.join("logs");
        std::fs::create_dir_all(&logs)?;
        let log = logs.join(format!("image-{}.log", recipe.name.replace(':', "-")));
        sh::logged(&mut mmdebstrap(recipe, entrypoint.map(recipe_file).transpose()?.as_deref(), tar), &log)
    })
}

fn mmdebstrap(recipe: &Debian, entrypoint: Option<&Path>, tar: &Path) -> std::process::Command {
    let mut packages = vec!["zstd", "jq", "procps"];
    packages.extend(recipe.packages);
    // cleanup/run would remove the engines' socket folders.
    let mut command = sh::command(
        "mmdebstrap",
        ["--variant=minbase", "--format=tar", "--skip=cleanup/run", "--aptopt=APT::Install-Recommends \"false\""],
    );
    command.arg(format!("--include={}", packages.join(",")));
    for unwanted in ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"] {
        command.arg(format!("--dpkgopt=path-exclude={unwanted}"));
    }
    if recipe.suite == Suite::Sid {
        // A frozen copy of sid has a Release file that is out of date.
        command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    }
    // The engines' users get the numbers their usual images have. Later package scripts find them and leave them alone.
    if let Some((user, uid, home)) = user(recipe.kind) {
        command.arg(format!("--essential-hook=echo '{user}:x:{uid}:' >> \"$1/etc/group\""));
        command.arg(format!("--essential-hook=echo '{user}:x:{uid}:{uid}::{home}:/bin/bash' >> \"$1/etc/passwd\""));
        command.arg(format!("--essential-hook=echo '{user}:*:19000:0:99999:7:::' >> \"$1/etc/shadow\""));
    }
    if matches!(recipe.kind, Kind::Postgres(_)) {
        // The container makes its own cluster.
        command.arg("--essential-hook=mkdir -p \"$1/etc/postgresql-common\"");
        command.arg(
            "--essential-hook=echo 'create_main_cluster = false' > \"$1/etc/postgresql-common/createcluster.conf\"",
        );
    }
    for hook in customize(recipe.kind) {
        command.arg(format!("--customize-hook={hook}"));
    }
    if let Some(file) = entrypoint {
        command.arg(format!(
            "--customize-hook=install -m 755 '{}' \"$1/usr/local/bin/docker-entrypoint.sh\"",
            file.display()
        ));
    }
    command.arg("--customize-hook=rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/* \"$1\"/var/log/*.log");
    command.arg(suite(recipe.suite)).arg(tar);
    command
}

fn suite(suite: Suite) -> &'static str {
    match suite {
        Suite::Bookworm => "bookworm",
        Suite::Trixie => "trixie",
        Suite::Sid => "sid",
    }
}

fn user(kind: Kind) -> Option<(&'static str, u32, &'static str)> {
    match kind {
        Kind::Postgres(_) => Some(("postgres", 999, "/var/lib/postgresql")),
        Kind::MariaDb | Kind::MySql => Some(("mysql", 999, "/var/lib/mysql")),
        Kind::Command(_) => None,
    }
}

fn customize(kind: Kind) -> Vec<String> {
    match kind {
        Kind::Postgres(major) => vec![
            // What initdb copies: a server in a container is of use only when others reach it.
            format!(
                "sed -ri \"s/^#?(listen_addresses)\\s*=.*/\\1 = '*'/\" \"$1/usr/share/postgresql/{major}/postgresql.conf.sample\""
            ),
            folders("3777", "/run/postgresql"),
            folders("1777", "/var/lib/postgresql/data"),
            folders("755", "/docker-entrypoint-initdb.d"),
        ],
        Kind::MariaDb | Kind::MySql => vec![
            // MySQL refuses to start without the folder it allows files to be read from.
            folders("750", "/var/lib/mysql-files"),
            folders("1777", "/var/lib/mysql /run/mysqld"),
            folders("755", "/docker-entrypoint-initdb.d"),
        ],
        Kind::Command(_) => vec![folders("1777", "/data")],
    }
}

/// Made from inside: links such as `/var/run` would lead out of the image otherwise.
fn folders(mode: &str, paths: &str) -> String {
    format!("chroot \"$1\" install -d -m {mode} -o 999 -g 999 {paths}")
}

fn entrypoint(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Postgres(_) => Some("postgres-entrypoint.sh"),
        Kind::MariaDb | Kind::MySql => Some("mysql-entrypoint.sh"),
        Kind::Command(_) => None,
    }
}

fn config(kind: Kind) -> Config {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    match kind {
        Kind::Postgres(major) => Config {
            entrypoint: words(&["docker-entrypoint.sh"]),
            cmd: words(&["postgres"]),
            env: vec![
                format!("PATH={path}:/usr/lib/postgresql/{major}/bin"),
                format!("PG_MAJOR={major}"),
                "PGDATA=/var/lib/postgresql/data".to_owned(),
                "LANG=C.UTF-8".to_owned(),
            ],
            // Fast shutdown: TERM would wait for every client to leave.
            stop_signal: "SIGINT".to_owned(),
            ..Config::default()
        },
        Kind::MariaDb | Kind::MySql => Config {
            entrypoint: words(&["docker-entrypoint.sh"]),
            cmd: words(&[if kind == Kind::MySql { "mysqld" } else { "mariadbd" }, "--user=mysql"]),
            env: vec![format!("PATH={path}")],
            ..Config::default()
        },
        Kind::Command(command) => {
            Config { cmd: words(command), env: vec![format!("PATH={path}")], ..Config::default() }
        }
    }
}
