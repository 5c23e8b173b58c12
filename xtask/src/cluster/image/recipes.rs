//! The images there are, one line each.

use super::ProgramImage;
use crate::cluster::go;

/// No registry answers to this name, so a pod never gets another image by accident.
pub(crate) const PREFIX: &str = "kbbackup.test/";

/// A database engine from a Debian suite.
pub(crate) struct Debian {
    /// Name and tag without the prefix.
    pub name: &'static str,
    pub suite: Suite,
    pub packages: &'static [&'static str],
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Suite {
    Bookworm,
    Trixie,
    Sid,
}

/// What a container of the image does when nobody says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Makes a cluster from `POSTGRES_*` on first start and runs it; the number is the major version.
    Postgres(&'static str),
    /// Makes a data folder from `MYSQL_*`/`MARIADB_*` on first start and runs it.
    MariaDb,
    MySql,
    /// Runs this command.
    Command(&'static [&'static str]),
}

/// Static programs, alone in their image.
pub(crate) const PROGRAMS: &[ProgramImage] = &[
    ProgramImage { name: "pause:1", program: go::PAUSE },
    ProgramImage { name: "coredns:1.15.0", program: go::COREDNS },
    ProgramImage { name: "versitygw:1.8.0", program: go::VERSITYGW },
    ProgramImage { name: "rclone:1.76.0", program: go::RCLONE },
];

const fn debian(name: &'static str, suite: Suite, packages: &'static [&'static str], kind: Kind) -> Debian {
    Debian { name, suite, packages, kind }
}

const REDIS: Kind = Kind::Command(&["redis-server", "--bind", "*", "--protected-mode", "no", "--dir", "/data"]);
const VALKEY: Kind = Kind::Command(&["valkey-server", "--bind", "*", "--protected-mode", "no", "--dir", "/data"]);
const ETCD: Kind = Kind::Command(&["etcd", "--data-dir", "/data"]);

/// Engines. Every image also has `zstd` and `jq`, which backup scripts use.
#[rustfmt::skip]
pub(crate) const DEBIAN: &[Debian] = &[
    debian("postgres:15", Suite::Bookworm, &["postgresql-15"], Kind::Postgres("15")),
    debian("postgres:17", Suite::Trixie, &["postgresql-17"], Kind::Postgres("17")),
    debian("postgres:18", Suite::Sid, &["postgresql-18"], Kind::Postgres("18")),
    debian("mariadb:10.11", Suite::Bookworm, &["mariadb-server-core", "mariadb-client", "mariadb-backup"], Kind::MariaDb),
    debian("mariadb:11.8", Suite::Trixie, &["mariadb-server-core", "mariadb-client", "mariadb-backup"], Kind::MariaDb),
    debian("mysql:9.7", Suite::Sid, &["mysql-server-core", "mysql-client-core"], Kind::MySql),
    debian("redis:7.0", Suite::Bookworm, &["redis-server", "redis-tools"], REDIS),
    debian("redis:8.0", Suite::Trixie, &["redis-server", "redis-tools"], REDIS),
    debian("valkey:8.1", Suite::Trixie, &["valkey-server", "valkey-tools"], VALKEY),
    debian("valkey:9.1", Suite::Sid, &["valkey-server", "valkey-tools"], VALKEY),
    debian("etcd:3.5", Suite::Trixie, &["etcd-server", "etcd-client"], ETCD),
];
