//! The components and shardings of a cluster: what its own text says, corrected by the Components that KubeBlocks runs.

use kbbackup_api::apps::{Cluster, ClusterComponent, Component};
use kbbackup_api::names::{TRUE, annotations, labels};
use kbbackup_api::v1alpha1::BackupPolicyTemplate;
use kbbackup_core::pattern;
use kube::ResourceExt as _;

/// A component or a sharding, to which one policy belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Its name in the cluster.
    pub(super) name: String,
    /// Name of its definition.
    pub(super) definition: String,
    /// Version of the database.
    pub(super) version: String,
    /// Replicas of the component, or of each shard.
    pub(super) replicas: i32,
    /// Names of the components of a sharding, in order; `None` for a component.
    pub(super) shards: Option<Vec<String>>,
}

impl Part {
    /// The first template that is for the part's definition; one that gives way only where there is no other.
    pub(super) fn template<'a>(&self, templates: &[&'a BackupPolicyTemplate]) -> Option<&'a BackupPolicyTemplate> {
        let is_for = |template: &&&BackupPolicyTemplate| {
            template.spec.comp_defs.iter().any(|wanted| pattern::matches(wanted, &self.definition))
        };
        let gives_way = |template: &&BackupPolicyTemplate| {
            template.annotations().get(annotations::GIVES_WAY).is_some_and(|value| value == TRUE)
        };
        let all = || templates.iter().filter(is_for).copied();
        all().find(|template| !gives_way(template)).or_else(|| all().next())
    }
}

/// The parts of `cluster`. `running` are its Components: what they say is resolved, while the cluster may name its
/// definitions and versions by prefix, or not at all.
pub(super) fn parts(cluster: &Cluster, running: &[Component]) -> Vec<Part> {
    let components = cluster.spec.component_specs.iter().map(|spec| {
        let found = running.iter().find(|component| short_name(cluster, component) == spec.name);
        part(&spec.name, spec, found, None)
    });
    let shardings = cluster.spec.shardings.iter().map(|sharding| {
        let of: Vec<_> = running
            .iter()
            .filter(|component| component.labels().get(labels::SHARDING_NAME) == Some(&sharding.name))
            .collect();
        let mut shards: Vec<_> = of.iter().map(|component| short_name(cluster, component)).collect();
        shards.sort();
        part(&sharding.name, &sharding.template, of.first().copied(), Some(shards))
    });
    components.chain(shardings).collect()
}

fn part(name: &str, spec: &ClusterComponent, running: Option<&Component>, shards: Option<Vec<String>>) -> Part {
    let resolved =
        |running: Option<&String>, written: &String| running.filter(|text| !text.is_empty()).unwrap_or(written).clone();
    Part {
        name: name.to_owned(),
        definition: resolved(running.map(|component| &component.spec.comp_def), &spec.component_def),
        version: resolved(running.map(|component| &component.spec.service_version), &spec.service_version),
        replicas: spec.replicas.or_else(|| running.and_then(|component| component.spec.replicas)).unwrap_or(1),
        shards,
    }
}

/// The name that a Component has within its cluster.
fn short_name(cluster: &Cluster, component: &Component) -> String {
    let labelled = component.labels().get(labels::COMPONENT_NAME).filter(|name| !name.is_empty()).cloned();
    labelled.unwrap_or_else(|| {
        let name = component.name_any();
        let prefix = format!("{}-", cluster.name_any());
        name.strip_prefix(&prefix).map(str::to_owned).unwrap_or(name)
    })
}
