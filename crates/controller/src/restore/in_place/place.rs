//! Where the volumes of a restore in place are made: within reach of the pods that will use them.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Affinity, NodeAffinity, NodeSelector, Toleration};
use kbbackup_api::in_place::claim_name;
use kbbackup_api::v1alpha1::Restore;
use kube::ResourceExt as _;

use super::observe;
use crate::context::Context;
use crate::restore::build;
use crate::worker::error::Error;

/// The nodes that reach the old volume of a pod, and the taints that the pod tolerates. A class that waits for its first
/// consumer makes the new volume there, too; a pod that has other volumes, or rules of its own, could not follow it anywhere.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::restore) struct Place {
    nodes: NodeSelector,
    tolerations: Vec<Toleration>,
}

/// The place for the claims of `replica`; `None` when the restore says where itself, or the old volume is reached from
/// everywhere.
pub(in crate::restore) async fn place(
    ctx: &Context,
    restore: &Restore,
    name: &str,
    replica: usize,
) -> Result<Option<Place>, Error> {
    let config = restore.spec.prepare_data_config.as_ref();
    if config.is_some_and(|config| config.scheduling_spec.is_some()) {
        return Ok(None);
    }
    let Some(set) = observe::set(ctx, restore, name).await? else { return Ok(None) };
    for claim in build::claims(restore, replica) {
        let volume = claim.wish.volume.volume_source.as_deref().unwrap_or_default();
        let old = claim_name(volume, &set.name_any(), claim.replica.unwrap_or_default());
        let Some(old) = observe::claim(ctx, restore, &old).await? else { continue };
        let Some(volume) = observe::volume_name(&old) else { continue };
        let volume = observe::volume(ctx, &volume).await?;
        let nodes = volume.and_then(|volume| volume.spec?.node_affinity?.required);
        if let Some(nodes) = nodes {
            let pod = set.spec.and_then(|spec| spec.template.spec);
            return Ok(Some(Place { nodes, tolerations: pod.and_then(|pod| pod.tolerations).unwrap_or_default() }));
        }
    }
    Ok(None)
}

impl Place {
    /// Sends the pod of a Job there.
    pub(in crate::restore) fn send(self, job: &mut Job) {
        let Some(pod) = job.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()) else { return };
        pod.node_selector = None;
        pod.tolerations.get_or_insert_default().extend(self.tolerations);
        let required = Some(self.nodes);
        let node_affinity =
            NodeAffinity { required_during_scheduling_ignored_during_execution: required, ..NodeAffinity::default() };
        pod.affinity = Some(Affinity { node_affinity: Some(node_affinity), ..Affinity::default() });
    }
}
