//! What a restore will do, in words, and what it has done.

use jiff::Timestamp;
use kbbackup_api::{
    names::{annotations, labels},
    v1alpha1::Restore,
};
use kube::ResourceExt;
use serde_json::Value;

use super::{Chosen, in_place::Running};
use crate::{
    build::restore::{Recorded, Wish, claim_names},
    output::{human, table::Sheet},
    source,
    ui::Ui,
};

/// The plan, shown before anything is written.
pub(super) fn text(
    ui: &Ui,
    chosen: &Chosen,
    recorded: Option<&Recorded>,
    wish: &Wish,
    restore: &Restore,
    now: Timestamp,
) -> String {
    let mut sheet = from(ui, chosen, now);
    let claims = claim_names(restore).join(", ");
    if wish.run {
        let replicas = restore.annotations().get(annotations::REPLICAS).and_then(|text| text.parse().ok()).unwrap_or(1);
        let pods = human::count(replicas, "pod", "pods");
        sheet.line("Into", ui.bold(&format!("statefulset/{} in namespace {}", wish.target, wish.namespace)));
        sheet.line("  runs", pods);
    } else {
        sheet.line("Into", ui.bold(&format!("volumes in namespace {}", wish.namespace)));
    }
    sheet.line("  new volumes", format!("{claims}{}", sizes(restore)));
    if let Some(recorded) = recorded.filter(|_| wish.run) {
        sheet.line("  with", with(recorded));
        sheet.line(
            "  needs",
            recorded.secrets.iter().map(|name| format!("secret/{name}")).collect::<Vec<_>>().join(", "),
        );
        if !recorded.omitted.is_empty() {
            sheet.line("  not kept", format!("{} (too long; must exist already)", recorded.omitted.join(", ")));
        }
    }
    sheet.line("  overwrites", "nothing");
    sheet.finish().trim_end().to_owned()
}

/// What is restored: base, log, bytes, and of when it is.
fn from(ui: &Ui, chosen: &Chosen, now: Timestamp) -> Sheet {
    let backup = chosen.origin();
    let status = backup.status.clone().unwrap_or_default();
    let mut sheet = Sheet::default();
    let engine = backup.labels().get(labels::ENGINE).cloned();
    let made = human::ago(status.completion_timestamp.as_ref(), now);
    let size = status.total_size.as_deref().map(human::size);
    let about: Vec<String> = [Some(source::of_backup(backup)), engine, size, Some(made)]
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect();
    if let Some(aim) = &chosen.aim {
        sheet.line("Bring back", ui.bold(&source::of_backup(backup)));
        sheet.line("  to", ui.bold(&human::stamp(aim.time)));
        sheet.line("  by the log", format!("backup/{}", aim.log.name_any()));
    }
    let restored = if chosen.aim.is_some() { "  from" } else { "Restore" };
    sheet.line(restored, ui.bold(&format!("backup/{}", backup.name_any())));
    sheet.line("  of", about.join(", "));
    if let Some(end) = status.time_range.as_ref().and_then(|range| range.end.as_ref()) {
        sheet.line("  as of", human::utc(Some(end)));
    }
    sheet
}

/// The plan of a restore in place.
pub(super) fn in_place(
    ui: &Ui,
    chosen: &Chosen,
    running: &Running,
    wish: &Wish,
    restore: &Restore,
    now: Timestamp,
) -> String {
    let mut sheet = from(ui, chosen, now);
    let target = format!("statefulset/{} in namespace {}", wish.target, wish.namespace);
    sheet.line("In place", ui.bold(&target));
    let temporary = claim_names(restore).join(", ");
    sheet.line("  fills", format!("{temporary}{}, while it runs on", sizes(restore)));
    let pods = |count: i32| human::count(count.unsigned_abs() as usize, "pod", "pods");
    let stops = if running.stopped == 0 { "nothing: it has no pods".to_owned() } else { pods(running.stopped) };
    sheet.line("  then stops", stops);
    let claims: Vec<&str> = running.claims.iter().map(|old| old.claim.as_str()).collect();
    sheet.line("  exchanges", format!("the volumes of {}", claims.join(", ")));
    sheet.line("  starts", pods(running.pods.1));
    let kept = running
        .claims
        .iter()
        .filter_map(|old| Some(format!("persistentvolume/{} ({})", old.volume.as_ref()?, old.claim)));
    sheet.line("  keeps", kept.collect::<Vec<_>>().join(", "));
    sheet.line("  snapshots", snapshots(running, wish));
    sheet.line("  leaves", running.spare.join(", "));
    sheet.line("  lost", "from the running database: what was written since; it is on the volumes that are kept");
    sheet.line("  overwrites", "nothing");
    sheet.finish().trim_end().to_owned()
}

fn snapshots(running: &Running, wish: &Wish) -> String {
    if wish.in_place.is_some_and(|it| !it.snapshots) {
        return "none, as asked for; the volumes are kept".to_owned();
    }
    let classes =
        running.claims.iter().filter_map(|old| Some(format!("{} by class {}", old.claim, old.class.as_ref()?)));
    let classes: Vec<_> = classes.collect();
    if classes.is_empty() {
        "none: no class for their driver; the volumes are kept".to_owned()
    } else {
        classes.join(", ")
    }
}

fn sizes(restore: &Restore) -> String {
    let config = restore.spec.prepare_data_config.as_ref();
    let Some(template) = config.and_then(|config| config.volume_claims_template.as_ref()) else { return String::new() };
    let sizes: Vec<String> = template
        .templates
        .iter()
        .filter_map(|claim| {
            let spec = &claim.volume_claim_spec;
            let size = spec.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone();
            Some(match spec.storage_class_name.as_deref() {
                Some(class) if !class.is_empty() => format!("{size}, class {class}"),
                _ => size,
            })
        })
        .collect();
    if sizes.is_empty() { String::new() } else { format!(" ({})", sizes.join("; ")) }
}

fn with(recorded: &Recorded) -> String {
    let names = |kind: &str, list: &[Value]| {
        list.iter()
            .filter_map(|object| object["metadata"]["name"].as_str())
            .map(|name| format!("{kind}/{name}"))
            .collect::<Vec<_>>()
    };
    let mut all = names("service", &recorded.services);
    all.extend(names("configmap", &recorded.config_maps));
    if all.is_empty() { String::new() } else { format!("copies of {}", all.join(", ")) }
}

/// One line about a restore that ended well.
pub(super) fn completed(restore: &Restore, wish: &Wish) -> String {
    let status = restore.status.clone().unwrap_or_default();
    let mut facts = Vec::new();
    if let (Some(start), Some(end)) = (&status.start_timestamp, &status.completion_timestamp) {
        facts.push(format!("in {}", human::span(end.0.duration_since(start.0))));
    }
    let reached: Option<Value> =
        restore.annotations().get(annotations::RESTORED).and_then(|text| serde_json::from_str(text).ok());
    facts.extend(reached.as_ref().and_then(reached_text));
    let what = if wish.in_place.is_some() {
        format!("statefulset/{} runs with the restored data", wish.target)
    } else if wish.run {
        format!("statefulset/{} runs", wish.target)
    } else {
        format!("{} filled", claim_names(restore).join(", "))
    };
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    format!("restore/{} completed: {what}{facts}", restore.name_any())
}

/// The position that the script reported.
pub(crate) fn reached_text(reached: &Value) -> Option<String> {
    let position = reached["position"].as_str().filter(|text| !text.is_empty())?;
    let mut text = format!("recovered to {position}");
    for key in ["restoredTo", "lastCommit"] {
        if let Some(time) = reached[key].as_str().filter(|text| !text.is_empty()) {
            text.push_str(&format!(", last commit {time}"));
            break;
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::super::{Aim, in_place::Old};
    use super::*;
    use crate::{args::Color, build::restore};
    use kbbackup_api::v1alpha1::Backup;
    use serde_json::json;

    #[test]
    fn the_plan_names_what_is_made_and_what_is_needed() {
        let manifest = json!({
            "statefulSet": {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "pg"}, "spec": {
                "serviceName": "pg", "selector": {}, "template": {},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}, "storageClassName": "slow"}}]}},
            "services": [{"metadata": {"name": "pg"}}], "secrets": ["pg"]
        });
        let backup: Backup = serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "one", "namespace": "demo", "annotations": {annotations::WORKLOAD: manifest.to_string()}},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full"},
            "status": {"phase": "Completed", "totalSize": "503316480", "completionTimestamp": "2026-01-02T03:04:05Z",
                "timeRange": {"end": "2026-01-02T03:04:00Z"},
                "backupMethod": {"name": "full", "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/d"}]}}}
        }))
        .unwrap();
        let recorded = Recorded::of(&backup).unwrap();
        let wish = Wish {
            name: "copy-1".into(),
            namespace: "demo".into(),
            target: "copy".into(),
            run: true,
            ..Wish::default()
        };
        let restore = restore::restore(&backup, &backup, recorded.as_ref(), &wish).unwrap();
        let ui = Ui::new(Color::Never, true);
        let now = "2026-01-02T06:04:05Z".parse().unwrap();
        let chosen = Chosen { backup, aim: None, new: None };
        insta::assert_snapshot!(text(&ui, &chosen, recorded.as_ref(), &wish, &restore, now));
        let log = json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup", "metadata": {"name": "wal"},
            "spec": {"backupPolicyName": "pg", "backupMethod": "wal"}});
        let log: Backup = serde_json::from_value(log).unwrap();
        let time = "2026-01-02T04:05:06Z".parse().unwrap();
        let aim = Aim { log: log.clone(), base: Some(chosen.backup), time };
        let chosen = Chosen { backup: log, aim: Some(aim), new: None };
        insta::assert_snapshot!("to_a_point_in_time", text(&ui, &chosen, recorded.as_ref(), &wish, &restore, now));
    }

    #[test]
    fn the_plan_in_place_names_what_is_kept_and_what_is_lost() {
        let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "10Gi"}}, "storageClassName": "slow"}}]);
        let set = json!({"metadata": {"name": "pg"}, "spec": {"serviceName": "pg", "selector": {}, "template": {},
            "replicas": 2, "volumeClaimTemplates": claims}});
        let backup: Backup = serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "one", "namespace": "demo"}, "spec": {"backupPolicyName": "pg", "backupMethod": "full"},
            "status": {"phase": "Completed", "totalSize": "503316480", "completionTimestamp": "2026-01-02T03:04:05Z",
                "timeRange": {"end": "2026-01-02T03:04:00Z"},
                "backupMethod": {"name": "full", "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/d"}]}}}
        }))
        .unwrap();
        let old = |ordinal: i32, size: &str| Old {
            claim: format!("data-pg-{ordinal}"),
            size: Some(size.into()),
            volume: Some(format!("pv-{ordinal}")),
            class: (ordinal == 0).then(|| "quick".into()),
        };
        let running = Running {
            set: serde_json::from_value(set).unwrap(),
            pods: (0, 2),
            stopped: 2,
            claims: vec![old(0, "10Gi"), old(1, "20Gi")],
            spare: vec!["data-pg-2".into()],
        };
        let wish = Wish {
            name: "pg-1".into(),
            namespace: "demo".into(),
            target: "pg".into(),
            run: true,
            in_place: Some(running.build(true)),
            ..Wish::default()
        };
        let recorded = running.recorded(None);
        let restore = restore::restore(&backup, &backup, Some(&recorded), &wish).unwrap();
        insta::assert_yaml_snapshot!("the_restore_in_place", restore);
        let ui = Ui::new(Color::Never, true);
        let now = "2026-01-02T06:04:05Z".parse().unwrap();
        let chosen = Chosen { backup, aim: None, new: None };
        insta::assert_snapshot!("in_place", in_place(&ui, &chosen, &running, &wish, &restore, now));
    }

    #[test]
    fn the_position_is_told() {
        let reached = json!({"position": "0/3000028", "lastCommit": "2026-01-02 03:04:05+00"});
        assert_eq!(reached_text(&reached).unwrap(), "recovered to 0/3000028, last commit 2026-01-02 03:04:05+00");
        assert_eq!(reached_text(&json!({})), None);
    }
}
