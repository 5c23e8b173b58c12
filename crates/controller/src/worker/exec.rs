//! Exec actions: a Job in the manager namespace that runs a command in somebody else's container.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kbbackup_api::v1alpha1::ExecActionSpec;
use kube::ResourceExt as _;

use super::pod;
use crate::settings::Settings;

/// The pod that runs `action` in `target`; its container is called `name`.
pub fn pod(name: &str, action: &ExecActionSpec, target: &Pod, settings: &Settings) -> PodSpec {
    let first = target.spec.as_ref().and_then(|spec| spec.containers.first()).map(|container| container.name.as_str());
    let container = action.container.as_deref().filter(|container| !container.is_empty()).or(first);
    let mut command: Vec<String> = ["/kbbackup-controller", "exec", "-n"].into_iter().map(str::to_owned).collect();
    command.push(target.namespace().unwrap_or_default());
    command.push(target.name_any());
    command.extend(container.into_iter().flat_map(|container| ["-c".to_owned(), container.to_owned()]));
    if let Some(seconds) = action.timeout.as_deref().and_then(seconds).filter(|seconds| *seconds > 0) {
        command.extend(["--timeout".to_owned(), seconds.to_string()]);
    }
    command.push("--".to_owned());
    command.extend(action.command.iter().cloned());
    let mut container = pod::container(name, &settings.controller_image, command, settings);
    // Our own image runs as itself.
    if let Some(security) = &mut container.security_context {
        security.run_as_user = None;
    }
    pod::zero_limits(&mut container, settings);
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        service_account_name: Some(settings.exec_service_account.clone()),
        termination_grace_period_seconds: Some(30),
        tolerations: Some(pod::tolerate_all()),
        containers: vec![container],
        ..PodSpec::default()
    }
}

/// Whole seconds of a Go duration (`1m30s`), rounded up; `None` when it is none.
fn seconds(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
    if text == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let (unit, factor) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        total += number.parse::<f64>().ok()? * factor;
        rest = &tail[unit.len()..];
    }
    (!text.is_empty() && total.is_finite()).then_some(total.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::worker::settings;

    #[test]
    fn behaviour_4_8_4_the_command_runs_in_the_first_container_unless_one_is_named() {
        let target: Pod = serde_json::from_value(json!({ "metadata": {"name": "pg-0", "namespace": "demo"},
            "spec": {"containers": [{"name": "postgres"}, {"name": "metrics"}]} }))
        .unwrap();
        let command = |action: serde_json::Value| {
            let pod = pod("a", &serde_json::from_value(action).unwrap(), &target, &settings());
            pod.containers[0].command.clone().unwrap().join(" ")
        };
        assert_eq!(
            command(json!({ "command": ["psql", "-c", "select 1"] })),
            "/kbbackup-controller exec -n demo pg-0 -c postgres -- psql -c select 1"
        );
        assert_eq!(
            command(json!({ "command": ["x"], "container": "metrics", "timeout": "1m30s" })),
            "/kbbackup-controller exec -n demo pg-0 -c metrics --timeout 90 -- x"
        );
        assert_eq!(
            command(json!({ "command": ["x"], "timeout": "0s" })),
            "/kbbackup-controller exec -n demo pg-0 -c postgres -- x"
        );
    }

    #[test]
    fn go_durations() {
        for (text, wanted) in [
            ("90s", Some(90)),
            ("1h0m1s", Some(3601)),
            ("1.5m", Some(90)),
            ("500ms", Some(1)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("5x", None),
        ] {
            assert_eq!(seconds(text), wanted, "{text}");
        }
    }
}
