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
    /// Removes what the last run left; not measured.
    pub clean: String,
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

/// Everything, in the order in which it runs: each pull finds what the push before it has stored.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for store in [Store::Local, Store::S3] {
        for data in [Data::Random, Data::Text] {
            for way in [Way::Push, Way::Pull] {
                let mut add = |name: &str, clean: &str, line: &str| {
                    let fill = |text: &str| text.replace("@D", &data.to_string()).replace("@S", &store.to_string());
                    cases.push(Case {
                        store,
                        data,
                        way,
                        name: name.to_owned(),
                        clean: if way == Way::Pull { "rm -f $COPY".to_owned() } else { fill(clean) },
                        line: fill(line),
                    });
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

/// What a file system can do.
fn files(way: Way, add: Add<'_>) {
    let clean = "rm -f $LOCAL/cat-@D $LOCAL/dd-@D $LOCAL/zst*-@D";
    match way {
        Way::Push => {
            add("cat", clean, "exec cat < $DATA/@D > $LOCAL/cat-@D");
            add("dd conv=fsync", clean, "exec dd bs=1M conv=fsync status=none if=$DATA/@D of=$LOCAL/dd-@D");
            add("zstd -1 -T0", clean, "exec zstd -q -1 -T0 < $DATA/@D > $LOCAL/zst1-@D");
            add("zstd -3 -T0", clean, "exec zstd -q -3 -T0 < $DATA/@D > $LOCAL/zst3-@D");
        }
        Way::Pull => {
            add("cat", clean, "exec cat < $LOCAL/cat-@D > $COPY");
            add("zstd -d", clean, "exec zstd -q -d < $LOCAL/zst3-@D > $COPY");
        }
    }
}

/// What an S3 server can do: one request, four at once on objects of their own, parts and ranges of one object.
fn clients(way: Way, add: Add<'_>) {
    match way {
        Way::Push => {
            let clean = "rm -rf $S3ROOT/bench/curl-@D* $S3ROOT/bench/parts-@D";
            add("curl -T", clean, "exec $CURL -T $DATA/@D $S3/curl-@D");
            let quarters = "for i in 0 1 2 3; do $CURL -T $DATA/@D.$i $S3/curl-@D.$i & done; wait";
            add("curl -T, 4 objects at once", clean, quarters);
            let parts = "exec $RCLONE --s3-chunk-size 8M --s3-upload-concurrency 4 --s3-disable-checksum copyto $DATA/@D s3:bench/parts-@D";
            add("rclone copyto, 4 parts at once", clean, parts);
        }
        Way::Pull => {
            add("curl", "", "exec $CURL -o $COPY $S3/curl-@D");
            let ranges = "exec $RCLONE --multi-thread-streams 4 copyto s3:bench/parts-@D $COPY";
            add("rclone copyto, 4 ranges at once", "", ranges);
        }
    }
}

fn movers(store: Store, way: Way, add: Add<'_>) {
    for (name, push, pull, encryption) in MODES {
        let object = format!("{}-@D", name.replace(", ", "-"));
        let clean = format!("rm -rf $LOCAL/{object}* $S3ROOT/bench/{object}*");
        let (conf, key) = (if store == Store::S3 { "-c $CONF" } else { "" }, "DATASAFED_ENCRYPTION_PASS_PHRASE=$KEY");
        let env = match *encryption {
            "" => String::new(),
            algorithm => format!("env DATASAFED_ENCRYPTION_ALGORITHM={algorithm} {key} "),
        };
        match way {
            Way::Push => add(name, &clean, &format!("exec {env}$MOVER {conf} push {push} - {object} < $DATA/@D")),
            Way::Pull => add(name, &clean, &format!("exec {env}$MOVER {conf} pull {pull} {object} - > $COPY")),
        }
    }
}

fn others(store: Store, way: Way, add: Add<'_>) {
    let (rclone, repository) = match store {
        Store::Local => ("$LOCAL/rclone-@D", "$LOCAL/restic-@D"),
        Store::S3 => ("s3:bench/rclone-@D", "s3:$URL/bench/restic-@D"),
    };
    let restic = format!("$RESTIC --no-cache -q -r {repository}");
    match way {
        Way::Push => {
            let clean = "rm -f $LOCAL/rclone-@D $S3ROOT/bench/rclone-@D";
            add("rclone rcat", clean, &format!("exec $RCLONE rcat {rclone} < $DATA/@D"));
            let clean = format!("rm -rf $LOCAL/restic-@D $S3ROOT/bench/restic-@D; {restic} init");
            let line = format!("exec {restic} backup --stdin --stdin-filename data < $DATA/@D");
            add("restic backup --stdin", &clean, &line);
        }
        Way::Pull => {
            add("rclone cat", "", &format!("exec $RCLONE cat {rclone} > $COPY"));
            add("restic dump", "", &format!("exec {restic} dump latest data > $COPY"));
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
                        target("mover", &["curl -T", "rclone copyto, 4 parts at once"], 0.9);
                    }
                    (Store::S3, Way::Pull) => {
                        target("mover", &["curl", "rclone copyto, 4 ranges at once"], 0.9);
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
