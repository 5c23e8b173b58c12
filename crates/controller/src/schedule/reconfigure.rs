//! Parameters of the database that a continuous entry needs, or needs no longer: behaviour 5.5. KubeBlocks changes them;
//! it is asked by an `OpsRequest`, whose name is the same at each try.

use std::collections::BTreeMap;

use kbbackup_api::apps::{OpsRequest, OpsRequestSpec};
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{BackupPolicy, BackupSchedule};
use kube::api::{ListParams, PostParams};
use kube::core::ObjectMeta;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{apply, build, decide};
use crate::cluster::record;
use crate::context::Context;
use crate::error::{is_conflict, is_not_found};
use crate::worker::error::{Doing as _, Error};

/// Phases of a cluster in which KubeBlocks changes parameters.
const READY: [&str; 4] = ["Running", "Updating", "Abnormal", "Failed"];

/// Phases of an `OpsRequest` that will never be `Succeed`.
const LOST: [&str; 3] = ["Failed", "Cancelled", "Aborted"];

/// Where the parameters of an entry stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// As they should be, or nobody wants anything.
    Nothing,
    /// Nobody is there who could change them; why. Archiving is tried all the same.
    Untold(String),
    /// They are being changed, or will be; what for.
    Waiting(String),
    /// They could not be changed; why.
    Failed(String),
}

/// The annotation `reconfigure-ref`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Reference {
    /// Name of the configuration template.
    name: String,
    /// The file in it.
    key: String,
    /// What to set for each method when its entry is enabled,
    #[serde(default)]
    enable: BTreeMap<String, Vec<Parameter>>,
    /// and when it is not.
    #[serde(default)]
    disable: BTreeMap<String, Vec<Parameter>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Parameter {
    key: String,
    /// `None` removes it from the file.
    #[serde(default)]
    value: Option<String>,
}

/// What is wanted of a method's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    reference: Reference,
    method: String,
    enabled: bool,
    parameters: Vec<Parameter>,
    /// What was asked for last, by method.
    applied: BTreeMap<String, String>,
    generation: u64,
}

impl Wish {
    /// Whether this was asked for already. Texts may differ in how they are written.
    fn is_applied(&self) -> bool {
        let last = self.applied.get(&self.method);
        last.and_then(|text| serde_json::from_str::<Vec<Parameter>>(text).ok()).as_ref() == Some(&self.parameters)
    }

    fn text(&self) -> String {
        json!(self.parameters).to_string()
    }

    fn name(&self, schedule: &BackupSchedule) -> String {
        let verb = if self.enabled { "enable" } else { "disable" };
        kbbackup_core::names::shorten63(&format!("{}-{verb}-{}", schedule.name_any(), self.generation + 1))
    }
}

/// What an entry wants of its database's parameters, if anything.
fn wish(schedule: &BackupSchedule, entry: &str) -> Result<Option<Wish>, String> {
    let note = |key: &str| schedule.annotations().get(key).map(String::as_str).filter(|text| !text.is_empty());
    let Some(text) = note(annotations::RECONFIGURE_REF) else { return Ok(None) };
    let unreadable = |key: &str, error: &dyn std::fmt::Display| {
        format!("annotation {key} cannot be read: {error}; correct it, or remove it")
    };
    let reference: Reference =
        serde_json::from_str(text).map_err(|error| unreadable(annotations::RECONFIGURE_REF, &error))?;
    let Some(entry) = schedule.spec.schedules.iter().find(|found| found.name() == entry) else { return Ok(None) };
    let (enabled, method) = (entry.enabled == Some(true), entry.backup_method.clone());
    let parameters = if enabled { &reference.enable } else { &reference.disable };
    let Some(parameters) = parameters.get(&method).filter(|parameters| !parameters.is_empty()).cloned() else {
        return Ok(None);
    };
    let applied =
        match (note(annotations::LAST_APPLIED_CONFIGURATIONS), note(annotations::LAST_APPLIED_CONFIGURATION)) {
            (Some(text), _) => serde_json::from_str(text)
                .map_err(|error| unreadable(annotations::LAST_APPLIED_CONFIGURATIONS, &error))?,
            (None, Some(text)) => BTreeMap::from([(method.clone(), text.to_owned())]),
            (None, None) => BTreeMap::new(),
        };
    if !enabled && !applied.contains_key(&method) {
        // The database was never told otherwise.
        return Ok(None);
    }
    let generation = note(annotations::RECONFIGURE_GENERATION).unwrap_or("0");
    let generation = generation.parse().map_err(|error| unreadable(annotations::RECONFIGURE_GENERATION, &error))?;
    Ok(Some(Wish { reference, method, enabled, parameters, applied, generation }))
}

/// The cluster and the component whose parameters they are: the first target says it.
fn place(policy: &BackupPolicy, method: &str) -> Option<(String, String)> {
    let method = policy.spec.backup_methods.iter().find(|found| found.name == method)?;
    let labels = build::first_target(policy, method).and_then(build::target_labels)?;
    let component = labels.get(labels::COMPONENT_NAME).or_else(|| labels.get(labels::SHARDING_NAME))?;
    Some((labels.get(labels::INSTANCE)?.clone(), component.clone()))
}

fn request(schedule: &BackupSchedule, wish: &Wish, cluster: &str, component: &str) -> OpsRequest {
    let Reference { name, key, .. } = &wish.reference;
    OpsRequest {
        metadata: ObjectMeta {
            name: Some(wish.name(schedule)),
            namespace: schedule.namespace(),
            labels: Some(BTreeMap::from([(labels::BACKUP_SCHEDULE.to_owned(), schedule.name_any())])),
            ..ObjectMeta::default()
        },
        spec: OpsRequestSpec {
            kind: "Reconfiguring".to_owned(),
            cluster_name: cluster.to_owned(),
            // Said in both ways that KubeBlocks' definition has had; the API server drops the one that it does not know.
            reconfigures: vec![json!({
                "componentName": component,
                "configurations": [{"name": name, "keys": [{"key": key, "parameters": wish.parameters}]}],
                "parameters": wish.parameters,
            })],
        },
        status: None,
    }
}

/// What the newest request of the schedule says about parameters that were asked for.
fn outcome(requests: &[OpsRequest]) -> Step {
    let Some(newest) = requests.iter().max_by_key(|request| request.creation_timestamp()) else {
        return Step::Nothing;
    };
    let name = newest.name_any();
    match newest.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default() {
        "Succeed" => Step::Nothing,
        phase if LOST.contains(&phase) => Step::Failed(format!(
            "the database's parameters could not be changed: opsrequest {name} is {phase}; see why with kubectl describe, \
             mend it, and switch the entry off and on"
        )),
        _ => Step::Waiting(format!("the database's parameters are being changed by opsrequest {name}")),
    }
}

/// Has the parameters of an entry changed when they have to be, and says how far that is.
///
/// # Errors
/// Those of the API server that may pass.
pub(super) async fn step(
    ctx: &Context,
    schedule: &mut BackupSchedule,
    policy: Option<&BackupPolicy>,
    entry: &str,
) -> Result<Step, Error> {
    let wish = match wish(schedule, entry) {
        Err(why) => return Ok(Step::Failed(why)),
        Ok(None) => return Ok(Step::Nothing),
        Ok(Some(wish)) => wish,
    };
    let namespace = schedule.namespace().unwrap_or_default();
    let api = Api::<OpsRequest>::namespaced(ctx.client.clone(), &namespace);
    let ours = ListParams::default().labels(&format!("{}={}", labels::BACKUP_SCHEDULE, schedule.name_any()));
    let requests = match api.list(&ours).await {
        Ok(list) => list.items,
        Err(error) if is_not_found(&error) => {
            return Ok(Step::Untold(format!(
                "annotation {} wants parameters of the database changed, but this cluster does not serve KubeBlocks' \
                 OpsRequests; change them by hand, then remove the annotation",
                annotations::RECONFIGURE_REF
            )));
        }
        Err(error) => return Err(error).doing(|| format!("listing the opsrequests of {namespace}")),
    };
    if wish.is_applied() {
        return Ok(outcome(&requests));
    }
    let Some((cluster, component)) = policy.and_then(|policy| place(policy, &wish.method)) else {
        return Ok(Step::Failed(format!(
            "annotation {} wants parameters of the database changed, but the first target of method {} does not say \
             whose: its podSelector needs the labels {} and {}",
            annotations::RECONFIGURE_REF,
            wish.method,
            labels::INSTANCE,
            labels::COMPONENT_NAME
        )));
    };
    let found = record::cluster(ctx, &namespace, &cluster).await?;
    let phase = found.as_ref().and_then(|found| found.data.pointer("/status/phase")?.as_str());
    if !phase.is_some_and(|phase| READY.contains(&phase)) {
        let is = phase.map_or("does not exist, or has no phase yet".to_owned(), |phase| format!("is {phase}"));
        return Ok(Step::Waiting(format!(
            "the database's parameters are changed when cluster {cluster} runs; it {is}"
        )));
    }
    ask(ctx, &api, schedule, &requests, &wish, request(schedule, &wish, &cluster, &component)).await
}

async fn ask(
    ctx: &Context,
    api: &Api<OpsRequest>,
    schedule: &mut BackupSchedule,
    known: &[OpsRequest],
    wish: &Wish,
    wanted: OpsRequest,
) -> Result<Step, Error> {
    let name = wanted.name_any();
    let create = PostParams { field_manager: Some("kbbackup/schedule".to_owned()), ..PostParams::default() };
    let mut applied = wish.applied.clone();
    match api.create(&create, &wanted).await {
        Ok(_) => {
            let note = format!("asked KubeBlocks to set {} by opsrequest {name}", wish.text());
            ctx.event(schedule, EventType::Normal, "Reconfiguring", note).await;
            applied.insert(wish.method.clone(), wish.text());
        }
        Err(error) if is_conflict(&error) => match known.iter().find(|found| found.name_any() == name) {
            // Made by a try that got no further. When something else is wanted by now, the next number is taken.
            Some(found) if is_same(found, &wanted) => {
                applied.insert(wish.method.clone(), wish.text());
            }
            Some(_) => {}
            None => {
                return Ok(Step::Failed(format!(
                    "an opsrequest {name} exists that was made for something else; delete it"
                )));
            }
        },
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            return Ok(Step::Failed(format!("opsrequest {name} was refused by the API server: {}", status.message)));
        }
        Err(error) => return Err(error).doing(|| format!("creating opsrequest {name}")),
    }
    let notes = BTreeMap::from([
        (annotations::LAST_APPLIED_CONFIGURATIONS, (!applied.is_empty()).then(|| json!(applied).to_string())),
        (annotations::LAST_APPLIED_CONFIGURATION, None),
        (annotations::RECONFIGURE_GENERATION, Some((wish.generation + 1).to_string())),
    ]);
    *schedule = apply::metadata(&ctx.client, schedule.clone(), &BTreeMap::new(), &notes).await?;
    Ok(Step::Waiting(format!("the database's parameters are being changed by opsrequest {name}")))
}

/// Whether both ask for the same; the API server may have dropped one of the two ways in which it is said.
fn is_same(found: &OpsRequest, wanted: &OpsRequest) -> bool {
    let said = |request: &OpsRequest, pointer: &str| {
        request.spec.reconfigures.first().and_then(|first| first.pointer(pointer).cloned())
    };
    let agree = |pointer: &str| said(found, pointer).is_none_or(|has| Some(has) == said(wanted, pointer));
    found.spec.cluster_name == wanted.spec.cluster_name
        && ["/componentName", "/configurations/0/keys/0/parameters", "/parameters"].into_iter().all(agree)
}

/// Whether a continuous entry's Backup is looked after now: one that is to archive waits for the parameters it needs.
pub(super) fn goes_on(step: &Step, wish: &decide::Continuous) -> bool {
    !wish.restart || matches!(step, Step::Nothing | Step::Untold(_))
}

/// What is awaited, in words.
pub(super) fn told(waiting: &BTreeMap<String, String>) -> Option<String> {
    let all: Vec<_> = waiting.iter().map(|(entry, why)| format!("entry {entry}: {why}")).collect();
    (!all.is_empty()).then(|| all.join("; "))
}
