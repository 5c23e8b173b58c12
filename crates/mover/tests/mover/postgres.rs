//! The archiver of `PostgreSQL`'s log against a real server: what it says can be reached is reached, and nothing else is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::archive::{Archiver, FLAGS, Scene, server, write, write_much};
use crate::common::postgres::{OWNER, Postgres, installed};
use crate::common::{Endpoint, Run};

impl Scene {
    /// Puts everything that is stored into a folder, under the server's names.
    fn unpack(&self) -> PathBuf {
        let into = self.dir.path().join("unpacked");
        fs::create_dir_all(&into).unwrap();
        let conf = self.conf();
        let list = Run::new(&["list", "-r", "-f", "/pg/wal", "-c", &conf]).succeeds_with_text();
        let mut paths: Vec<&str> = list.lines().filter(|path| path.contains(".zst")).collect();
        // Whole ones come last and win.
        paths.sort_by_key(|path| !path.contains(".partial"));
        for path in paths {
            let name = path.rsplit('/').next().unwrap().split(['~', '.']).next().unwrap();
            let name = if path.contains(".history") { format!("{name}.history") } else { name.to_owned() };
            let to = into.join(name);
            let pulled = Run::new(&["pull", "-d", "zstd", &format!("/{path}"), to.to_str().unwrap(), "-c", &conf]);
            pulled.succeeds();
        }
        let reachable: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(self.dir.path(), reachable).unwrap();
        into
    }
}

fn restore_command(from: &Path) -> String {
    format!("restore_command = 'cp {}/%f %p'", from.display())
}

#[test]
fn what_is_said_to_be_reachable_is_reached_exactly_whoever_was_killed() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let mut archiver = scene.archive(&server);
    scene.wait(&|info| info["timeRange"]["end"].is_string());
    let base = server.base_backup(&[]);
    for round in 0..4 {
        write_much(&server);
        write(&server, 5);
        archiver.signal(if round % 2 == 0 { "KILL" } else { "TERM" });
        write(&server, 5);
        if round == 2 {
            server.stop("immediate");
            server.start();
        }
        archiver = scene.archive(&server);
        scene.wait_stored(&server);
    }
    let end = scene.wait_reachable(&server);
    write(&server, 3);
    scene.wait_stored(&server);
    assert_eq!(archiver.signal("TERM"), 0, "{}", scene.log());
    let info = scene.info();
    assert_eq!(info["extras"].as_array().unwrap().len(), 1, "no gaps: {info}");

    let wanted =
        server.ask(&format!("select n from ledger where pg_xact_commit_timestamp(xmin) <= '{end}' order by n"));
    assert!(wanted.lines().count() > 12_000);
    let content = "select n from ledger order by n";
    assert_ne!(wanted, server.ask(content), "something came later");
    let target = end.replace('T', " ").replace('Z', "+00");
    base.recover(&format!("{}\nrecovery_target_time = '{target}'", restore_command(&scene.unpack())));
    assert_eq!(base.ask(content), wanted);
}

#[test]
fn a_failover_is_followed_without_a_gap_and_the_old_branch_stays() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let archiver = scene.archive(&server);
    scene.wait(&|info| info["timeRange"]["end"].is_string());
    let (base, standby) = (server.base_backup(&[]), server.base_backup(&["-R"]));
    standby.start();
    write_much(&server);
    write(&server, 3);
    let caught_up = server.ask("select pg_current_wal_lsn()");
    let caught_up = format!("select pg_last_wal_replay_lsn() >= '{caught_up}'");
    let began = Instant::now();
    while standby.ask(&caught_up) != "t" {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(100));
    }
    scene.wait_stored(&server);
    archiver.signal("TERM");
    server.stop("immediate");
    standby.promote();
    write(&standby, 4);
    let archiver = scene.archive(&standby);
    write_much(&standby);
    scene.wait_stored(&standby);
    archiver.signal("TERM");
    let info = scene.info();
    assert_eq!(info["extras"].as_array().unwrap().len(), 1, "no gaps: {info}\n{}", scene.log());
    assert_eq!(info["extras"][0]["timeline"], "2");
    let stored = scene.stored();
    assert!(stored.contains(&"00000002.history.zst".to_owned()), "{stored:?}");
    assert!(stored.iter().any(|name| name.starts_with("00000001") && name.ends_with(".partial.zst")), "{stored:?}");
    base.recover(&restore_command(&scene.unpack()));
    let content = "select n from ledger order by n";
    assert_eq!(base.ask(content), standby.ask(content));
}

#[test]
fn a_server_that_goes_back_in_time_takes_nothing_of_the_branch_that_it_leaves() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let archiver = scene.archive(&server);
    scene.wait(&|info| info["timeRange"]["end"].is_string());
    let (base, witness) = (server.base_backup(&[]), server.base_backup(&[]));
    write(&server, 3);
    let back = server.ask("select pg_current_wal_flush_lsn()");
    write(&server, 4);
    scene.wait_stored(&server);
    archiver.signal("TERM");
    let content = "select n from ledger order by n";
    let left = server.ask(content);
    server.stop("immediate");
    // In the middle of a segment of which nothing else is stored than its beginning.
    let target = format!("recovery_target_lsn = '{back}'\nrecovery_target_inclusive = off");
    base.recover(&format!("{}\n{target}", restore_command(&scene.unpack())));
    assert_eq!(base.ask("select count(*) from ledger"), "3");
    write(&base, 5);
    let archiver = scene.archive(&base);
    scene.wait_stored(&base);
    archiver.signal("TERM");
    assert_eq!(scene.info()["extras"][0]["timeline"], "2");
    // A copy of its own: a server takes what it has fetched for its log.
    let again = witness.again();
    witness.recover(&format!("{}\nrecovery_target_timeline = '1'", restore_command(&scene.unpack())));
    assert_eq!(witness.ask(content), left, "{}", scene.log());
    again.recover(&restore_command(&scene.unpack()));
    assert_eq!(again.ask(content), base.ask(content));
}

#[test]
fn a_server_that_is_put_back_without_a_new_timeline_is_archived_at_once() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let archiver = scene.archive(&server);
    scene.wait(&|info| info["timeRange"]["end"].is_string());
    // Its own log alone, as on the volume of a snapshot: it starts where that ends, and stays on its timeline.
    let earlier = server.base_backup(&[]);
    write(&server, 40);
    scene.wait_stored(&server);
    archiver.signal("TERM");
    server.stop("immediate");
    earlier.start();
    assert_eq!(earlier.ask("select timeline_id from pg_control_checkpoint()"), "1");
    write(&earlier, 1);
    let archiver = scene.archive(&earlier);
    scene.wait_stored(&earlier);
    archiver.signal("TERM");
}

#[test]
fn a_server_on_which_nobody_commits_can_be_brought_back_from_the_start_on() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    // No transaction of before ends in the segment with which the archiver begins: that of the last checkpoint.
    server.ask("select pg_switch_wal(); checkpoint");
    let conf = scene.conf();
    let flags = [&FLAGS[..4], &["--heartbeat-seconds=3600", "-c", &conf]].concat();
    let archiver = Archiver(scene.with(Run::new(&flags), &server).spawn_logged(&scene.dir.path().join("log")));
    scene.wait(&|_| scene.log().contains("streaming timeline"));
    std::thread::sleep(Duration::from_secs(10));
    let quiet = server.ask("select clock_timestamp() - interval '5 s'");
    write(&server, 1);
    scene.wait_reachable(&server);
    let start = scene.info()["timeRange"]["start"].as_str().unwrap().to_owned();
    assert_eq!(server.ask(&format!("select '{start}'::timestamptz < '{quiet}'")), "t", "{start}: {}", scene.log());
    archiver.signal("TERM");
}

#[test]
fn the_slot_guards_the_log_until_it_is_durable() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let mut endpoint = Endpoint::start();
    let run = scene.with(endpoint.mover(&FLAGS[..5]), &server);
    let archiver = Archiver(run.spawn_logged(&scene.dir.path().join("log")));
    scene.wait(&|info| info["timeRange"]["end"].is_string());
    endpoint.kill();
    let behind = "select restart_lsn from pg_replication_slots where slot_name = 'kbb_arch_test'";
    std::thread::sleep(Duration::from_secs(2));
    let before = server.ask(behind);
    for _ in 0..3 {
        write_much(&server);
        server.ask("select pg_switch_wal(); checkpoint");
    }
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(server.ask(behind), before, "nothing could be stored");
    endpoint.start_again();
    scene.wait_stored(&server);
    // The slot follows what is stored, a moment later.
    scene.wait(&|_| server.ask(behind) != before);
    let info = scene.info();
    assert_eq!(info["extras"].as_array().unwrap().len(), 1, "no gaps: {info}\n{}", scene.log());
    assert_eq!(archiver.signal("TERM"), 0);
}

#[test]
fn a_slot_for_which_too_much_is_kept_is_given_up_though_nothing_can_be_stored() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let mut endpoint = Endpoint::start();
    let archive = |endpoint: &Endpoint| {
        let flags = [&FLAGS[..5], &["--max-lag-bytes=2097152"]].concat();
        Archiver(scene.with(endpoint.mover(&flags), &server).spawn_logged(&scene.dir.path().join("log")))
    };
    let archiver = archive(&endpoint);
    scene.wait(&|info| info["timeRange"]["end"].is_string());
    write_much(&server);
    scene.wait_stored(&server);
    archiver.signal("TERM");
    let kept = "select (pg_control_checkpoint()).redo_lsn - restart_lsn > 2097152 from pg_replication_slots";
    assert_eq!(server.ask(kept), "f");
    endpoint.kill();
    write_much(&server);
    server.ask("checkpoint");
    assert_eq!(server.ask(kept), "t");
    let archiver = archive(&endpoint);
    scene.wait(&|_| server.ask(kept) == "f");
    endpoint.start_again();
    write(&server, 3);
    scene.wait(&|info| info["extras"][1]["gapStart"].is_string());
    scene.wait_reachable(&server);
    // Once: what a new slot guards, the server needs anyway.
    assert_eq!(scene.log().matches("more than the 2097152 that are allowed").count(), 1, "{}", scene.log());
    archiver.signal("TERM");
}

#[test]
fn log_that_the_server_has_removed_is_a_gap_and_said_to_be_one() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let archiver = scene.archive(&server);
    scene.wait(&|info| info["timeRange"]["end"].is_string());
    write_much(&server);
    scene.wait_stored(&server);
    archiver.signal("TERM");
    server.ask("select pg_drop_replication_slot('kbb_arch_test')");
    for _ in 0..4 {
        write_much(&server);
        server.ask("select pg_switch_wal(); checkpoint");
    }
    let archiver = scene.archive(&server);
    write(&server, 3);
    scene.wait_reachable(&server);
    archiver.signal("TERM");
    let info = scene.info();
    let gap = &info["extras"][1];
    assert!(gap["gapStart"].is_string() && gap["gapEnd"].is_string(), "{info}\n{}", scene.log());
    assert!(scene.log().contains("gap in the log"), "{}", scene.log());
}

#[test]
fn refusals_name_the_cause_and_no_password() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let told = scene.run(&server).env("DP_DB_PASSWORD", "battery-staple").fails();
    assert!(told.contains("password authentication failed") && !told.contains("battery"), "{told}");
    let told = scene.run(&server).env("PGSSLMODE", "require").fails();
    assert!(told.contains("the server has no TLS"), "{told}");
    server.ask("create role plain login password 'correct-horse'");
    let told = scene.run(&server).env("DP_DB_USER", "plain").fails();
    assert!(told.contains("REPLICATION") || told.contains("replication"), "{told}");

    scene.wait_first(&server);
    let other = Postgres::create(&installed().unwrap());
    let told = scene.run(&other).fails();
    assert!(told.contains("holds the log of another cluster"), "{told}");
}

#[test]
fn the_stream_is_encrypted_where_the_server_can() {
    let Some(server) = server() else { return };
    let (cert_file, _) = OWNER.certificate(&server.data());
    server.configure("ssl = on\n");
    server.stop("fast");
    server.start();
    let scene = Scene::new();
    let run = |mode: &str| scene.run(&server).env("DP_DB_HOST", "localhost").env("PGSSLMODE", mode);
    let told = run("verify-full").fails();
    assert!(told.contains("TLS: invalid peer certificate"), "{told}");
    for (mode, trusted, encrypted) in [("disable", false, "f"), ("prefer", false, "t"), ("verify-full", true, "t")] {
        let mut run = run(mode);
        if trusted {
            run = run.env("SSL_CERT_FILE", &cert_file);
        }
        let _ = fs::remove_file(scene.info_file());
        let archiver = Archiver(run.spawn_logged(&scene.dir.path().join("log")));
        scene.wait(&|info| info["timeRange"]["end"].is_string());
        let query = "select distinct ssl from pg_stat_ssl join pg_stat_activity using (pid) \
                     where application_name = 'kbbackup'";
        assert_eq!(server.ask(query), encrypted, "{mode}");
        archiver.signal("TERM");
    }
}
