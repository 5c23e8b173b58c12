//! Schedules: what is due is made, once; what is over is removed, and nothing else; what is switched off leaves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use kbbackup_e2e::{LIMIT, phase};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::begin;
use crate::files;

const SCHEDULE: &str = "dataprotection.kubeblocks.io/backup-schedule";
/// How much later than its time something may happen on a busy machine.
const SLACK: Duration = Duration::from_secs(110);

fn schedule(entries: &Value) -> Value {
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "files"},
        "spec": {"backupPolicyName": "files", "schedules": entries},
    })
}

fn prepare(space: &TempNamespace) {
    files::create(space, 1).unwrap();
    let mut recipe = files::recipe(&space.name, "Full", files::PACK, files::UNPACK);
    recipe["spec"]["backup"]["preBackup"] = json!([{ "exec": {"command": ["touch", "/data/before"]} }]);
    space.kubectl.apply(&recipe.to_string()).unwrap();
    space.kubectl.apply(&files::policy("Any", &[("full", &space.name, None)]).to_string()).unwrap();
}

fn scheduled(space: &TempNamespace) -> Vec<Value> {
    let all = space.kubectl.get(&["backups", "-l", SCHEDULE]).unwrap();
    all["items"].as_array().cloned().unwrap_or_default()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Seconds since 1970 of an RFC 3339 time in UTC.
fn seconds(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_default();
    let output = std::process::Command::new("date").args(["-u", "-d", text, "+%s"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn end(cluster: &Kubectl, space: TempNamespace) {
    drop(space.kubectl.try_run(&["delete", "backupschedule", "--all", "--timeout=180s"]));
    drop(space.kubectl.try_run(&["delete", "backup", "--all", "--timeout=180s"]));
    let recipe = space.name.clone();
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &recipe, "--wait=false"]));
}

#[test]
fn ten_runs_keep_exactly_what_they_should() {
    let (cluster, space) = begin("schedule").unwrap();
    prepare(&space);
    let entry = json!([{ "enabled": true, "name": "minutely", "backupMethod": "full", "cronExpression": "* * * * *", "retentionPeriod": "3m" }]);
    space.kubectl.apply(&schedule(&entry).to_string()).unwrap();
    space.kubectl.wait_for("backupschedule", "files", LIMIT, |object| phase(object) == "Available").unwrap();

    // Every backup that was ever seen, with its expiration.
    let mut seen: BTreeMap<String, Option<u64>> = BTreeMap::new();
    let mut shifted: Option<String> = None;
    let mut restarted = false;
    let begun = Instant::now();
    while seen.len() < 11 {
        assert!(begun.elapsed() < Duration::from_secs(15 * 60), "only {} runs: {seen:?}", seen.len());
        std::thread::sleep(Duration::from_secs(4));
        let there = scheduled(&space);
        for backup in &there {
            assert_ne!(phase(backup), "Failed", "{}", backup["status"]);
            let expires = &backup["status"]["expiration"];
            let expires = (phase(backup) == "Completed").then(|| seconds(expires));
            let known = seen.entry(name(backup)).or_default();
            *known = known.or(expires);
        }
        let there: BTreeSet<String> = there.iter().map(name).collect();
        for (backup, expires) in &seen {
            let Some(expires) = expires else { continue };
            // Nothing goes before its time, and nothing stays long after it.
            if *expires > now() && shifted.as_ref() != Some(backup) {
                assert!(there.contains(backup), "backup {backup} went {} s too early", expires - now());
            }
            let late = now().saturating_sub(*expires);
            assert!(!there.contains(backup) || late < SLACK.as_secs(), "backup {backup} is {late} s too late");
        }
        let completed = seen.iter().rev().find(|(backup, expires)| expires.is_some() && there.contains(*backup));
        if seen.len() >= 5 && !restarted {
            restarted = true;
            let operator = cluster.in_namespace("kbbackup-system");
            operator.run(&["delete", "pod", "-l", "kbbackup.io/part=operator", "--wait=false"]).unwrap();
        } else if let (7.., None, Some((backup, _))) = (seen.len(), &shifted, completed) {
            // A clock that goes ahead: for this backup the time has come already.
            let patch = json!({"status": {"expiration": "2020-01-01T00:00:00Z"}}).to_string();
            space
                .kubectl
                .run(&["patch", "backup", backup, "--subresource=status", "--type=merge", "-p", &patch])
                .unwrap();
            space.kubectl.wait_gone("backup", backup, SLACK).unwrap();
            shifted = Some(backup.clone());
        }
    }
    assert!(restarted && shifted.is_some());
    // A run per minute, each once: the names end in the minute and second of the run.
    let minutes: Vec<String> =
        seen.keys().map(|backup| backup[backup.len() - 14..backup.len() - 2].to_owned()).collect();
    let distinct: BTreeSet<&String> = minutes.iter().collect();
    assert_eq!(distinct.len(), minutes.len(), "two backups of one minute: {seen:?}");
    let (first, last) = (&minutes[0], &minutes[minutes.len() - 1]);
    let span = |text: &str| {
        let (day, time) = text.split_at(8);
        seconds(&json!(format!("{}-{}-{}T{}:{}:00Z", &day[..4], &day[4..6], &day[6..], &time[..2], &time[2..]))) / 60
    };
    assert_eq!(span(last) - span(first) + 1, seen.len() as u64, "a run is missing: {seen:?}");

    // The status tells the runs.
    let object = space.kubectl.get(&["backupschedule", "files"]).unwrap();
    let entry = &object["status"]["schedules"]["minutely"];
    assert!(now() - seconds(&entry["lastScheduleTime"]) < 120 && entry["lastSuccessfulTime"].is_string(), "{entry}");
    let next: Value =
        serde_json::from_str(object["metadata"]["annotations"]["kbbackup.io/next-runs"].as_str().unwrap()).unwrap();
    assert!(seconds(&next["minutely"]) + 60 > now(), "{next}");

    space.kubectl.run(&["delete", "backupschedule", "files", "--timeout=180s"]).unwrap();
    let left = space.kubectl.get(&["cronjobs"]).unwrap();
    assert_eq!(left["items"].as_array().map(Vec::len), Some(0), "{left}");
    assert!(!scheduled(&space).is_empty(), "backups went with their schedule");
    end(&cluster, space);
}

#[test]
fn entries_that_are_off_renamed_or_removed_leave_nothing() {
    let (cluster, space) = begin("entries").unwrap();
    prepare(&space);
    let entry = |name: &str, cron: &str, enabled: bool| json!({ "enabled": enabled, "name": name, "backupMethod": "full", "cronExpression": cron });
    let apply = |list: Value| space.kubectl.apply(&schedule(&list).to_string()).unwrap();
    let crons = || -> BTreeSet<String> {
        let all = space.kubectl.get(&["cronjobs"]).unwrap();
        let notes = all["items"].as_array().cloned().unwrap_or_default();
        notes
            .iter()
            .map(|cron| {
                cron["metadata"]["annotations"]["kbbackup.io/schedule-entry"].as_str().unwrap_or_default().to_owned()
            })
            .collect()
    };
    let become_ = |wanted: &[&str]| {
        let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let begun = Instant::now();
        while crons() != wanted {
            assert!(begun.elapsed() < SLACK, "{:?} instead of {wanted:?}", crons());
            std::thread::sleep(Duration::from_millis(250));
        }
    };
    apply(json!([entry("a", "0 2 * * *", true), entry("b", "0 3 * * *", true)]));
    become_(&["a", "b"]);
    apply(json!([entry("a", "0 2 * * *", false), entry("b", "0 3 * * *", true)]));
    become_(&["b"]);
    apply(json!([entry("c", "0 3 * * *", true)]));
    become_(&["c"]);

    // What is wrong is told, and does not stop the rest.
    apply(json!([entry("c", "0 3 * * *", true), entry("d", "61 * * * *", true)]));
    let object = space.kubectl.wait_for("backupschedule", "files", LIMIT, |object| phase(object) == "Failed").unwrap();
    let why = object["status"]["failureReason"].as_str().unwrap_or_default();
    assert!(why.contains("entry d") && why.contains("61 * * * *"), "{why}");
    assert_eq!(object["status"]["schedules"]["c"]["phase"], "Running", "{}", object["status"]);
    become_(&["c"]);

    // A run by hand is a run like any other.
    let cron = space.kubectl.get(&["cronjobs"]).unwrap();
    let from = format!("cronjob/{}", name(&cron["items"][0]));
    space.kubectl.run(&["create", "job", "by-hand", "--from", &from]).unwrap();
    let begun = Instant::now();
    while !scheduled(&space).iter().any(|backup| phase(backup) == "Completed") {
        assert!(begun.elapsed() < LIMIT, "{:?}", scheduled(&space));
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(scheduled(&space).len(), 1);
    // What runs before it has run in the database's own container.
    space.kubectl.run(&["exec", "files-0", "--", "test", "-e", "/data/before"]).unwrap();
    end(&cluster, space);
}

#[test]
fn the_commands_of_schedules_do_what_they_say() {
    let (cluster, space) = begin("schedule-cli").unwrap();
    prepare(&space);
    let run = |words: &[&str]| space.kubectl.try_run(&[&["kbbackup", "schedule"], words].concat()).unwrap();
    let good = |words: &[&str]| {
        let done = run(words);
        assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
        done
    };
    let entries = || space.kubectl.get(&["backupschedule", "files"]).unwrap()["spec"]["schedules"].clone();
    let create = ["create", "policy/files", "--method", "full", "--cron", "0 3 1 1 *", "--retention", "3d"];
    let planned = good(&[&create[..], &["--dry-run=client", "-o", "json"]].concat());
    assert_ne!(space.kubectl.try_run(&["get", "backupschedule", "files"]).unwrap().code, 0, "a dry run wrote");
    good(&[&create[..], &["--wait", "--timeout", "2m"]].concat());
    let planned: Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!(entries(), planned["spec"]["schedules"]);
    assert_eq!(run(&create).code, 2, "an entry of that name was there");

    let cron_jobs = |wanted: usize| {
        let begun = Instant::now();
        loop {
            let there = space.kubectl.get(&["cronjobs", "-l", SCHEDULE]).unwrap();
            if there["items"].as_array().is_some_and(|items| items.len() == wanted) {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "not {wanted} CronJobs: {there}");
            std::thread::sleep(Duration::from_millis(500));
        }
    };
    cron_jobs(1);
    good(&["disable", "policy/files", "--method", "full"]);
    cron_jobs(0);
    good(&["enable", "schedule/files"]);
    cron_jobs(1);
    good(&["update", "policy/files", "--retention", "5d", "--starting-deadline", "10m", "--wait"]);
    assert_eq!(entries()[0]["retentionPeriod"], "5d");

    good(&[&create[..6], &["--name", "weekly", "--cron-timezone", "Europe/Madrid"]].concat());
    assert_eq!(entries()[1]["cronExpression"], "CRON_TZ=Europe/Madrid 0 3 1 1 *");
    let unclear = run(&["update", "policy/files", "--method", "full", "--retention", "1d"]);
    assert_eq!(unclear.code, 2, "{}", unclear.stderr);
    assert!(unclear.stderr.contains("full, weekly"), "{}", unclear.stderr);
    good(&["trigger", "policy/files", "--entry", "weekly", "--name", "by-hand", "--wait"]);
    let made = space.kubectl.get(&["backup", "by-hand"]).unwrap();
    assert_eq!(phase(&made), "Completed");
    assert_eq!(made["spec"]["retentionPeriod"], "7d");
    assert_eq!(made["metadata"]["labels"][SCHEDULE], "files");
    let listed = good(&["list", "policy/files", "-o", "wide"]).stdout;
    let weekly = listed.lines().find(|line| line.contains(" weekly ")).unwrap_or_default();
    assert!(weekly.contains("Completed") && weekly.contains(" true "), "{listed}");
    let sheet = good(&["describe", "policy/files"]).stdout;
    assert!(sheet.contains("by-hand, Completed"), "{sheet}");

    let kbbackup = |words: &[&str]| space.kubectl.run(&[&["kbbackup"], words].concat()).unwrap();
    let expires = || space.kubectl.get(&["backup", "by-hand"]).unwrap()["status"]["expiration"].clone();
    let (before, ended) = (seconds(&expires()), seconds(&made["status"]["completionTimestamp"]));
    assert_eq!(before, ended + 7 * 24 * 3600);
    kbbackup(&["update", "by-hand", "--retention", "30d"]);
    assert_eq!(seconds(&expires()), ended + 30 * 24 * 3600);
    kbbackup(&["update", "by-hand", "--keep"]);
    assert_eq!(expires(), Value::Null);

    let slow = format!("{}-slow", space.name);
    space.kubectl.apply(&files::recipe(&slow, "Full", "sleep 600", "true").to_string()).unwrap();
    let methods = [("full", space.name.as_str(), None), ("slow", slow.as_str(), None)];
    space.kubectl.apply(&files::policy("Any", &methods).to_string()).unwrap();
    kbbackup(&["backup", "policy/files", "--method", "slow", "--name", "slow"]);
    let jobs = || space.kubectl.get(&["jobs", "-l", "dataprotection.kubeblocks.io/backup-name=slow"]).unwrap();
    space.kubectl.wait_for("backup", "slow", LIMIT, |object| phase(object) == "Running").unwrap();
    kbbackup(&["cancel", "slow", "--yes"]);
    let cancelled = space.kubectl.wait_for("backup", "slow", LIMIT, |object| phase(object) == "Failed").unwrap();
    assert!(cancelled["status"]["failureReason"].as_str().unwrap_or_default().contains("cancelled"));
    let begun = Instant::now();
    while jobs()["items"].as_array().map(Vec::len) != Some(0) {
        assert!(begun.elapsed() < LIMIT, "its work goes on");
        std::thread::sleep(Duration::from_millis(500));
    }

    let set =
        |words: &[&str]| space.kubectl.try_run(&[&["kbbackup", "policy", "set", "files"], words].concat()).unwrap();
    space
        .kubectl
        .run(&["create", "secret", "generic", "phrase", "--from-literal=key=", "--from-literal=other=x"])
        .unwrap();
    let age = ["--encryption-algorithm", "age", "--passphrase-secret"];
    assert_eq!(set(&["--repo", "nowhere"]).code, 3);
    assert_eq!(set(&[&age[..], &["missing/key"]].concat()).code, 3);
    assert_eq!(set(&[&age[..], &["phrase/nothing"]].concat()).code, 2);
    assert_eq!(set(&[&age[..], &["phrase/key"]].concat()).code, 2, "it is empty");
    assert_eq!(set(&age[..2]).code, 2, "half an encryption");
    let policy = || space.kubectl.get(&["backuppolicy", "files"]).unwrap()["spec"].clone();
    assert_eq!(policy()["encryptionConfig"], Value::Null, "a refusal changed something");
    assert_eq!(set(&["--backoff-limit", "3"]).code, 0);
    assert_eq!(policy()["backoffLimit"], 3);

    good(&["delete", "policy/files", "--entry", "weekly", "--yes"]);
    assert_eq!(entries().as_array().map(Vec::len), Some(1));
    assert_eq!(run(&["delete", "policy/files"]).code, 6, "nobody was asked");
    good(&["delete", "policy/files", "--yes"]);
    cron_jobs(0);
    assert_eq!(run(&["describe", "policy/files"]).code, 3);
    assert_eq!(space.kubectl.try_run(&["get", "backup", "by-hand"]).unwrap().code, 0, "its backups stay");
    end(&cluster, space);
    drop(cluster.try_run(&["delete", "actionset", &slow, "--wait=false"]));
}
