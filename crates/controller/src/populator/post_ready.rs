//! The actions after start of a restored component: behaviour 6.9, step 9.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{
    Backup, BackupRef, BackupStatusTarget, ConnectionCredential, DataRestorePolicy, ExecAction, ExecActionTarget,
    JobAction, JobActionTarget, PodSelectionStrategy, PodSelector, ReadyConfig, RequiredPolicyForAllPodSelection,
    Restore, RestorePhase, RestoreSpec,
};
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use super::choose::{self, Choice};
use super::wish::{self, Source, Wish};
use super::{apply, decide, kubeblocks, observe};
use crate::backup::plan;
use crate::context::Context;
use crate::error::is_conflict;
use crate::restore::{lineage, sets};
use crate::worker::error::{Doing as _, Error, Refusal};

/// How far the actions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Done, or there are none.
    Done,
    /// In words, for people.
    Wait(String),
    /// In words, for people.
    Failed(String),
}

/// Brings the actions after start of the claim's component a step further.
///
/// # Errors
/// [`Error::Refused`] when they cannot run.
pub async fn advance(ctx: &Context, claim: &PersistentVolumeClaim, source: &Source) -> Result<After, Error> {
    let (Source::Backup { namespace: home, name }, Some((cluster, component))) = (source, kubeblocks::component(claim))
    else {
        return Ok(After::Done);
    };
    if !wish::of_cluster(claim) {
        return Ok(After::Done);
    }
    let namespace = claim.namespace().unwrap_or_default();
    let object_name = format!("{cluster}-{component}");
    let Some(object) = kubeblocks::get(ctx, kubeblocks::APPS, "Component", Some(&namespace), &object_name).await?
    else {
        return Ok(After::Wait(format!("component {object_name} does not exist yet")));
    };
    let restores = Api::<Restore>::namespaced(ctx.client.clone(), &namespace);
    let restore_name = name_for(&object);
    if let Some(restore) = restores.get_opt(&restore_name).await.doing(|| format!("reading restore {restore_name}"))? {
        return Ok(match restore.status.as_ref().and_then(|status| status.phase) {
            Some(RestorePhase::Completed) => After::Done,
            Some(RestorePhase::Failed) => After::Failed(format!("restore {restore_name} failed")),
            _ => After::Wait(format!("restore {restore_name} runs")),
        });
    }
    let wish = Wish::of(claim)?;
    let backups = Api::<Backup>::namespaced(ctx.client.clone(), home);
    let backup = backups.get_opt(name).await.doing(|| format!("reading backup {home}/{name}"))?;
    let backup = backup.ok_or_else(|| {
        Refusal::fatal(format!("backup {home}/{name} is gone, so its actions after start cannot run"))
    })?;
    let shards = kubeblocks::shards(ctx, claim).await?;
    let chosen = choose::choose(&backup, claim, &wish, shards.as_deref())?;
    // A shard beyond those of the backup, or a component that the backup does not hold, has nothing to do.
    let Choice::Data { target, .. } = chosen else { return Ok(After::Done) };
    let spec = RestoreSpec {
        backup: BackupRef {
            name: name.clone(),
            namespace: home.clone(),
            source_target_name: Some(target.clone()).filter(|name| !name.is_empty()),
        },
        restore_time: wish.restore_time.clone(),
        env: wish.env.clone(),
        parameters: wish.parameters.clone(),
        ..RestoreSpec::default()
    };
    let mut restore = Restore::new(&restore_name, spec);
    restore.metadata.namespace = Some(namespace.clone());
    let sets = Box::pin(lineage::sets(ctx, &restore, &backup)).await?;
    let acts = |set: &sets::Set| set.action_set.spec.restore.as_ref().is_some_and(|it| !it.post_ready.is_empty());
    if !sets.iter().any(acts) {
        return Ok(After::Done);
    }
    let selector = kubeblocks::component_selector(claim).unwrap_or_default();
    let claims = observe::claims(ctx, &namespace)
        .list(&ListParams::default().labels(&selector))
        .await
        .doing(|| "listing the claims of the component".to_owned())?;
    let mut open = claims.items.iter().filter(|other| wish::of_cluster(other) && !decide::is_bound(other));
    if let Some(open) = open.next() {
        return Ok(After::Wait(format!("claim {} is not bound yet", open.name_any())));
    }
    if !kubeblocks::is_running(&object) || kubeblocks::is_in_post_provision(&object) {
        return Ok(After::Wait(format!("component {object_name} is not running yet")));
    }
    if wish.defer_post_ready {
        let found = kubeblocks::get(ctx, kubeblocks::APPS, "Cluster", Some(&namespace), cluster).await?;
        if !found.as_ref().is_some_and(kubeblocks::is_running) {
            return Ok(After::Wait(format!("cluster {cluster} is not running yet")));
        }
    }
    let definition = match object.data["spec"]["compDef"].as_str() {
        Some(name) => kubeblocks::get(ctx, kubeblocks::APPS, "ComponentDefinition", None, name).await?,
        None => None,
    };
    let recorded = sets::source_target(&backup, restore.spec.backup.source_target_name.as_deref())?;
    restore.spec.ready_config = Some(ready_config(claim, &object, definition.as_ref(), recorded));
    restore.metadata.labels = Some(own_labels(claim, &restore));
    restore.metadata.owner_references = kubeblocks::owner_reference(&object).map(|owner| vec![owner]);
    let params = PostParams { field_manager: Some(apply::MANAGER.to_owned()), ..PostParams::default() };
    match restores.create(&params, &restore).await {
        Err(error) if !is_conflict(&error) => Err(error).doing(|| format!("creating restore {restore_name}")),
        _ => Ok(After::Wait(format!("restore {restore_name} runs"))),
    }
}

fn name_for(component: &DynamicObject) -> String {
    format!("restore-{}-post-ready", component.metadata.uid.as_deref().unwrap_or_default())
}

fn own_labels(claim: &PersistentVolumeClaim, restore: &Restore) -> BTreeMap<String, String> {
    let mut own = kubeblocks::component_labels(claim);
    own.extend([
        (labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_DATAPROTECTION.to_owned()),
        (labels::BACKUP_NAME.to_owned(), restore.spec.backup.name.clone()),
    ]);
    own
}

/// Exec actions reach every pod of the component, Jobs those of the role that is updated last.
fn ready_config(
    claim: &PersistentVolumeClaim,
    component: &DynamicObject,
    definition: Option<&DynamicObject>,
    recorded: &BackupStatusTarget,
) -> ReadyConfig {
    let all = kubeblocks::component_labels(claim);
    let mut chosen = all.clone();
    chosen.extend(definition.and_then(highest_role).map(|role| (labels::ROLE.to_owned(), role)));
    let strategy = plan::strategy(recorded);
    let one_to_one = RequiredPolicyForAllPodSelection {
        data_restore_policy: DataRestorePolicy::OneToOne,
        source_of_one_to_many: None,
    };
    let secret = definition
        .and_then(|definition| account(definition, component))
        .map(|user| format!("{}-account-{}", component.name_any(), user.replace('_', "-")));
    ReadyConfig {
        exec_action: Some(ExecAction {
            target: Some(ExecActionTarget {
                pod_selector: LabelSelector { match_labels: Some(all), match_expressions: None },
            }),
        }),
        job_action: Some(JobAction {
            required_policy_for_all_pod_selection: (strategy == PodSelectionStrategy::All).then_some(one_to_one),
            target: JobActionTarget {
                pod_selector: PodSelector { match_labels: chosen, strategy: Some(strategy), ..PodSelector::default() },
                ..JobActionTarget::default()
            },
        }),
        connection_credential: secret.map(|secret_name| ConnectionCredential {
            secret_name,
            username_key: Some("username".to_owned()),
            password_key: Some("password".to_owned()),
            ..ConnectionCredential::default()
        }),
        ..ReadyConfig::default()
    }
}

fn list<'a>(object: &'a DynamicObject, field: &str) -> impl Iterator<Item = &'a Value> {
    object.data["spec"][field].as_array().into_iter().flatten()
}

fn highest_role(definition: &DynamicObject) -> Option<String> {
    let roles = list(definition, "roles");
    let highest = roles.max_by_key(|role| role["updatePriority"].as_i64().unwrap_or_default())?;
    highest["name"].as_str().map(str::to_owned)
}

/// The initial account, else the first one that the component has not switched off.
fn account(definition: &DynamicObject, component: &DynamicObject) -> Option<String> {
    let disabled = |account: &&Value| {
        list(component, "systemAccounts").any(|own| own["name"] == account["name"] && own["disabled"] == true)
    };
    let initial = list(definition, "systemAccounts").find(|account| account["initAccount"] == true);
    let chosen = initial.or_else(|| list(definition, "systemAccounts").find(|account| !disabled(account)))?;
    chosen["name"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, name: &str, spec: Value) -> DynamicObject {
        serde_json::from_value(json!({ "apiVersion": "apps.kubeblocks.io/v1", "kind": kind,
            "metadata": {"name": name, "namespace": "demo", "uid": "0c0ffee0-1111"}, "spec": spec }))
        .unwrap()
    }

    fn definition(accounts: Value) -> DynamicObject {
        let roles = json!([{"name": "leader", "updatePriority": 5}, {"name": "follower", "updatePriority": 1}]);
        object("ComponentDefinition", "mysql", json!({ "roles": roles, "systemAccounts": accounts }))
    }

    #[test]
    fn behaviour_6_9_the_restore_after_start() {
        let component = object("Component", "new-mysql", json!({ "compDef": "mysql" }));
        assert_eq!(name_for(&component), "restore-0c0ffee0-1111-post-ready");
        let claim = serde_json::from_value(json!({ "metadata": {"name": "data-0", "namespace": "demo", "labels":
            {labels::INSTANCE: "new", labels::COMPONENT_NAME: "mysql"}} }))
        .unwrap();
        let recorded =
            serde_json::from_value(json!({ "podSelector": {"strategy": "All"}, "selectedTargetPods": ["a"] }));
        let accounts = json!([{"name": "kb_probe"}, {"name": "kb_admin", "initAccount": true}]);
        let definition = definition(accounts);
        insta::assert_yaml_snapshot!(ready_config(&claim, &component, Some(&definition), &recorded.unwrap()));
    }

    #[test]
    fn behaviour_6_9_the_account_is_the_initial_one_or_the_first_enabled() {
        let component = object("Component", "c", json!({ "systemAccounts": [{"name": "one", "disabled": true}] }));
        assert_eq!(account(&definition(json!([{"name": "one"}, {"name": "two"}])), &component).as_deref(), Some("two"));
        assert_eq!(account(&definition(json!([])), &component), None);
    }
}
