//! Recovery of a real server from the archived log: it ends where it was told to, or with an error, and never in between.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::archive::{Archiver, FLAGS, Scene, server, write, write_much};
use crate::common::postgres::Postgres;
use crate::common::{BIN, Endpoint, Run};

/// A server whose log is archived, and a base backup from before most of it.
struct Archived {
    server: Postgres,
    base: Postgres,
    scene: Scene,
    endpoint: Endpoint,
}

const CONTENT: &str = "select n from ledger order by n";

impl Archived {
    /// Between the base backup and the end of the archive lies what `work` does.
    fn new(work: &dyn Fn(&Postgres)) -> Option<Self> {
        let server = server()?;
        let (scene, endpoint) = (Scene::new(), Endpoint::start());
        let archiver = archive(&scene, &endpoint, &server);
        scene.wait(&|info| info["timeRange"]["end"].is_string());
        write(&server, 2);
        let base = server.base_backup(&[]);
        work(&server);
        scene.wait_stored(&server);
        assert_eq!(archiver.signal("TERM"), 0, "{}", scene.log());
        let archived = Self { server, base, scene, endpoint };
        archived.open_to_the_server();
        Some(archived)
    }

    /// The server's user may read the configuration and run the mover.
    fn open_to_the_server(&self) {
        let dir = self.scene.dir.path();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("store.conf"), format!("[storage]\n{}", self.endpoint.conf_lines(""))).unwrap();
        fs::copy(BIN, dir.join("datasafed")).unwrap();
    }

    fn fetch(&self, more: &str) -> String {
        let dir = self.scene.dir.path().display();
        format!("DATASAFED_BACKEND_BASE_PATH=/pg {dir}/datasafed postgres fetch-wal %f %p -c {dir}/store.conf {more}")
    }

    fn settings(&self, target: &str) -> String {
        format!("restore_command = '{}'\n{target}", self.fetch(""))
    }

    /// The stored object of the segment that a position lies in.
    fn object(&self, lsn: &str) -> PathBuf {
        let name = self.server.ask(&format!("select pg_walfile_name('{lsn}')"));
        let folder = self.endpoint.path("bucket/pg/wal/00000001");
        let found = fs::read_dir(folder).unwrap().flatten().map(|item| item.path());
        let mut found = found.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&name));
        found.next().unwrap()
    }

    /// A copy of the base backup does not come up, and says why.
    #[track_caller]
    fn refuses(&self, settings: &str, why: &str) {
        let copy = self.base.again();
        assert!(
            !copy.try_recover(settings),
            "it came up with {} rows\n{}",
            copy.ask(CONTENT).lines().count(),
            copy.log()
        );
        assert!(copy.log().contains(why), "{why:?} is not in\n{}", copy.log());
    }
}

fn archive(scene: &Scene, endpoint: &Endpoint, server: &Postgres) -> Archiver {
    let _ = fs::remove_file(scene.info_file());
    Archiver(scene.with(endpoint.mover(&FLAGS[..5]), server).spawn_logged(&scene.dir.path().join("log")))
}

/// The mover's answer to a server's question: exit code and last line.
fn asked(archived: &Archived, name: &str, target: &Path) -> (i32, String) {
    let run = archived.endpoint.mover(&["postgres", "fetch-wal", name, target.to_str().unwrap()]);
    let (code, _, stderr) = run.env("DATASAFED_BACKEND_BASE_PATH", "/pg").output();
    (code, stderr.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn recovery_ends_at_each_kind_of_target_exactly() {
    let Some(archived) = Archived::new(&|server| {
        write_much(server);
        write(server, 5);
        server.ask("select pg_create_restore_point('here')");
        write(server, 5);
        server.ask("select pg_switch_wal()");
        write(server, 3);
    }) else {
        return;
    };
    let server = &archived.server;
    let rows = |condition: &str| server.ask(&format!("select n from ledger where {condition} order by n"));
    let of = |n: &str, what: &str| server.ask(&format!("select {what} from ledger where n = {n}"));
    let last: i64 = server.ask("select max(n) from ledger").parse().unwrap();
    // Five behind the restore point, of which three lie in another segment.
    let target = (last - 9).to_string();
    let time = of(&target, "pg_xact_commit_timestamp(xmin)");
    let xid = of(&target, "xmin");
    let exclusive = "recovery_target_inclusive = off";
    let to_target = rows(&format!("n <= {target}"));
    let before = rows(&format!("n < {target}"));
    let cases = [
        (format!("recovery_target_time = '{time}'"), to_target.clone()),
        (format!("recovery_target_time = '{time}'\n{exclusive}"), before.clone()),
        (format!("recovery_target_xid = '{xid}'"), to_target),
        (format!("recovery_target_xid = '{xid}'\n{exclusive}"), before),
        ("recovery_target_name = 'here'".to_owned(), rows(&format!("n <= {}", last - 8))),
        ("recovery_target = 'immediate'".to_owned(), rows("n <= 2")),
        (String::new(), rows("true")),
    ];
    for (target, wanted) in cases {
        let copy = archived.base.again();
        copy.recover(&archived.settings(&target));
        assert_eq!(copy.ask(CONTENT), wanted, "{target}\n{}", copy.log());
    }
    archived.refuses(
        &archived.settings("recovery_target_time = '2200-01-01 00:00:00+00'"),
        "before configured recovery target",
    );
}

#[test]
fn recovery_to_a_position_keeps_what_was_committed_before_it() {
    let positions = std::cell::RefCell::new(Vec::new());
    let Some(archived) = Archived::new(&|server| {
        for _ in 0..3 {
            write_much(server);
            write(server, 1);
            let seen = server.ask("select max(n), pg_current_wal_insert_lsn() from ledger");
            let (row, lsn) = seen.split_once('|').unwrap();
            positions.borrow_mut().push((row.to_owned(), lsn.to_owned()));
        }
        // A position is reached by a record that begins at it or later.
        write(server, 1);
    }) else {
        return;
    };
    for (row, lsn) in positions.into_inner() {
        for inclusive in ["on", "off"] {
            let copy = archived.base.again();
            let target = format!("recovery_target_lsn = '{lsn}'\nrecovery_target_inclusive = {inclusive}");
            // With a catalogue, which must not change anything.
            let kept = format!("--catalogue {}", copy.data().join("catalogue").display());
            copy.recover(&format!("restore_command = '{}'\n{target}", archived.fetch(&kept)));
            assert_eq!(copy.ask("select max(n) from ledger"), row, "{target}\n{}", copy.log());
            assert!(copy.data().join("catalogue").exists());
        }
    }
}

#[test]
fn a_store_that_dies_ends_recovery_with_an_error() {
    let Some(archived) = Archived::new(&|server| {
        for _ in 0..3 {
            write_much(server);
        }
    }) else {
        return;
    };
    let lsn = archived.server.ask("select max(pg_current_wal_lsn()) - 5 * 1024 * 1024");
    let name = archived.server.ask(&format!("select pg_walfile_name('{lsn}')"));
    let copy = archived.base.again();
    let (reached, dead) = (copy.data().join("reached"), copy.data().join("dead"));
    // At that segment it waits until the store is dead.
    let wait = format!(
        "if test %f = {name}; then touch {}; until test -e {}; do sleep 0.1; done; fi; ",
        reached.display(),
        dead.display()
    );
    let settings = format!("restore_command = '{wait}{}'", archived.fetch(""));
    let recovered = std::thread::scope(|scope| {
        let recovery = scope.spawn(|| copy.try_recover(&settings));
        let began = Instant::now();
        while !reached.exists() {
            assert!(began.elapsed() < Duration::from_secs(30), "{}", copy.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        archived.endpoint.kill();
        fs::write(&dead, "").unwrap();
        recovery.join().unwrap()
    });
    assert!(!recovered, "{}", copy.log());
    assert!(copy.log().contains("recovery must not go on"), "{}", copy.log());
}

#[test]
fn log_that_is_not_what_its_name_says_is_refused_and_a_hole_is_not_the_end() {
    let positions = std::cell::RefCell::new(Vec::new());
    let Some(archived) = Archived::new(&|server| {
        for _ in 0..3 {
            write_much(server);
            positions.borrow_mut().push(server.ask("select pg_current_wal_lsn() - 1024 * 1024"));
        }
    }) else {
        return;
    };
    let settings = archived.settings("");
    let [first, second, _] = &positions.into_inner()[..] else { panic!("three") };
    let (object, other) = (archived.object(second), archived.object(first));
    let (whole, foreign) = (fs::read(&object).unwrap(), fs::read(&other).unwrap());
    let mut log = zstd::decode_all(&whole[..]).unwrap();
    log[500_000] ^= 1;
    let flipped = zstd::encode_all(&log[..], 1).unwrap();
    let cut = zstd::encode_all(&log[..400_000], 1).unwrap();
    log[400_000..].fill(0);
    let emptied = zstd::encode_all(&log[..], 1).unwrap();
    for (content, why) in [
        (&flipped, "is damaged"),
        (&foreign, "the page says that it is at"),
        (&cut, "it has 400000 bytes"),
        (&emptied, "is damaged"),
        (&whole[..whole.len() / 2].to_vec(), "cannot be fetched"),
    ] {
        fs::write(&object, content).unwrap();
        archived.refuses(&settings, why);
    }
    // What was cut off does not become the last one by its name, either.
    fs::remove_file(&object).unwrap();
    archived.refuses(&settings, "which goes on behind it");
    let name = object.file_name().unwrap().to_str().unwrap();
    let begun = object.with_file_name(format!("{}.partial.zst", &name[..24]));
    fs::write(&begun, &emptied).unwrap();
    archived.refuses(&settings, "which goes on behind it");
    fs::remove_file(&begun).unwrap();
    fs::write(&object, &whole).unwrap();
    // Of two by one name the one that is good serves.
    fs::write(object.with_file_name(format!("{}~1~1.zst", &name[..24])), &flipped).unwrap();
    let copy = archived.base.again();
    copy.recover(&settings);
    assert_eq!(copy.ask(CONTENT), archived.server.ask(CONTENT));
}

#[test]
fn what_is_missing_and_what_cannot_be_told_have_different_exit_codes() {
    let Some(mut archived) = Archived::new(&write_much) else { return };
    let target = archived.scene.dir.path().join("RECOVERYXLOG");
    let nothing = |why: &str, (code, told): (i32, String), wanted: i32| {
        assert_eq!(code, wanted, "{why}: {told}");
        assert!(!target.exists(), "{why}");
        told
    };
    let ask = |archived: &Archived, name: &str| asked(archived, name, &target);
    for name in ["0000000100000000000000FF", "00000002.history", "000000010000000000000005.00000028.backup"] {
        let told = nothing(name, ask(&archived, name), 1);
        assert_eq!(told, format!("Error: {name} is not in the repository"));
    }
    nothing("a name that no server has", ask(&archived, "x.history"), 126);
    let name = archived.server.ask("select pg_walfile_name(pg_current_wal_lsn())");
    let mark = fs::read_dir(archived.endpoint.path("bucket/pg/wal")).unwrap().flatten().map(|item| item.path());
    let mark = mark.into_iter().find(|path| path.to_str().unwrap().contains("cluster-")).unwrap();
    let second = mark.with_file_name("cluster-1-1048576");
    fs::write(&second, "").unwrap();
    nothing("two clusters' log", ask(&archived, &name), 126);
    fs::remove_file(&mark).unwrap();
    let told = nothing("another cluster's log", ask(&archived, &name), 126);
    assert!(told.contains("it belongs to the cluster"), "{told}");
    fs::remove_file(&second).unwrap();
    let told = nothing("no archive", ask(&archived, &name), 126);
    assert!(told.contains("there is no archived log"), "{told}");
    nothing("no archive to have a history", ask(&archived, "00000002.history"), 126);
    fs::write(&mark, "").unwrap();
    for args in [&["postgres", "fetch-wal", &name][..], &["postgres", "fetch-wal", "--bad", &name, "x"]] {
        assert_eq!(archived.endpoint.mover(args).output().0, 126, "{args:?}");
    }
    assert_eq!(Run::new(&["postgres", "fetch-wal", &name, "x", "-c", "/nonexistent"]).output().0, 126);
    archived.endpoint.kill();
    nothing("a dead store", ask(&archived, &name), 126);
    nothing("a dead store", ask(&archived, "00000002.history"), 126);
    archived.endpoint.start_again();
    assert_eq!(ask(&archived, &name), (0, String::new()));
    assert_eq!(fs::metadata(&target).unwrap().len(), 1 << 20);
    let left = fs::read_dir(archived.scene.dir.path()).unwrap().flatten().map(|item| item.file_name());
    let left: Vec<_> = left.filter(|name| name.to_str().unwrap().starts_with(".kbbackup")).collect();
    assert!(left.is_empty(), "{left:?}");
}
