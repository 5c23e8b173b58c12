//! Who else looks after the same kinds. Two controllers on the same objects would fight.

use k8s_openapi::{
    api::apps::v1::Deployment, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Resource, ResourceExt, api::ListParams};

use kbbackup_api::names::labels;

use crate::{
    app::{App, PART_DEFINITIONS, list_all},
    error::Result,
};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// Deployments as `namespace/name`.
    pub controllers: Vec<String>,
    /// Definitions and who owns them.
    pub definitions: Vec<(String, String)>,
}

impl Foreign {
    pub(crate) fn is_empty(&self) -> bool {
        self.controllers.is_empty() && self.definitions.is_empty()
    }

    pub(crate) fn describe(&self) -> String {
        let mut parts = Vec::new();
        if !self.controllers.is_empty() {
            parts.push(format!("KubeBlocks' controller runs as deployment {}", self.controllers.join(", ")));
        }
        if let Some((name, owner)) = self.definitions.first() {
            let more = if self.definitions.len() > 1 {
                format!(" and {} more", self.definitions.len() - 1)
            } else {
                String::new()
            };
            parts.push(format!("customresourcedefinition/{name}{more} belong to {owner}"));
        }
        parts.join("; ")
    }
}

pub(crate) async fn look(app: &App, ours: &[String]) -> Result<Foreign> {
    Ok(Foreign { controllers: controllers(app).await?, definitions: definitions(app, ours).await? })
}

/// Deployments of KubeBlocks that handle data protection.
pub(crate) async fn controllers(app: &App) -> Result<Vec<String>> {
    let params = ListParams::default().labels("app.kubernetes.io/name=kubeblocks");
    let found = list_all(&app.everywhere::<Deployment>(), params, "deployments").await?;
    Ok(found
        .iter()
        .filter(|deployment| handles_backups(deployment))
        .map(|deployment| format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any()))
        .collect())
}

/// Up to 0.9 it may be part of the main manager; later it is a Deployment of its own. Scaled to zero it does no harm.
fn handles_backups(deployment: &Deployment) -> bool {
    let runs = deployment.spec.as_ref().is_none_or(|spec| spec.replicas != Some(0));
    runs && deployment.name_any().contains("dataprotection")
}

async fn definitions(app: &App, ours: &[String]) -> Result<Vec<(String, String)>> {
    let api = app.everywhere::<CustomResourceDefinition>();
    let mut foreign = Vec::new();
    for name in ours {
        let Some(definition) = api.get_opt(name).await.ok().flatten() else { continue };
        if let Some(owner) = owner(&definition, &app.field_manager) {
            foreign.push((name.clone(), owner));
        }
    }
    Ok(foreign)
}

/// Who wrote a definition, when it was not us.
fn owner(definition: &CustomResourceDefinition, ours: &str) -> Option<String> {
    if let Some(release) = definition.annotations().get("meta.helm.sh/release-name") {
        return Some(format!("Helm release {release}"));
    }
    if definition.labels().get(labels::PART).is_some_and(|part| part == PART_DEFINITIONS) {
        return None;
    }
    let managers: Vec<&str> = definition
        .meta()
        .managed_fields
        .iter()
        .flatten()
        // The API server itself writes the status.
        .filter(|entry| entry.subresource.as_deref().is_none_or(str::is_empty))
        .filter_map(|entry| entry.manager.as_deref())
        .collect();
    if managers.is_empty() || managers.contains(&ours) || managers.contains(&crate::app::FIELD_MANAGER) {
        return None;
    }
    Some(format!("field manager {}", managers.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(managers: &[(&str, &str)], release: Option<&str>) -> CustomResourceDefinition {
        let fields: Vec<_> = managers
            .iter()
            .map(
                |(manager, subresource)| json!({"manager": manager, "subresource": subresource, "operation": "Update"}),
            )
            .collect();
        let annotations = release.map(|name| json!({"meta.helm.sh/release-name": name})).unwrap_or(json!({}));
        serde_json::from_value(json!({
            "metadata": {"name": "backups.dataprotection.kubeblocks.io", "managedFields": fields, "annotations": annotations},
            "spec": {"group": "g", "names": {"kind": "Backup", "plural": "backups"}, "scope": "Namespaced", "versions": []}
        }))
        .unwrap()
    }

    #[test]
    fn a_definition_of_ours_is_ours() {
        let ours = definition(&[("kubectl-kbbackup", ""), ("kube-apiserver", "status")], None);
        assert_eq!(owner(&ours, "kubectl-kbbackup"), None);
    }

    #[test]
    fn definitions_that_carry_our_mark_are_ours_whoever_applied_them() {
        let mut applied = definition(&[("argocd-controller", "")], None);
        applied.labels_mut().insert(labels::PART.to_owned(), PART_DEFINITIONS.to_owned());
        assert_eq!(owner(&applied, "kubectl-kbbackup"), None);
    }

    #[test]
    fn helm_and_other_managers_are_named() {
        assert_eq!(owner(&definition(&[], Some("kubeblocks")), "x"), Some("Helm release kubeblocks".into()));
        assert_eq!(
            owner(&definition(&[("kubectl-create", "")], None), "x"),
            Some("field manager kubectl-create".into())
        );
    }
}
