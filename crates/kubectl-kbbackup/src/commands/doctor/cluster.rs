//! The ground that everything stands on: API server, definitions, operator, rights, storage.

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
        core::v1::Pod,
        storage::v1::StorageClass,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    ResourceExt,
    api::{GetParams, ListParams, PostParams},
    client::Body,
};

use super::Finding;
use crate::{
    app::{App, list_all},
    diagnose,
    install::{self, foreign},
    output::human,
};

/// Native side-cars, which the operator's pods use, are on by default from here on.
const OLDEST_MINOR: u32 = 29;
/// More than this and retention, schedules and points in time go wrong.
const SKEW_SECONDS: i64 = 30;

/// Whether it answers, how old it is, and whether its clock is ours.
pub(super) async fn api_server(app: &App) -> (bool, Vec<Finding>) {
    let version = match app.client.apiserver_version().await {
        Ok(version) => version,
        Err(error) => {
            let why = crate::error::root_cause(&error);
            let finding = Finding::bad("api-server", format!("the API server {} cannot be reached: {why}", app.server))
                .cure("kubectl cluster-info");
            return (false, vec![finding]);
        }
    };
    let minor: u32 = version.minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    let mut findings = Vec::new();
    if version.major == "1" && minor < OLDEST_MINOR {
        findings.push(
            Finding::bad("api-server", format!("Kubernetes {} is too old for the operator", version.git_version))
                .cure(format!("upgrade to 1.{OLDEST_MINOR} or later")),
        );
    } else {
        findings.push(Finding::good("api-server", format!("Kubernetes {} at {}", version.git_version, app.server)));
    }
    if let Some(skew) = skew(app).await
        && skew.abs() > SKEW_SECONDS
    {
        findings.push(
            Finding::warn("clock", format!("the clocks of this machine and the API server differ by {skew}s"))
                .cure("set the clock; ages and times shown here are wrong by that much"),
        );
    }
    (true, findings)
}

/// Seconds by which the server is ahead, from the Date header of an answer.
async fn skew(app: &App) -> Option<i64> {
    let request = kube::core::Request::new("").get("version", &GetParams::default()).ok()?;
    let before = Timestamp::now();
    let answer = app.client.send(request.map(Body::from)).await.ok()?;
    let took = Timestamp::now().duration_since(before);
    let date = answer.headers().get("date")?.to_str().ok()?;
    let server = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(server.duration_since(before).as_secs() - took.as_secs() / 2)
}

/// Definitions there, served, and nobody else on the same objects. Also says whether they are there.
pub(super) async fn definitions(app: &App) -> (Vec<Finding>, bool) {
    let names: Vec<String> = install::crds().unwrap_or_default().iter().map(|crd| crd.name().to_owned()).collect();
    let all = match list_all(&app.everywhere::<CustomResourceDefinition>(), ListParams::default(), "definitions").await
    {
        Ok(all) => all,
        Err(error) => return (vec![Finding::warn("definitions", error.to_string())], true),
    };
    let found: Vec<&CustomResourceDefinition> =
        all.iter().filter(|definition| names.contains(&definition.name_any())).collect();
    if found.is_empty() {
        let finding = Finding::bad("definitions", "kbbackup's resource definitions are not installed")
            .cure("kubectl kbbackup install");
        return (vec![finding], false);
    }
    let missing: Vec<&str> = names
        .iter()
        .filter(|name| !found.iter().any(|definition| definition.name_any() == **name))
        .map(String::as_str)
        .collect();
    let mut findings = Vec::new();
    if missing.is_empty() {
        findings.push(Finding::good("definitions", format!("all {} definitions are installed", names.len())));
    } else {
        findings.push(
            Finding::bad("definitions", format!("definitions are missing: {}", missing.join(", ")))
                .cure("kubectl kbbackup install --crds-only"),
        );
    }
    match foreign::look(app, &names).await {
        Ok(foreign) if !foreign.controllers.is_empty() => {
            findings.push(Finding::warn("other-controllers", foreign.describe()));
        }
        Ok(_) => {}
        Err(error) => findings.push(Finding::warn("other-controllers", error.to_string())),
    }
    (findings, missing.is_empty())
}

pub(super) async fn operator(app: &App) -> Vec<Finding> {
    let operator = match app.operator().await {
        Ok(operator) => operator,
        Err(error) => return vec![Finding::warn("operator", error.to_string())],
    };
    let others = foreign::controllers(app).await.unwrap_or_default();
    let Some(operator) = operator else {
        if others.is_empty() {
            return vec![
                Finding::bad("operator", "the operator is not installed; nothing would happen")
                    .cure("kubectl kbbackup install"),
            ];
        }
        return vec![Finding::good("operator", format!("this cluster is served by {}", others.join(", ")))];
    };
    let namespace = operator.namespace().unwrap_or_default();
    let mut findings = Vec::new();
    if !others.is_empty() {
        findings.push(
            Finding::bad(
                "operator",
                format!("two operators fight over the same objects: ours and {}", others.join(", ")),
            )
            .cure("scale one of the two to zero"),
        );
    }
    let status = operator.status.clone().unwrap_or_default();
    let image = image(&operator);
    if status.available_replicas.unwrap_or(0) > 0 {
        findings.push(Finding::good("operator", format!("the operator runs in namespace {namespace} ({image})")));
        return findings;
    }
    let mut message = format!("the operator in namespace {namespace} is not available ({image})");
    let labels = operator.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods = list_all(&app.within::<Pod>(&namespace), ListParams::default().labels(&selector.join(",")), "pods")
        .await
        .unwrap_or_default();
    for pod in &pods {
        for (container, why) in diagnose::troubles(pod) {
            message.push_str(&format!("\npod/{} {container}: {why}", pod.name_any()));
        }
    }
    let name = operator.name_any();
    findings.push(
        Finding::bad("operator", message)
            .cure(format!("kubectl describe pods -n {namespace}"))
            .cure(format!("kubectl logs -n {namespace} deployment/{name}")),
    );
    findings
}

fn image(operator: &Deployment) -> String {
    let container = operator.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()?.containers.first());
    container.and_then(|container| container.image.clone()).unwrap_or_default()
}

/// What this person needs for the everyday commands.
const NEEDED: [(&str, &str, &str, &str); 8] = [
    ("list backups", "list", "dataprotection.kubeblocks.io", "backups"),
    ("make backups", "create", "dataprotection.kubeblocks.io", "backups"),
    ("delete backups", "delete", "dataprotection.kubeblocks.io", "backups"),
    ("write policies", "create", "dataprotection.kubeblocks.io", "backuppolicies"),
    ("restore", "create", "dataprotection.kubeblocks.io", "restores"),
    ("look at StatefulSets", "get", "apps", "statefulsets"),
    ("read logs", "get", "", "pods/log"),
    ("see events", "list", "", "events"),
];

pub(super) async fn rights(app: &App) -> Vec<Finding> {
    let asked = NEEDED.iter().map(|need| allowed(app, need));
    let answers = futures::future::join_all(asked).await;
    let lacking: Vec<&str> =
        NEEDED.iter().zip(&answers).filter(|(_, answer)| **answer == Some(false)).map(|(need, _)| need.0).collect();
    if answers.iter().all(Option::is_none) {
        return vec![Finding::warn("rights", "the API server does not say what you may do")];
    }
    if lacking.is_empty() {
        return vec![Finding::good(
            "rights",
            format!("you may do all that backups need in namespace {}", app.namespace),
        )];
    }
    vec![
        Finding::warn("rights", format!("you may not {} in namespace {}", lacking.join(", "), app.namespace))
            .cure(format!("kubectl auth can-i --list -n {}", app.namespace)),
    ]
}

async fn allowed(app: &App, (_, verb, group, resource): &(&str, &str, &str, &str)) -> Option<bool> {
    let (resource, subresource) =
        resource.split_once('/').map_or((*resource, None), |(resource, sub)| (resource, Some(sub)));
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(app.namespace.clone()),
                verb: Some((*verb).to_owned()),
                group: Some((*group).to_owned()),
                resource: Some(resource.to_owned()),
                subresource: subresource.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = app.everywhere::<SelfSubjectAccessReview>().create(&PostParams::default(), &review).await.ok()?;
    answer.status.map(|status| status.allowed)
}

/// A default storage class, and snapshots.
pub(super) async fn storage(app: &App) -> Vec<Finding> {
    const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
    let Ok(classes) = list_all(&app.everywhere::<StorageClass>(), ListParams::default(), "storage classes").await
    else {
        return Vec::new();
    };
    let defaults: Vec<String> = classes
        .iter()
        .filter(|class| class.annotations().get(DEFAULT).is_some_and(|value| value == "true"))
        .map(ResourceExt::name_any)
        .collect();
    vec![match defaults.as_slice() {
        [] => Finding::warn(
            "storage-class",
            format!("no default storage class among {}", human::count(classes.len(), "class", "classes")),
        )
        .cure("kubectl get storageclasses")
        .cure("name one with --storage-class at restores and --embedded-storage-class at install"),
        names => Finding::good("storage-class", format!("default storage class {}", names.join(", "))),
    }]
}
