//! What else the cluster knows about something that failed: the last lines of its pods, and warnings.

use futures::{AsyncBufReadExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};

use crate::{
    app::{App, list_all},
    error::{Doing, Result},
    output::human,
    ui::Ui,
};

/// Lines of log shown for a failure.
const LINES: i64 = 20;

/// Container that reports what the script did.
const SIDE_CAR: &str = "manager";

/// Pods of a backup or restore, oldest first. `selector` holds the label of the contract.
pub(crate) async fn pods(app: &App, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
    let mut pods = list_all(&app.within::<Pod>(namespace), ListParams::default().labels(selector), "pods").await?;
    pods.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
    Ok(pods)
}

/// The container that does the work, among those of our pods.
pub(crate) fn main_container(pod: &Pod) -> Option<String> {
    let containers: Vec<&str> =
        pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.as_str()).collect();
    let known = ["backupdata", "restore", "deleter", "seal", "pre-check"];
    known.into_iter().find(|name| containers.contains(name)).or_else(|| containers.first().copied()).map(str::to_owned)
}

/// Containers that ended badly or cannot start, with the reason, init containers first.
pub(crate) fn troubles(pod: &Pod) -> Vec<(String, String)> {
    let Some(status) = &pod.status else { return Vec::new() };
    let statuses = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let mut troubles: Vec<(String, String)> =
        statuses.filter_map(|container| Some((container.name.clone(), trouble(container)?))).collect();
    // The side-car only repeats that the script failed.
    if troubles.len() > 1 {
        troubles.retain(|(container, _)| container != SIDE_CAR);
    }
    let unschedulable = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unschedulable {
        troubles.push((String::new(), condition.message.clone().unwrap_or_else(|| "not scheduled".to_owned())));
    }
    troubles
}

fn trouble(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(ended) = state.terminated.as_ref().filter(|ended| ended.exit_code != 0) {
        let reason = ended.reason.clone().unwrap_or_else(|| "Error".to_owned());
        return Some(format!("{reason}, exit code {}", ended.exit_code));
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.clone().unwrap_or_default();
    // Usual steps of a start are no trouble.
    if matches!(reason.as_str(), "" | "ContainerCreating" | "PodInitializing") {
        return None;
    }
    Some(match waiting.message.as_deref().filter(|message| !message.is_empty()) {
        Some(message) => format!("{reason}: {message}"),
        None => reason,
    })
}

/// The last lines of a container's log; `None` when there is no log.
pub(crate) async fn tail(api: &Api<Pod>, pod: &str, container: &str, lines: i64) -> Option<String> {
    let params = LogParams { container: Some(container.to_owned()), tail_lines: Some(lines), ..LogParams::default() };
    api.logs(pod, &params).await.ok().filter(|text| !text.trim().is_empty())
}

/// Prints what is known of a failure: the bad containers, their last lines, and warnings.
pub(crate) async fn show(app: &App, ui: &Ui, namespace: &str, selector: &str, about: &[String]) {
    let pods = pods(app, namespace, selector).await.unwrap_or_default();
    let api: Api<Pod> = app.within(namespace);
    let failed = pods.iter().rev().find(|pod| !troubles(pod).is_empty());
    if let Some(pod) = failed {
        let name = pod.name_any();
        for (container, why) in troubles(pod) {
            ui.say(&format!(
                "pod/{name}{}: {why}",
                if container.is_empty() { String::new() } else { format!(" container {container}") }
            ));
            if container.is_empty() {
                continue;
            }
            if let Some(text) = tail(&api, &name, &container, LINES).await {
                ui.say(&format!("last lines of {container}:"));
                for line in text.lines() {
                    ui.say(&format!("  {line}"));
                }
            }
        }
    }
    let mut names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    names.extend(about.iter().cloned());
    for line in warnings(app, namespace, &names).await.unwrap_or_default() {
        ui.say(&line);
    }
}

/// Warning events about the named objects, newest last, at most ten.
pub(crate) async fn warnings(app: &App, namespace: &str, names: &[String]) -> Result<Vec<String>> {
    let events =
        list_all(&app.within::<Event>(namespace), ListParams::default().fields("type=Warning"), "events").await?;
    let now = Timestamp::now();
    let mut about: Vec<&Event> = events
        .iter()
        .filter(|event| event.involved_object.name.as_ref().is_some_and(|name| names.contains(name)))
        .collect();
    about.sort_by_key(|event| seen_at(event));
    let skip = about.len().saturating_sub(10);
    Ok(about[skip..].iter().map(|event| event_line(event, now)).collect())
}

/// All events about an object, oldest first.
pub(crate) async fn events(app: &App, namespace: &str, kind: &str, name: &str) -> Result<Vec<String>> {
    let fields = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let mut events = list_all(&app.within::<Event>(namespace), ListParams::default().fields(&fields), "events").await?;
    events.sort_by_key(seen_at);
    let now = Timestamp::now();
    Ok(events.iter().map(|event| event_line(event, now)).collect())
}

fn seen_at(event: &Event) -> Option<Timestamp> {
    event
        .last_timestamp
        .as_ref()
        .map(|time| time.0)
        .or_else(|| event.event_time.as_ref().map(|time| time.0))
        .or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn event_line(event: &Event, now: Timestamp) -> String {
    let age = seen_at(event).map(|time| human::span(now.duration_since(time))).unwrap_or_default();
    let object = &event.involved_object;
    format!(
        "{} ago {} {} {}/{}: {}",
        age,
        event.type_.as_deref().unwrap_or("Normal"),
        event.reason.as_deref().unwrap_or_default(),
        object.kind.as_deref().unwrap_or_default().to_lowercase(),
        object.name.as_deref().unwrap_or_default(),
        event.message.as_deref().unwrap_or_default().trim()
    )
}

/// Streams a container's log line by line; ends with the container. `title` is said before the first line.
pub(crate) async fn stream(
    ui: &Ui,
    api: &Api<Pod>,
    pod: &str,
    params: &LogParams,
    prefix: &str,
    mut title: Option<String>,
) -> Result<()> {
    let log = api.log_stream(pod, params).await.doing(|| format!("the log of pod/{pod} cannot be read"))?;
    let mut lines = log.lines();
    while let Some(line) = lines.try_next().await? {
        if let Some(title) = title.take() {
            ui.say(&title);
        }
        ui.log_line(&format!("{prefix}{line}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_real_trouble_is_told() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {
            "initContainerStatuses": [{"name": "dp-copy-datasafed", "ready": true, "restartCount": 0, "image": "", "imageID": "",
                "state": {"terminated": {"exitCode": 0}}}],
            "containerStatuses": [
                {"name": "backupdata", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                 "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
                {"name": "other", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                 "state": {"waiting": {"reason": "PodInitializing"}}}]}}))
        .unwrap();
        assert_eq!(troubles(&pod), [("backupdata".to_owned(), "ImagePullBackOff: no such image".to_owned())]);
    }
}
