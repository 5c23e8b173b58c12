//! The archiver of `MariaDB`'s log against a real server, and what a restore gets of it: everything that is said to be reachable is
//! reached, exactly, and what is not all there is refused.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::archive::{self, Archiver};
use crate::common::mariadb::{MariaDb, OWNER, PASSWORD, USER, installed};
use crate::common::{Endpoint, Run, not_tried};
use serde_json::Value;

const FLAGS: [&str; 5] = ["mysql", "archive", "--server-id=4000000001", "--partial-seconds=1", "--heartbeat-seconds=1"];
const CONTENT: &str = "select n from app.ledger order by n";

/// A repository of files, and an archiver's folder.
struct Scene(archive::Scene);

impl Deref for Scene {
    type Target = archive::Scene;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn server() -> Option<MariaDb> {
    let Some(bin) = installed() else {
        not_tried("no MariaDB is installed");
        return None;
    };
    Some(MariaDb::create(&bin))
}

fn write(server: &MariaDb, rows: usize) {
    for _ in 0..rows {
        server.ask("insert into app.ledger (pad) values (repeat('x', 200))");
    }
}

/// A new file, and rows in it.
fn rotate(server: &MariaDb) {
    server.ask("flush local binary logs");
    write(server, 3);
}

impl Scene {
    fn new() -> Self {
        Self(archive::Scene::new())
    }

    fn with(&self, run: Run, server: &MariaDb) -> Run {
        run.env("DP_DB_HOST", "127.0.0.1")
            .env("DP_DB_PORT", server.port.to_string())
            .env("DP_DB_USER", USER)
            .env("DP_DB_PASSWORD", PASSWORD)
            .env("DP_BACKUP_INFO_FILE", self.dir.path().join("backup.info"))
            .env("DATASAFED_BACKEND_BASE_PATH", "/db")
            .env("TMPDIR", self.dir.path())
    }

    fn run(&self, server: &MariaDb) -> Run {
        let conf = self.conf();
        self.with(Run::new(&[&FLAGS[..], &["-c", &conf]].concat()), server)
    }

    fn archive(&self, server: &MariaDb) -> Archiver {
        let _ = fs::remove_file(self.dir.path().join("backup.info"));
        Archiver(self.run(server).spawn_logged(&self.dir.path().join("log")))
    }

    /// Waits until everything that the server has written is stored.
    #[track_caller]
    fn wait_stored(&self, server: &MariaDb) {
        let (place, _) = server.place();
        self.wait(&|info| reaches(info, &place));
    }

    /// Archives for a moment.
    fn archive_once(&self, server: &MariaDb) {
        let archiver = self.archive(server);
        self.wait_stored(server);
        assert_eq!(archiver.signal("TERM"), 0, "{}", self.log());
    }

    /// The stored objects by the name of their log file.
    fn objects(&self) -> BTreeMap<String, PathBuf> {
        let found = fs::read_dir(self.repo().join("db/binlog")).unwrap().flatten().map(|item| item.path());
        let named = |path: PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            name.starts_with("binlog.").then(|| (name.split('~').next().unwrap().to_owned(), path))
        };
        found.filter_map(named).collect()
    }

    fn fetch(&self, base: &Base, target: &[&str]) -> Run {
        let into = self.dir.path().join("fetched");
        let _ = fs::remove_dir_all(&into);
        let (from, gtid) = (format!("--from={}", base.place), format!("--from-gtid={}", base.gtid));
        let conf = self.conf();
        let args =
            [&["mysql", "fetch-binlogs", &from, &gtid, "-c", &conf][..], target, &[into.to_str().unwrap()]].concat();
        Run::new(&args).env("DATASAFED_BACKEND_BASE_PATH", "/db").env("TMPDIR", self.dir.path())
    }

    /// Replays what was fetched on a copy of the base; gives the copy and the GTID that the plan says.
    #[track_caller]
    fn replay(&self, base: &Base, target: &[&str]) -> (MariaDb, String) {
        let plan = self.fetch(base, target).succeeds_with_text();
        let all = |name: &str| -> Vec<String> {
            plan.lines().filter_map(|line| line.strip_prefix(&format!("{name} "))).map(str::to_owned).collect()
        };
        let copy = base.copy.again();
        copy.option("--gtid-strict-mode=ON");
        copy.start();
        let files = all("file");
        if !files.is_empty() {
            let mut reader = Command::new("mariadb-binlog");
            reader.args(["--no-defaults", &format!("--start-position={}", all("start")[0])]);
            // A place is a place wherever the clock hangs.
            reader.arg(format!("--stop-position={}", all("stop")[0])).args(&files).env("TZ", "Pacific/Kiritimati");
            let mut reader = reader.stdout(Stdio::piped()).spawn().unwrap();
            let client = copy.client().arg("--binary-mode").stdin(reader.stdout.take().unwrap()).output().unwrap();
            assert!(client.status.success(), "{plan}{}", String::from_utf8_lossy(&client.stderr));
            assert!(reader.wait().unwrap().success(), "{plan}");
        }
        (copy, all("gtid")[0].clone())
    }
}

/// Whether everything before a place is stored.
fn reaches(info: &Value, place: &str) -> bool {
    let read = |text: &str| text.split_once(':').map(|(file, at)| (file.to_owned(), at.parse::<u64>().unwrap()));
    read(info["extras"][0]["end_binlog"].as_str().unwrap_or_default()) >= read(place)
}

/// A copy of a server, and where its log was.
struct Base {
    copy: MariaDb,
    place: String,
    gtid: String,
}

impl Base {
    fn of(server: &MariaDb) -> Self {
        let copy = server.copy();
        // A server that starts begins a new file, with the transactions of the old one behind it.
        let (place, gtid) = server.place();
        Self { copy, place, gtid }
    }
}

fn unix(info: &Value) -> i64 {
    let end = info["timeRange"]["end"].as_str().unwrap_or("1970-01-01T00:00:00Z");
    let said = Command::new("date").args(["-u", "+%s", "-d", end]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().parse().unwrap()
}

/// Waits for a second that is over, and gives it.
fn tick(server: &MariaDb) -> i64 {
    let now = || server.ask("select unix_timestamp()").parse::<i64>().unwrap();
    let then = now();
    while now() == then {
        std::thread::sleep(Duration::from_millis(50));
    }
    then
}

#[test]
fn what_is_said_to_be_reachable_is_reached_exactly_whoever_was_killed() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let base = Base::of(&server);
    let mut archiver = scene.archive(&server);
    for round in 0..6 {
        write(&server, 5);
        if round % 2 == 0 {
            rotate(&server);
        }
        archiver.signal(if round % 3 == 0 { "TERM" } else { "KILL" });
        write(&server, 3);
        if round == 3 {
            server.stop("KILL");
            server.start();
        }
        archiver = scene.archive(&server);
        scene.wait_stored(&server);
    }
    let last = server.ask(CONTENT);
    let time = tick(&server);
    scene.wait(&|info| unix(info) >= time);
    write(&server, 3);
    scene.wait_stored(&server);
    assert_eq!(archiver.signal("TERM"), 0, "{}", scene.log());
    let info = scene.info();
    assert_eq!(info["extras"].as_array().unwrap().len(), 1, "no gaps: {info}");

    let (copy, gtid) = scene.replay(&base, &[&format!("--to-time={time}")]);
    assert_eq!(copy.ask(CONTENT), last);
    assert_eq!(copy.ask("select @@gtid_binlog_pos"), gtid);
    let (copy, gtid) = scene.replay(&base, &["--latest"]);
    assert_eq!(copy.ask(CONTENT), server.ask(CONTENT));
    assert_eq!(
        (server.place().1.as_str(), gtid.as_str()),
        (gtid.as_str(), info["extras"][0]["end_gtid"].as_str().unwrap())
    );

    // The server's own files, byte by byte, but for the flag that one of them is being written.
    for (name, object) in scene.objects() {
        let stored = zstd::decode_all(&fs::read(object).unwrap()[..]).unwrap();
        let mut own = fs::read(server.data().join(&name)).unwrap();
        own[4 + 17] &= !1;
        assert!(own.starts_with(&stored), "{name}");
    }
}

#[test]
fn each_kind_of_target_is_met_exactly() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    server.ask("create table app.other (n int)");
    let base = Base::of(&server);
    let archiver = scene.archive(&server);
    write(&server, 2);
    let (place, gtid) = server.place();
    let two = server.ask(CONTENT);
    // Inside of a long transaction: it begins before the target, and is committed behind it.
    let mut long = server.client();
    long.arg("--execute=begin; insert into app.ledger (pad) values ('long'); do sleep(8); commit");
    let mut long = long.spawn().unwrap();
    while server.ask("select count(*) from information_schema.innodb_trx where trx_rows_modified > 0") == "0" {
        // Who asks more often than ten times a second is told the same again.
        std::thread::sleep(Duration::from_millis(300));
    }
    tick(&server);
    write(&server, 1);
    let (within, inside) = (server.ask(CONTENT), tick(&server));
    assert!(!within.contains("\n3\n"), "the long one is not committed: {within}");
    let alter = server.ask("alter table app.other add column more int; select @@last_gtid");
    let at_ddl = tick(&server);
    long.wait().unwrap();
    rotate(&server);
    let (border, _) = server.place();
    let upto = server.ask(CONTENT);
    rotate(&server);
    scene.wait_stored(&server);
    archiver.signal("TERM");
    let columns = "select count(*) from information_schema.columns where table_schema = 'app'";
    for (target, wanted, width) in [
        (vec![format!("--to-gtid={gtid}")], &two, "3"),
        (vec![format!("--to-position={place}")], &two, "3"),
        (vec![format!("--to-time={inside}")], &within, "3"),
        (vec![format!("--to-gtid={alter}"), "--exclusive".to_owned()], &within, "3"),
        (vec![format!("--to-gtid={alter}")], &within, "4"),
        (vec![format!("--to-time={at_ddl}")], &within, "4"),
        (vec![format!("--to-position={border}")], &upto, "4"),
        (vec![format!("--to-position={}:4", "binlog.000004")], &upto, "4"),
    ] {
        let words: Vec<&str> = target.iter().map(String::as_str).collect();
        let (copy, gtid) = scene.replay(&base, &words);
        assert_eq!(copy.ask(CONTENT), *wanted, "{target:?}");
        assert_eq!(copy.ask(columns), width, "{target:?}");
        assert_eq!(copy.ask("select @@gtid_binlog_pos"), gtid, "{target:?}");
    }
    // Nothing to replay; and times before and behind everything.
    let plan = scene.fetch(&base, &[&format!("--to-position={}", base.place)]).succeeds_with_text();
    assert!(plan.contains(&format!("gtid {}\n", base.gtid)) && !plan.contains("file "), "{plan}");
    let told = scene.fetch(&base, &["--to-time=1000000000"]).fails();
    assert!(told.contains("the target lies before the base backup"), "{told}");
    let told = scene.fetch(&base, &["--to-time=4102444800"]).fails();
    assert!(
        told.contains("the archive ends before the target") && told.contains("what can be reached is from"),
        "{told}"
    );
    let told = scene.fetch(&base, &["--to-gtid=0-1-999999"]).fails();
    assert!(told.contains("the archive ends before the target"), "{told}");
    assert!(scene.fetch(&base, &["--latest", "--to-time=1"]).fails().contains("exactly one of"));
}

#[test]
fn a_quiet_server_s_window_goes_on() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let base = Base::of(&server);
    let archiver = scene.archive(&server);
    write(&server, 2);
    let last = server.ask(CONTENT);
    let quiet = tick(&server);
    std::thread::sleep(Duration::from_secs(3));
    scene.wait(&|info| unix(info) > quiet + 1);
    assert_eq!(archiver.signal("TERM"), 0);
    let (copy, _) = scene.replay(&base, &[&format!("--to-time={}", quiet + 1)]);
    assert_eq!(copy.ask(CONTENT), last);
    // Without the clock the same time is not known to be over.
    fs::remove_file(scene.repo().join("db/binlog/clock")).unwrap();
    let told = scene.fetch(&base, &[&format!("--to-time={}", quiet + 1)]).fails();
    assert!(told.contains("may go on with more of the same second"), "{told}");
}

/// Files 2 to 6 of a server, and one that is being written.
fn archived(server: &MariaDb, scene: &Scene) -> Base {
    let base = Base::of(server);
    let archiver = scene.archive(server);
    scene.wait(&|info| info["extras"][0]["end_binlog"].is_string());
    for _ in 0..4 {
        write(server, 2);
        std::thread::sleep(Duration::from_millis(1100));
        rotate(server);
    }
    scene.wait_stored(server);
    assert_eq!(archiver.signal("TERM"), 0, "{}", scene.log());
    base
}

#[test]
fn an_object_that_is_damaged_ends_what_can_be_reached_there() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let base = archived(&server, &scene);
    let objects = scene.objects();
    let names: Vec<&String> = objects.keys().collect();
    let path = |at: usize| objects[names[at]].clone();
    let good = |at: usize| fs::read(path(at)).unwrap();
    // The state with which a file begins is reached whatever becomes of the file.
    let before = |at: usize| format!("--to-position={}:4", names[at]);
    let behind = |at: usize| format!("--to-position={}:4", names[at + 1]);
    let (third, fourth) = (good(2), good(3));
    let flipped = {
        let mut bytes = zstd::decode_all(&third[..]).unwrap();
        let last = bytes.len() - 8;
        bytes[last] ^= 1;
        zstd::encode_all(&bytes[..], 1).unwrap()
    };
    let cut = zstd::encode_all(&zstd::decode_all(&third[..]).unwrap()[..700], 1).unwrap();
    for (what, bytes, why) in [
        ("swapped with its neighbour", Some(fourth.as_slice()), "where the file before it ended"),
        ("cut in the store", Some(&third[..third.len() / 2]), "cannot be reached"),
        ("cut before it was stored", Some(cut.as_slice()), "in the middle of an event"),
        ("one bit", Some(flipped.as_slice()), "check sum"),
        ("removed", None, "it is missing from the archive, which goes on behind it"),
    ] {
        match bytes {
            Some(bytes) => fs::write(path(2), bytes).unwrap(),
            None => fs::remove_file(path(2)).unwrap(),
        }
        let told = scene.fetch(&base, &[&behind(2)]).fails();
        assert!(told.contains(why) && told.contains(names[2]), "{what}: {told}");
        assert!(told.contains("what can be reached is"), "{what}: {told}");
        scene.fetch(&base, &[&before(2)]).succeeds();
        fs::write(path(2), &third).unwrap();
        scene.fetch(&base, &[&behind(2)]).succeeds();
    }
    // Twice, once damaged: the good one serves, in whatever order they are listed.
    for stranger in ["0000000000000000", "ffffffffffffffff"] {
        let name = path(2).file_name().unwrap().to_str().unwrap().to_owned();
        let (front, _) = name.rsplit_once('~').unwrap();
        let twin = path(2).with_file_name(format!("{front}~{stranger}.zst"));
        fs::write(&twin, &flipped).unwrap();
        scene.fetch(&base, &[&behind(2)]).succeeds();
        fs::remove_file(twin).unwrap();
    }
    // Nobody takes the beginning of a file for the file.
    let beginning = path(2).with_file_name(format!("{}~x.partial.zst", names[2]));
    fs::rename(path(2), &beginning).unwrap();
    let told = scene.fetch(&base, &[&behind(2)]).fails();
    assert!(told.contains("it is missing from the archive"), "{told}");
    fs::rename(&beginning, path(2)).unwrap();

    // A base of another time or another server.
    let stranger = |place: &str, gtid: &str| Base { copy: base.copy.again(), place: place.into(), gtid: gtid.into() };
    let told = scene.fetch(&stranger(&base.place, "0-1-1"), &["--latest"]).fails();
    assert!(told.contains("and the base backup says 0-1-1"), "{told}");
    let told = scene.fetch(&stranger("binlog.000099:4", &base.gtid), &["--latest"]).fails();
    assert!(told.contains("is not in the archive"), "{told}");
    let told = scene.fetch(&stranger("other.000002:4", &base.gtid), &["--latest"]).fails();
    assert!(told.contains("cannot be reached") || told.contains("is not in the archive"), "{told}");
}

#[test]
fn a_hole_is_told_and_filled_while_the_server_can() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let base = archived(&server, &scene);
    let objects = scene.objects();
    let third = objects.values().nth(2).unwrap();
    let good = fs::read(third).unwrap();
    let is_gap = |info: &Value| info["extras"][1]["gapStart"].is_string();
    // The server still has it.
    fs::remove_file(third).unwrap();
    scene.archive_once(&server);
    assert_eq!(fs::read(third).unwrap(), good);
    assert!(!is_gap(&scene.info()), "{}", scene.info());
    scene.fetch(&base, &["--latest"]).succeeds();
    // It has not any more.
    fs::remove_file(third).unwrap();
    let name = objects.keys().nth(4).unwrap();
    server.ask(&format!("purge binary logs to '{name}'"));
    write(&server, 1);
    scene.archive_once(&server);
    let info = scene.info();
    assert!(is_gap(&info) && info["extras"].as_array().unwrap().len() == 2, "{info}");
    assert!(info["extras"][1]["gapEnd"].as_str() <= info["timeRange"]["end"].as_str(), "{info}");
}

#[test]
fn log_that_was_purged_before_it_was_stored_is_a_gap() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let archiver = scene.archive(&server);
    write(&server, 1);
    scene.wait_stored(&server);
    rotate(&server);
    scene.wait_stored(&server);
    archiver.signal("TERM");
    for _ in 0..3 {
        rotate(&server);
        std::thread::sleep(Duration::from_millis(1100));
    }
    let (place, _) = server.place();
    server.ask(&format!("purge binary logs to '{}'", place.split(':').next().unwrap()));
    scene.archive_once(&server);
    let info = scene.info();
    assert!(info["extras"][1]["gapStart"].is_string(), "{info}");
    assert!(scene.log().contains("which the server has purged"), "{}", scene.log());
}

#[test]
fn another_server_s_log_is_refused_however_alike() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let base = Base::of(&server);
    write(&server, 2);
    scene.archive_once(&server);
    let other = base.copy.again();
    other.option("--server-id=2");
    other.start();
    let told = scene.run(&other).fails();
    assert!(told.contains("holds the log of another server (server-0-1-binlog)"), "{told}");
    drop(other);

    // The same server, restored: it has begun to count anew, and then gets as far.
    let other = base.copy.again();
    other.start();
    let told = scene.run(&other).fails();
    assert!(told.contains("its log was begun anew"), "{told}");
    for _ in 0..5 {
        rotate(&other);
    }
    let told = scene.run(&other).fails();
    assert!(told.contains("does not go on where the file before it ended"), "{told}");
    drop(other);
    scene.archive_once(&server);
    server.ask("reset master");
    let told = scene.run(&server).fails();
    assert!(told.contains("its log was begun anew"), "{told}");
}

#[test]
fn a_dead_store_loses_nothing_and_two_archivers_are_one_too_many() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let mut endpoint = Endpoint::start();
    let run = |endpoint: &Endpoint| scene.with(endpoint.mover(&FLAGS), &server);
    let archiver = Archiver(run(&endpoint).spawn_logged(&scene.dir.path().join("log")));
    write(&server, 2);
    scene.wait_stored(&server);
    endpoint.kill();
    for _ in 0..3 {
        rotate(&server);
    }
    std::thread::sleep(Duration::from_secs(2));
    endpoint.start_again();
    scene.wait_stored(&server);
    assert_eq!(scene.info()["extras"].as_array().unwrap().len(), 1, "no gaps: {}", scene.info());
    // The server ends the older stream of two with one id; whoever stores, the files are the same.
    let second = Archiver(run(&endpoint).spawn_logged(&scene.dir.path().join("log")));
    std::thread::sleep(Duration::from_secs(2));
    rotate(&server);
    rotate(&server);
    scene.wait_stored(&server);
    scene.wait(&|_| scene.log().contains("next try in"));
    assert_eq!(scene.info()["extras"].as_array().unwrap().len(), 1);
    second.signal("TERM");
    archiver.signal("KILL");
}

#[test]
fn refusals_name_the_cause_and_no_password() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let told = scene.run(&server).env("DP_DB_PASSWORD", "battery-staple").fails();
    assert!(told.contains("Access denied for user") && !told.contains("battery"), "{told}");
    let verify = [&FLAGS[..], &["--tls=verify", "-c"]].concat();
    let conf = scene.conf();
    let told = scene.with(Run::new(&[&verify[..], &[&conf]].concat()), &server).fails();
    assert!(told.contains("the server has no TLS") || told.contains("TLS:"), "{told}");
    for (right, needed) in
        [("binlog monitor", "REPLICATION SLAVE is needed"), ("replication slave", "BINLOG MONITOR is needed")]
    {
        server.ask("create or replace user 'plain'@'%' identified by 'correct-horse'");
        server.ask(&format!("grant {right} on *.* to 'plain'@'%'"));
        let told = scene.run(&server).env("DP_DB_USER", "plain").fails();
        assert!(told.contains(needed), "{told}");
    }
    // The plugin is in another package than the server.
    let has_ed25519 = server.try_ask("install soname 'auth_ed25519'").is_some();
    let proof = if has_ed25519 { "via ed25519 using password('correct-horse')" } else { "by 'correct-horse'" };
    server.ask(&format!("create user 'modern'@'%' identified {proof}"));
    server.ask("grant binlog monitor, replication slave on *.* to 'modern'@'%'");
    let archiver = Archiver(scene.run(&server).env("DP_DB_USER", "modern").spawn_logged(&scene.dir.path().join("log")));
    scene.wait_stored(&server);
    archiver.signal("TERM");
    let silent = server.copy();
    silent.option("--skip-log-bin");
    silent.start();
    let told = scene.run(&silent).fails();
    assert!(told.contains("the server writes no binary log"), "{told}");
}

#[test]
fn the_stream_is_encrypted_where_the_server_can() {
    let Some(server) = server() else { return };
    let (cert_file, key_file) = OWNER.certificate(&server.data());
    server.option(&format!("--ssl-cert={}", cert_file.display()));
    server.option(&format!("--ssl-key={}", key_file.display()));
    server.stop("TERM");
    server.start();
    let scene = Scene::new();
    let conf = scene.conf();
    let run = |mode: &str| {
        let flag = format!("--tls={mode}");
        scene.with(Run::new(&[&FLAGS[..], &[&flag, "-c", &conf]].concat()), &server).env("DP_DB_HOST", "localhost")
    };
    let told = run("verify").fails();
    assert!(told.contains("TLS: invalid peer certificate"), "{told}");
    server.ask(&format!("alter user '{USER}'@'%' require ssl"));
    let told = run("off").fails();
    assert!(told.contains("Access denied"), "{told}");
    for mode in ["preferred", "verify"] {
        let _ = fs::remove_file(scene.dir.path().join("backup.info"));
        let archiver = Archiver(run(mode).env("SSL_CERT_FILE", &cert_file).spawn_logged(&scene.dir.path().join("log")));
        scene.wait_stored(&server);
        assert_eq!(archiver.signal("TERM"), 0);
    }
}

#[test]
fn an_event_of_many_packets_and_files_that_are_too_old() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    server.ask("set global max_allowed_packet = 1 << 28");
    let base = Base::of(&server);
    server.ask("set global max_allowed_packet = 1 << 28");
    let conf = scene.conf();
    let flags = [&FLAGS[..], &["--rotate-bytes=1000000", "-c", &conf]].concat();
    let archiver = Archiver(
        scene.with(Run::new(&flags), &server).env("DP_TTL_SECONDS", "3600").spawn_logged(&scene.dir.path().join("log")),
    );
    // An event of more than two packets of 16 MiB.
    server.ask("set global binlog_format = 'ROW'");
    server.ask("insert into app.ledger (pad) values (repeat('y', 40000000))");
    // The file is large then, and the server is asked for the next.
    scene.wait(&|_| !server.place().0.starts_with(base.place.split(':').next().unwrap()));
    write(&server, 1);
    scene.wait_stored(&server);
    archiver.signal("TERM");
    let plan = scene.fetch(&base, &["--latest"]).succeeds_with_text();
    assert!(plan.contains(&server.place().1), "{plan}");
    assert_eq!(scene.objects().len(), 2, "{:?}", scene.objects());
    // Much later the first is too old, and the newest whole one stays. Whoever begins removes what is too old by what is stored.
    std::thread::sleep(Duration::from_secs(3));
    rotate(&server);
    rotate(&server);
    let run = scene.run(&server).env("DP_TTL_SECONDS", "1");
    let archiver = Archiver(run.spawn_logged(&scene.dir.path().join("log")));
    scene.wait_stored(&server);
    archiver.signal("TERM");
    let run = scene.run(&server).env("DP_TTL_SECONDS", "1");
    // What the first one said is not said by this one.
    fs::remove_file(scene.dir.path().join("backup.info")).unwrap();
    let archiver = Archiver(run.spawn_logged(&scene.dir.path().join("log")));
    scene.wait_stored(&server);
    archiver.signal("TERM");
    assert!(!scene.objects().keys().any(|name| base.place.starts_with(name.as_str())), "{:?}", scene.objects());
    let told = scene.fetch(&base, &["--latest"]).fails();
    assert!(told.contains("is missing") || told.contains("is not in the archive"), "{told}");
}

/// Nobody needs this program to read what it stored.
#[test]
fn standard_tools_read_what_is_stored() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    archived(&server, &scene);
    for (name, object) in scene.objects() {
        let file = scene.dir.path().join(&name);
        fs::write(&file, zstd::decode_all(&fs::read(object).unwrap()[..]).unwrap()).unwrap();
        let read = Command::new("mariadb-binlog")
            .args(["--no-defaults", "--verify-binlog-checksum"])
            .arg(Path::new(&file))
            .output();
        assert!(read.unwrap().status.success(), "{name}");
    }
}
