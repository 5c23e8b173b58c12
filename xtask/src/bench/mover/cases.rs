//! What is measured, and what it is measured against.

use std::fmt;

/// What the data is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// Does not compress.
    Random,
    /// Compresses about threefold.
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Local,
    S3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Push,
    Pull,
}

impl fmt::Display for Data {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Random => "random",
            Self::Text => "text",
        })
    }
}

impl fmt::Display for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Local => "local",
            Self::S3 => "s3",
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Push => "push",
            Self::Pull => "pull",
        })
    }
}

/// A program's run. The lines are the shell's, with the variables of [`super::site::Site::shell`].
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub store: Store,
    pub data: Data,
    pub way: Way,
    pub name: String,
    /// Comes first; not measured.
    pub before: String,
    pub line: String,
}

impl Case {
    pub(super) fn id(&self) -> String {
        id(self.store, self.data, self.way, &self.name)
    }
}

fn id(store: Store, data: Data, way: Way, name: &str) -> String {
    format!("{store} {data} {way}: {name}")
}

/// The mover's modes: name, flags of a push and a pull, environment.
const MODES: &[(&str, &str, &str, &str)] = &[
    ("mover", "", "", ""),
    ("mover, zstd-fastest", "-z zstd-fastest", "-d zstd", ""),
    ("mover, zstd", "-z zstd", "-d zstd", ""),
    ("mover, age", "", "", "age"),
    ("mover, zstd, age", "-z zstd", "-d zstd", "age"),
    ("mover, AES-256-CFB", "", "", "AES-256-CFB"),
    ("mover, zstd, AES-256-CFB", "-z zstd", "-d zstd", "AES-256-CFB"),
];

/// Everything, in the order in which it runs: a store begins empty for each kind of data, and each pull finds what the push
/// before it has stored.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for store in [Store::Local, Store::S3] {
        for data in [Data::Random, Data::Text] {
            for way in [Way::Push, Way::Pull] {
                let mut add = |name: &str, before: &str, line: &str| {
                    let line = line.replace("@D", &data.to_string());
                    cases.push(Case { store, data, way, name: name.to_owned(), before: before.to_owned(), line });
                };
                match store {
                    Store::Local => files(way, &mut add),
                    Store::S3 => clients(way, &mut add),
                }
                movers(store, way, &mut add);
                others(store, way, &mut add);
            }
        }
    }
    cases
}

type Add<'a> = &'a mut dyn FnMut(&str, &str, &str);

const NO_COPY: &str = "rm -f $COPY";

/// What a file system can do.
fn files(way: Way, add: Add<'_>) {
    match way {
        Way::Push => {
            add("cat", "", "exec cat < $DATA/@D > $LOCAL/cat");
            add("dd conv=fsync", "", "exec dd bs=1M conv=fsync status=none if=$DATA/@D of=$LOCAL/dd");
            add("zstd -1 -T0", "", "exec zstd -q -1 -T0 < $DATA/@D > $LOCAL/zstd-1");
            add("zstd -3 -T0", "", "exec zstd -q -3 -T0 < $DATA/@D > $LOCAL/zstd-3");
        }
        Way::Pull => {
            add("cat", NO_COPY, "exec cat < $LOCAL/cat > $COPY");
            add("zstd -d", NO_COPY, "exec zstd -q -d < $LOCAL/zstd-3 > $COPY");
        }
    }
}

/// What an S3 server can do for one object: in one request, and in parts or ranges.
fn clients(way: Way, add: Add<'_>) {
    match way {
        Way::Push => {
            add("curl -T", "", "exec $CURL -T $DATA/@D $S3/curl");
            let parts = "--s3-chunk-size 8M --s3-upload-concurrency 4 --s3-disable-checksum";
            add(PARTS, "", &format!("exec $RCLONE {parts} copyto $DATA/@D s3:bench/parts"));
        }
        Way::Pull => {
            add("curl", NO_COPY, "exec $CURL -o $COPY $S3/curl");
            add(RANGES, NO_COPY, "exec $RCLONE --multi-thread-streams 4 copyto s3:bench/parts $COPY");
        }
    }
}

const PARTS: &str = "rclone copyto, 4 parts at once";
const RANGES: &str = "rclone copyto, 4 ranges at once";

fn movers(store: Store, way: Way, add: Add<'_>) {
    for (name, push, pull, encryption) in MODES {
        let object = name.replace(", ", "-");
        // The variable wins over a configuration file, so it is set for the file system alone.
        let (mut env, conf) = match store {
            Store::Local => ("env DATASAFED_LOCAL_BACKEND_PATH=$LOCAL".to_owned(), ""),
            Store::S3 => ("env".to_owned(), "-c $CONF"),
        };
        if !encryption.is_empty() {
            env += &format!(" DATASAFED_ENCRYPTION_ALGORITHM={encryption} DATASAFED_ENCRYPTION_PASS_PHRASE=$KEY");
        }
        match way {
            Way::Push => add(name, "", &format!("exec {env} $MOVER {conf} push {push} - {object} < $DATA/@D")),
            Way::Pull => add(name, NO_COPY, &format!("exec {env} $MOVER {conf} pull {pull} {object} - > $COPY")),
        }
    }
}

fn others(store: Store, way: Way, add: Add<'_>) {
    let (rclone, repository) = match store {
        Store::Local => ("$LOCAL/rclone", "$LOCAL/restic"),
        Store::S3 => ("s3:bench/rclone", "s3:$URL/bench/restic"),
    };
    let restic = format!("$RESTIC --no-cache -q -r {repository}");
    match way {
        Way::Push => {
            add("rclone rcat", "", &format!("exec $RCLONE rcat {rclone} < $DATA/@D"));
            let line = format!("exec {restic} backup --stdin --stdin-filename data < $DATA/@D");
            add("restic backup --stdin", &format!("{restic} init"), &line);
        }
        Way::Pull => {
            add("rclone cat", NO_COPY, &format!("exec $RCLONE cat {rclone} > $COPY"));
            add("restic dump", NO_COPY, &format!("exec {restic} dump latest data > $COPY"));
        }
    }
}

/// A case that has to reach a part of the throughput of another; of the best one where several are named.
pub(super) struct Target {
    pub case: String,
    pub bases: Vec<String>,
    pub at_least: f64,
}

/// The figures that the mover is held to.
pub(super) fn targets() -> Vec<Target> {
    let mut targets = Vec::new();
    for store in [Store::Local, Store::S3] {
        for data in [Data::Random, Data::Text] {
            for way in [Way::Push, Way::Pull] {
                let mut target = |name: &str, bases: &[&str], at_least| {
                    let named = |name: &str| id(store, data, way, name);
                    let bases = bases.iter().map(|base| named(base)).collect();
                    targets.push(Target { case: named(name), bases, at_least });
                };
                let rclone = if way == Way::Push { "rclone rcat" } else { "rclone cat" };
                match (store, way) {
                    (Store::Local, Way::Push) => {
                        target("mover", &["cat"], 0.9);
                        target("mover", &["dd conv=fsync"], 0.9);
                        target("mover, zstd-fastest", &["zstd -1 -T0"], 0.9);
                        target("mover, zstd", &["zstd -3 -T0"], 0.9);
                    }
                    (Store::Local, Way::Pull) => {
                        target("mover", &["cat"], 0.9);
                        target("mover, zstd", &["zstd -d"], 0.9);
                    }
                    (Store::S3, Way::Push) => {
                        target("mover", &["curl -T", PARTS], 0.9);
                    }
                    (Store::S3, Way::Pull) => {
                        target("mover", &["curl", RANGES], 0.9);
                    }
                }
                target("mover", &[rclone], 1.5);
                // At most 25 % slower.
                target("mover, age", &["mover"], 1.0 / 1.25);
                target("mover, zstd, age", &["mover, zstd"], 1.0 / 1.25);
            }
        }
    }
    targets
}
