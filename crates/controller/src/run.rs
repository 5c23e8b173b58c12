//! All watches, owners and concurrency of the operator, on one page.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::storage::v1::CSIDriver;
use kbbackup_api::apps::{self, Cluster, ComponentDefinition, OpsRequest};
use kbbackup_api::names::labels;
use kbbackup_api::snapshot::{VOLUME_SNAPSHOTS, VolumeSnapshot};
use kbbackup_api::v1alpha1::{
    ActionSet, BackupPolicy, BackupPolicyTemplate, BackupRepo, BackupSchedule, Restore, StorageProvider,
};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::Store;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::backup::alarm;
use crate::catalogue::Entry;
use crate::context::{Context, Stores};
use crate::error::{Class, Classified};
use crate::watch::{Guarded, Scope, Shared, Watched, hollow_out};
use crate::{actionset, backup, cluster, policy, policy_template, populator, provider, repo, restore, schedule};

/// The watches of the process: one per kind, whoever looks at it.
struct Watches {
    providers: Shared<Guarded<StorageProvider>>,
    repos: Shared<Guarded<BackupRepo>>,
    action_sets: Shared<Guarded<ActionSet>>,
    policies: Shared<Guarded<BackupPolicy>>,
    backups: Shared<Entry>,
    restores: Shared<Guarded<Restore>>,
    schedules: Shared<Guarded<BackupSchedule>>,
    cron_jobs: Shared<CronJob>,
    jobs: Shared<Job>,
    pods: Shared<Pod>,
    stateful_sets: Shared<StatefulSet>,
    channels: Shared<ConfigMap>,
    repo_claims: Shared<PersistentVolumeClaim>,
    /// Those that are filled from a backup.
    claims: Shared<populator::Claim>,
    csi_drivers: Shared<CSIDriver>,
    templates: Shared<Guarded<BackupPolicyTemplate>>,
    clusters: Shared<Guarded<Cluster>>,
    component_definitions: Shared<PartialObjectMeta<ComponentDefinition>>,
    /// Those that schedules have made.
    ops_requests: Shared<PartialObjectMeta<OpsRequest>>,
    volume_snapshots: Shared<VolumeSnapshot>,
}

impl Watches {
    fn new(client: &Client, scope: &Scope) -> Self {
        // Small pages: until an object is read and stripped it weighs up to tens of KiB.
        let all = || watcher::Config::default().page_size(PAGE);
        // Only what the operator made: other people's Jobs and Pods cost neither traffic nor memory.
        let ours = || all().labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGED_BY_DATAPROTECTION));
        Self {
            providers: Shared::new(Api::all(client.clone()), all(), |_| ()),
            repos: Shared::new(Api::all(client.clone()), all(), |_| ()),
            action_sets: Shared::new(Api::all(client.clone()), all(), |_| ()),
            policies: Shared::new(Api::all(client.clone()), all(), |_| ()).within(scope),
            backups: Shared::new(Api::all(client.clone()), all(), |_| ()).grouped().within(scope),
            restores: Shared::new(Api::all(client.clone()), all(), |_| ()).within(scope),
            schedules: Shared::new(Api::all(client.clone()), all(), |_| ()).within(scope),
            cron_jobs: Shared::new(Api::all(client.clone()), ours(), |cron_job: &mut CronJob| {
                if let Some(spec) = &mut cron_job.spec {
                    spec.job_template = k8s_openapi::api::batch::v1::JobTemplateSpec::default();
                }
            })
            .within(scope),
            jobs: Shared::new(Api::all(client.clone()), ours(), |job: &mut Job| {
                if let Some(spec) = &mut job.spec {
                    spec.template = k8s_openapi::api::core::v1::PodTemplateSpec::default();
                }
            })
            .grouped()
            .within(scope),
            pods: Shared::new(Api::all(client.clone()), ours(), |pod: &mut Pod| {
                pod.spec = None;
                hollow_out(pod);
            })
            .grouped()
            .within(scope),
            stateful_sets: Shared::new(Api::all(client.clone()), ours(), |set: &mut StatefulSet| {
                if let Some(spec) = &mut set.spec {
                    spec.template = k8s_openapi::api::core::v1::PodTemplateSpec::default();
                }
            })
            .within(scope),
            channels: Shared::new(Api::all(client.clone()), ours(), |_| ()).within(scope),
            repo_claims: Shared::new(Api::all(client.clone()), all().labels(labels::BACKUP_REPO_NAME), |_| ()),
            claims: Shared::new(Api::all(client.clone()), all(), populator::slim_down)
                .keep(populator::concerns_us)
                .within(scope),
            csi_drivers: Shared::new(Api::all(client.clone()), all(), |driver| driver.spec.token_requests = None),
            templates: Shared::new(Api::all(client.clone()), all(), |_| ()),
            clusters: Shared::new(Api::all(client.clone()), all(), hollow_out)
                .within(scope)
                .when_served(client, apps::CLUSTERS),
            component_definitions: Shared::new(
                Api::all(client.clone()),
                all(),
                |definition: &mut PartialObjectMeta<ComponentDefinition>| {
                    definition.metadata.annotations = None;
                },
            )
            .when_served(client, apps::COMPONENT_DEFINITIONS),
            ops_requests: Shared::new(Api::all(client.clone()), all().labels(labels::BACKUP_SCHEDULE), |_| ())
                .within(scope)
                .when_served(client, apps::OPS_REQUESTS),
            volume_snapshots: Shared::new(Api::all(client.clone()), ours(), |_| ())
                .within(scope)
                .when_served(client, VOLUME_SNAPSHOTS),
        }
    }

    fn stores(&self) -> Stores {
        Stores {
            providers: self.providers.reader(),
            repos: self.repos.reader(),
            action_sets: self.action_sets.reader(),
            policies: self.policies.reader(),
            backups: self.backups.pool(),
            restores: self.restores.reader(),
            schedules: self.schedules.reader(),
            cron_jobs: self.cron_jobs.reader(),
            jobs: self.jobs.pool(),
            pods: self.pods.pool(),
            stateful_sets: self.stateful_sets.reader(),
            channels: self.channels.reader(),
            csi_drivers: self.csi_drivers.reader(),
            templates: self.templates.reader(),
            clusters: self.clusters.reader(),
            component_definitions: self.component_definitions.reader(),
            volume_snapshots: self.volume_snapshots.reader(),
        }
    }

    fn run(self) -> Vec<BoxFuture<'static, ()>> {
        let Self {
            providers,
            repos,
            action_sets,
            policies,
            backups,
            restores,
            schedules,
            cron_jobs,
            jobs,
            pods,
            stateful_sets,
            channels,
            repo_claims,
            claims,
            csi_drivers,
            templates,
            clusters,
            component_definitions,
            ops_requests,
            volume_snapshots,
        } = self;
        vec![
            providers.run().boxed(),
            repos.run().boxed(),
            action_sets.run().boxed(),
            policies.run().boxed(),
            backups.run().boxed(),
            restores.run().boxed(),
            schedules.run().boxed(),
            cron_jobs.run().boxed(),
            jobs.run().boxed(),
            pods.run().boxed(),
            stateful_sets.run().boxed(),
            channels.run().boxed(),
            repo_claims.run().boxed(),
            claims.run().boxed(),
            csi_drivers.run().boxed(),
            templates.run().boxed(),
            clusters.run().boxed(),
            component_definitions.run().boxed(),
            ops_requests.run().boxed(),
            volume_snapshots.run().boxed(),
        ]
    }
}

/// Every controller of the process, running until `ctx.stop` is cancelled; reconciles under way are finished first.
pub async fn run(client: Client, scope: &Scope, make_context: impl FnOnce(Stores) -> Context) {
    let mut watches = Watches::new(&client, scope);
    let ctx = Arc::new(make_context(watches.stores()));
    let controllers: Vec<BoxFuture<'static, ()>> = vec![
        providers(&ctx, &mut watches).boxed(),
        repos(&ctx, &mut watches).boxed(),
        action_sets(&ctx, &mut watches).boxed(),
        policies(&ctx, &mut watches).boxed(),
        schedules(&ctx, &mut watches).boxed(),
        backups(&ctx, &mut watches).boxed(),
        restores(&ctx, &mut watches).boxed(),
        populator(&ctx, &mut watches).boxed(),
        policy_templates(&ctx, &mut watches).boxed(),
        until_stopped(ctx.stop.clone(), ctx.stores.clusters.clone(), clusters(&ctx, &mut watches)).boxed(),
    ];
    let work = async {
        // A provider that is only not listed yet would look like one that is gone, and fail its repositories.
        tokio::select! {
            () = listed(&ctx.stores) => drop(futures::future::join_all(controllers).await),
            () = ctx.stop.cancelled() => {}
        }
    };
    // The watches end with the last controller, not before: a reconcile that is being finished may read a store.
    tokio::select! {
        () = work => {}
        _ = futures::future::join_all(watches.run()) => {}
    }
}

/// A controller of a kind that may never be listed: it would wait for that list even when it is told to stop.
async fn until_stopped<K: Watched>(stop: CancellationToken, store: Store<K>, controller: impl Future<Output = ()>) {
    let unlisted = async {
        stop.cancelled().await;
        if store.wait_until_ready().now_or_never().is_some() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = controller => {}
        () = unlisted => {}
    }
}

/// Waits until what reconciles look up without asking the API server is known. An error means that the watch has ended, and
/// with it the process.
async fn listed(stores: &Stores) {
    let Stores { providers, repos, action_sets, policies, csi_drivers, .. } = stores;
    drop(futures::join!(
        providers.wait_until_ready(),
        repos.wait_until_ready(),
        action_sets.wait_until_ready(),
        policies.wait_until_ready(),
        csi_drivers.wait_until_ready(),
    ));
}

/// StorageProvider: wakes on the CSI driver that it names.
fn providers(ctx: &Arc<Context>, watches: &mut Watches) -> impl Future<Output = ()> + use<> {
    let store = ctx.stores.providers.clone();
    let controller = Controller::for_shared_stream(watches.providers.subscribe(), store.clone())
        .watches_shared_stream(watches.csi_drivers.subscribe(), move |driver| {
            provider::naming_driver(&store.state(), &driver.name_any())
        });
    drive(controller, 1, provider::reconcile, ctx)
}

/// BackupRepo: wakes on its provider, its credential Secret, its own children, and on who waits for it.
fn repos(ctx: &Arc<Context>, watches: &mut Watches) -> impl Future<Output = ()> + use<> {
    let store = ctx.stores.repos.clone();
    // Secrets are watched by metadata only, their content is never held. Types that cannot be credentials are left out.
    let secrets = watcher::Config::default().fields(
        "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=bootstrap.kubernetes.io/token",
    );
    let secrets = watcher(Api::<PartialObjectMeta<Secret>>::all(ctx.client.clone()), secrets);
    let (of_provider, of_secret, of_backup, of_restore) = (store.clone(), store.clone(), store.clone(), store.clone());
    let controller = Controller::for_shared_stream(watches.repos.subscribe(), store)
        .watches_shared_stream(watches.providers.subscribe(), move |provider| {
            repo::using_provider(&of_provider.state(), &provider.name_any())
        })
        .watches_stream(secrets.default_backoff().touched_objects(), move |secret: PartialObjectMeta<Secret>| {
            repo::using_secret(&of_secret.state(), &secret.metadata)
        })
        .watches_shared_stream(watches.jobs.subscribe(), |job| repo::checked_by(job.meta()))
        .watches_shared_stream(watches.pods.subscribe(), |pod| repo::checked_by(pod.meta()))
        .watches_shared_stream(watches.repo_claims.subscribe(), |claim| repo::made_for(claim.meta()))
        .watches_shared_stream(watches.backups.subscribe(), move |backup| {
            repo::concerned(&of_backup, backup.backup()?.meta())
        })
        .watches_shared_stream(watches.restores.subscribe(), move |restore| {
            repo::concerned(&of_restore, restore.meta())
        });
    drive(controller, 2, repo::reconcile, ctx)
}

/// ActionSet: looks at nothing but itself.
fn action_sets(ctx: &Arc<Context>, watches: &mut Watches) -> impl Future<Output = ()> + use<> {
    let controller = Controller::for_shared_stream(watches.action_sets.subscribe(), ctx.stores.action_sets.clone());
    drive(controller, 1, actionset::reconcile, ctx)
}

/// BackupPolicy: wakes on the ActionSets and the repository that it names.
fn policies(ctx: &Arc<Context>, watches: &mut Watches) -> impl Future<Output = ()> + use<> {
    let store = ctx.stores.policies.clone();
    let (of_set, of_repo) = (store.clone(), store.clone());
    let controller = Controller::for_shared_stream(watches.policies.subscribe(), store)
        .watches_shared_stream(watches.action_sets.subscribe(), move |set| {
            policy::using_action_set(&of_set.state(), &set.name_any())
        })
        .watches_shared_stream(watches.repos.subscribe(), move |repo| {
            policy::using_repo(&of_repo.state(), &repo.name_any())
        });
    drive(controller, 1, policy::reconcile, ctx)
}

/// BackupSchedule: wakes on its CronJobs and their Jobs, on its policy, on recipes, on backups that are completed, and on
/// what it asked KubeBlocks to do.
fn schedules(ctx: &Arc<Context>, watches: &mut Watches) -> impl Future<Output = ()> + use<> {
    let store = ctx.stores.schedules.clone();
    let (of_policy, of_set, of_cluster) = (store.clone(), store.clone(), store.clone());
    let controller = Controller::for_shared_stream(watches.schedules.subscribe(), store)
        .watches_shared_stream(watches.cron_jobs.subscribe(), |cron_job| schedule::of_worker(cron_job.meta()))
        .watches_shared_stream(watches.jobs.subscribe(), |job| schedule::of_worker(job.meta()))
        .watches_shared_stream(watches.backups.subscribe(), |backup| schedule::of_backup(backup.backup()?.as_ref()))
        .watches_shared_stream(watches.policies.subscribe(), move |policy| {
            schedule::using_policy(&of_policy.state(), &policy)
        })
        .watches_shared_stream(watches.action_sets.subscribe(), move |set| {
            schedule::using_action_set(&of_set.state(), &set)
        })
        .watches_shared_stream(watches.ops_requests.subscribe(), |ops| schedule::of_worker(ops.meta()))
        .watches_shared_stream(watches.clusters.subscribe(), move |cluster| {
            schedule::waiting_in(&of_cluster.state(), cluster.meta().namespace.as_deref())
        });
    drive(controller, 2, schedule::reconcile, ctx)
}

/// Backup: wakes on its Jobs and their Pods; a continuous one on its StatefulSets, their reports and its schedule; one
/// that has not started, also on repositories.
fn backups(ctx: &Arc<Context>, watches: &mut Watches) -> impl Future<Output = ()> + use<> {
    let store = Store::clone(&ctx.stores.backups);
    let (waiting, scheduled, of_cluster) = (store.clone(), store.clone(), store.clone());
    let due = alarm::due(ctx, watches.backups.subscribe());
    let controller = Controller::for_shared_stream(watches.backups.subscribe(), store)
        .reconcile_on(due)
        .watches_shared_stream(watches.jobs.subscribe(), |job| backup::of_worker(job.meta()))
        .watches_shared_stream(watches.pods.subscribe(), |pod| backup::of_worker(pod.meta()))
        .watches_shared_stream(watches.stateful_sets.subscribe(), |set| backup::of_worker(set.meta()))
        .watches_shared_stream(watches.channels.subscribe(), |channel| backup::of_worker(channel.meta()))
        .watches_shared_stream(watches.schedules.subscribe(), move |schedule| {
            backup::continuous::of_schedule(&scheduled, schedule.meta())
        })
        .watches_shared_stream(watches.volume_snapshots.subscribe(), |snapshot| backup::of_worker(snapshot.meta()))
        .watches_shared_stream(watches.restores.subscribe(), |restore| restore::backup_of(&restore))
        .watches_shared_stream(watches.clusters.subscribe(), move |cluster| backup::of_cluster(&of_cluster, &cluster))
        .watches_shared_stream(watches.repos.subscribe(), move |repo| backup::waiting_for_repo(&waiting, &repo));
    drive(controller, ctx.settings.workers, backup::reconcile, ctx)
}

/// Restore: wakes on its Jobs and their Pods, on the workloads that restores have created, on the claims and snapshots of
/// those in place, and on repositories.
fn restores(ctx: &Arc<Context>, watches: &mut Watches) -> impl Future<Output = ()> + use<> {
    let store = ctx.stores.restores.clone();
    let waiting = store.clone();
    let restored = watcher::Config::default().labels(labels::RESTORED_FROM);
    let exchanged = watcher::Config::default().labels(labels::IN_PLACE);
    let claims = Api::<PersistentVolumeClaim>::all(ctx.client.clone());
    let controller = Controller::for_shared_stream(watches.restores.subscribe(), store)
        .watches_shared_stream(watches.jobs.subscribe(), |job| restore::of_worker(job.meta()))
        .watches_shared_stream(watches.pods.subscribe(), |pod| restore::of_worker(pod.meta()))
        .watches_shared_stream(watches.repos.subscribe(), move |repo| restore::waiting_for_repo(&waiting, &repo))
        .watches_shared_stream(watches.volume_snapshots.subscribe(), |snapshot| restore::of_worker(snapshot.meta()))
        .watches(claims, exchanged, |claim| restore::of_worker(claim.meta()))
        .watches(Api::<StatefulSet>::all(ctx.client.clone()), restored, |set| restore::of_worker(set.meta()));
    drive(controller, ctx.settings.workers, restore::reconcile, ctx)
}

/// Claims that are filled from a backup: wake on their temporary claims, on Restores, and on the backups that they name.
fn populator(ctx: &Arc<Context>, watches: &mut Watches) -> impl Future<Output = ()> + use<> {
    let store = watches.claims.reader();
    let (of_claim, of_restore, of_backup) = (store.clone(), store.clone(), store.clone());
    let controller = Controller::for_shared_stream(watches.claims.subscribe(), store)
        .watches_shared_stream(watches.claims.subscribe(), move |claim| populator::woken_by_claim(&of_claim, &claim))
        .watches_shared_stream(watches.restores.subscribe(), move |restore| {
            populator::woken_by_restore(&of_restore, &restore)
        })
        .watches_shared_stream(watches.backups.subscribe(), move |backup| {
            populator::woken_by_backup(&of_backup, backup.as_ref())
        });
    drive(controller, ctx.settings.workers, populator::reconcile, ctx)
}

/// BackupPolicyTemplate: wakes on the ActionSets that it names, and on the component definitions that it is for.
fn policy_templates(ctx: &Arc<Context>, watches: &mut Watches) -> impl Future<Output = ()> + use<> {
    let store = ctx.stores.templates.clone();
    let (of_set, of_definition) = (store.clone(), store.clone());
    let controller = Controller::for_shared_stream(watches.templates.subscribe(), store)
        .watches_shared_stream(watches.action_sets.subscribe(), move |set| {
            policy_template::using_action_set(&of_set.state(), &set.name_any())
        })
        .watches_shared_stream(watches.component_definitions.subscribe(), move |definition| {
            policy_template::matching(&of_definition.state(), &definition.name_any())
        });
    drive(controller, 1, policy_template::reconcile, ctx)
}

/// KubeBlocks' Clusters: wake on templates, on the policies made for them, and, when they go, on their backups.
fn clusters(ctx: &Arc<Context>, watches: &mut Watches) -> impl Future<Output = ()> + use<> {
    let store = ctx.stores.clusters.clone();
    let (of_template, of_backup) = (store.clone(), store.clone());
    let controller = Controller::for_shared_stream(watches.clusters.subscribe(), store)
        .watches_shared_stream(watches.templates.subscribe(), move |_| cluster::all(&of_template))
        .watches_shared_stream(watches.policies.subscribe(), |policy| cluster::owning(policy.meta()))
        .watches_shared_stream(watches.backups.subscribe(), move |backup| {
            cluster::awaiting(&of_backup, backup.backup()?.as_ref())
        });
    drive(controller, 1, cluster::reconcile, ctx)
}

/// Runs a controller until the process is told to stop, and keeps account of it.
fn drive<K, E, F>(
    controller: Controller<K>,
    concurrency: u16,
    reconcile: fn(Arc<K>, Arc<Context>) -> F,
    ctx: &Arc<Context>,
) -> impl Future<Output = ()> + use<K, E, F>
where
    K: Watched,
    E: Classified + Send + Sync + 'static,
    F: Future<Output = Result<Action, E>> + Send + 'static,
{
    let kind = K::kind(&()).into_owned();
    let counted = move |object: Arc<K>, ctx: Arc<Context>| async move {
        let kind = K::kind(&());
        let begin = Instant::now();
        let span = crate::log::span(object.as_ref());
        let result = reconcile(Arc::clone(&object), Arc::clone(&ctx)).instrument(span).await;
        ctx.metrics.reconciled(&kind, begin.elapsed(), result.as_ref().err().map(E::reason));
        if result.is_ok() {
            ctx.succeeded(object.as_ref());
        }
        result
    };
    let on_error = |object: Arc<K>, error: &E, ctx: Arc<Context>| {
        let wait = ctx.retry_after(object.as_ref(), error.class());
        let (kind, namespace, object) = (K::kind(&()), object.namespace(), object.name_any());
        let reason = error.reason();
        if error.class() == Class::NotYet {
            tracing::debug!(%kind, namespace, object, reason, retry_in = ?wait, "{}", chain(error));
        } else {
            tracing::warn!(%kind, namespace, object, reason, retry_in = ?wait, "{}", chain(error));
        }
        wait.map_or_else(Action::await_change, Action::requeue)
    };
    controller
        .with_config(Config::default().concurrency(concurrency).debounce(Duration::ZERO))
        .graceful_shutdown_on(ctx.stop.clone().cancelled_owned())
        .run(counted, on_error, Arc::clone(ctx))
        .for_each(move |result| {
            if let Err(kube::runtime::controller::Error::QueueError(error)) = result {
                tracing::warn!(kind, %error, "queue");
            }
            futures::future::ready(())
        })
}

/// An error and its causes in one line. Causes that the error already tells are not told again.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    // kube prints the whole answer of the server, and then once more; its message is what people can use.
    let words = |error: &(dyn std::error::Error + 'static)| match error.downcast_ref() {
        Some(kube::Error::Api(answer)) => format!("{} ({} {})", answer.message, answer.code, answer.reason),
        _ => error.to_string(),
    };
    let mut text = words(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let words = words(cause);
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// Objects per page of the first list.
const PAGE: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kind_that_is_never_listed_does_not_hold_up_the_end() {
        let (store, _writer) = kube::runtime::reflector::store::<Pod>();
        let stop = CancellationToken::new();
        stop.cancel();
        let ended = until_stopped(stop, store, std::future::pending());
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
    }

    #[test]
    fn a_chain_tells_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("Secret keys in ns: {0}")]
        struct Outer(#[source] std::io::Error, u8);
        let told = chain(&Outer(std::io::Error::other("refused"), 0));
        assert_eq!(told, "Secret keys in ns: refused");
    }
}
