//! BackupRepo: a place for backups, checked before it is used, and prepared in every namespace that needs it.

mod apply;
mod build;
mod decide;
mod delete;
#[cfg(test)]
mod driver_tests;
mod errand;
mod names;
mod observe;
mod pre_check;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kbbackup_api::conditions::{self, BackupRepoCondition, BackupRepoReason, ConditionStatus};
use kbbackup_api::errand::Errand;
use kbbackup_api::names::{TRUE, annotations, labels};
use kbbackup_api::v1alpha1::{BackupRepo, BackupRepoPhase, BackupRepoStatus};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource as _, ResourceExt as _};

use crate::context::{Context, readable};
use crate::error::{Class, Classified, Unreadable, api_class};
use crate::status;
use crate::watch::Guarded;
use apply::Facts;
use decide::Finding;
use observe::Seen;
use pre_check::{Step, Wanted};

/// A second look at what the watches should tell us anyway.
const SAFETY_NET: Duration = Duration::from_secs(300);

/// Why a repository was not reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not fit its type.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The finalizer could not be put on or taken off.
    #[error("finalizer could not be changed")]
    Hold(#[source] kube::Error),
    /// Something could not be read.
    #[error("{what} could not be read")]
    Read {
        /// Kind and name.
        what: String,
        /// The API server's answer.
        source: kube::Error,
    },
    /// Something could not be written.
    #[error("{what} could not be written")]
    Write {
        /// Kind and name.
        what: String,
        /// The API server's answer.
        source: kube::Error,
    },
    /// The status could not be written.
    #[error("status could not be written")]
    Publish(#[source] kube::Error),
    /// Our own last write has not come back through the watch.
    #[error("the repository is changing; waiting for its newest state")]
    Outdated,
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Unreadable(_) => Class::Invalid,
            Self::Outdated => Class::NotYet,
            Self::Hold(source) | Self::Publish(source) | Self::Read { source, .. } | Self::Write { source, .. } => {
                api_class(source)
            }
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::Hold(_) => "Hold",
            Self::Read { .. } => "Read",
            Self::Write { .. } => "Write",
            Self::Publish(_) => "Publish",
            Self::Outdated => "Outdated",
        }
    }
}

/// What ends a pass early: something to tell in a condition, or an error to try again after.
enum Halt {
    Finding(Finding),
    Error(Error),
}

impl From<Finding> for Halt {
    fn from(finding: Finding) -> Self {
        Self::Finding(finding)
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Checks a repository, and prepares it where it is waited for.
pub async fn reconcile(repo: Arc<Guarded<BackupRepo>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let repo = readable(&repo)?;
    let api: Api<BackupRepo> = Api::all(ctx.client.clone());
    if repo.metadata.deletion_timestamp.is_some() {
        return delete::delete(&ctx, &api, repo).await;
    }
    let held = status::hold(&api, repo, true).await.map_err(Error::Hold)?;
    let mut repo = held.unwrap_or_else(|| repo.clone());
    let seen = observe::observe(&ctx, &repo).await?;
    let mut draft = Draft::new(&repo, ctx.now());
    match pass(&ctx, &api, &mut repo, &mut draft, &seen).await {
        Ok(()) if draft.status.phase == Some(BackupRepoPhase::PreChecking) => Ok(Action::requeue(SAFETY_NET)),
        Ok(()) => Ok(Action::await_change()),
        Err(Halt::Finding(finding)) => {
            draft.finding(&finding);
            draft.publish(&api, &repo).await?;
            Ok(match finding.reason {
                // Providers and credentials are watched.
                BackupRepoReason::StorageProviderNotFound
                | BackupRepoReason::StorageProviderNotReady
                | BackupRepoReason::InvalidStorageProvider
                | BackupRepoReason::CredentialSecretNotFound => Action::await_change(),
                _ => Action::requeue(SAFETY_NET),
            })
        }
        Err(Halt::Error(error)) => Err(error),
    }
}

/// One pass over all conditions, in their order. `repo` follows our own writes.
async fn pass(
    ctx: &Context,
    api: &Api<BackupRepo>,
    repo: &mut BackupRepo,
    draft: &mut Draft,
    seen: &Seen,
) -> Result<(), Halt> {
    let provider = decide::provider(&repo.spec, seen.provider.as_ref())?;
    draft.holds(BackupRepoCondition::StorageProviderReady, BackupRepoReason::StorageProviderReady, "");
    let parameters = decide::parameters(&repo.spec, provider, seen.credential.as_ref())?;

    let before = draft.status.clone();
    names::assign(&mut draft.status, &repo.name_any(), provider, &ctx.settings.manager_namespace, || {
        rand::random::<u32>() as usize
    });
    if draft.status != before {
        // Written before anything carries them, or a crash would leave objects that nobody knows.
        *repo = draft.note(api, repo).await?.unwrap_or_else(|| repo.clone());
    }

    let rendered = decide::rendered(&repo.spec, &draft.status, provider, &parameters)?;
    let remarks = decide::remarks(provider, &parameters);
    draft.holds(BackupRepoCondition::ParametersChecked, BackupRepoReason::ParametersChecked, &remarks);
    let digest = decide::digest(provider, &parameters);
    let class = BackupRepoCondition::StorageClassCreated;
    let (csi_secret, storage_class) = rendered.storage?;
    let (known, made) = (repo.clone(), draft.status.clone());
    let mut facts = Facts {
        repo: &known,
        status: &made,
        digest: &digest,
        csi_secret: csi_secret.as_ref(),
        storage_class: storage_class.as_ref(),
        claim: None,
        tool_config: rendered.tool_config.as_deref(),
    };
    let refused = |reason, what: &'static str| move |error| refusal(class, reason, what, error);
    let done = apply::csi_secret(ctx, &facts).await;
    done.map_err(refused(BackupRepoReason::PrepareCsiSecretFailed, "CSI Secret"))?;
    let done = apply::storage_class(ctx, &facts).await;
    done.map_err(refused(BackupRepoReason::PrepareStorageClassFailed, "StorageClass"))?;
    draft.holds(class, BackupRepoReason::StorageClassCreated, "");

    let claim = rendered.claim?;
    facts.claim = claim.as_ref();
    let checked = if claim.is_some() { BackupRepoReason::PvcTemplateChecked } else { BackupRepoReason::Skipped };
    draft.holds(BackupRepoCondition::PvcTemplateChecked, checked, "");

    if repo.annotations().get(annotations::BACKUP_REPO_DIGEST) != Some(&digest) {
        let reason = BackupRepoReason::DigestChanged;
        draft.unknown(BackupRepoCondition::PreCheckPassed, reason, "parameters or templates are new; the check runs");
        *repo = draft.publish(api, repo).await?.unwrap_or_else(|| repo.clone());
        let marks = [(annotations::BACKUP_REPO_DIGEST, digest.as_str()), (annotations::NEED_UPDATE_TOOL_CONFIG, TRUE)];
        *repo = apply::annotate(api, repo, &BTreeMap::from(marks)).await.map_err(Error::Publish)?;
    }

    check(ctx, api, repo, draft, &facts, &decide::not_given(provider, &parameters)).await?;

    if draft.status.phase == Some(BackupRepoPhase::Ready) {
        if repo.annotations().get(annotations::NEED_UPDATE_TOOL_CONFIG).is_some_and(|value| value == TRUE) {
            apply::refresh(ctx, &facts).await?;
            let mark = BTreeMap::from([(annotations::NEED_UPDATE_TOOL_CONFIG, "false")]);
            *repo = apply::annotate(api, repo, &mark).await.map_err(Error::Publish)?;
        }
        let mut first = Ok(());
        for waiting in observe::waiting(ctx, &repo.name_any()) {
            // One namespace that refuses us does not hold up the others.
            let done = apply::prepare(ctx, &facts, &waiting).await;
            first = first.and(done);
        }
        first?;
        errand(ctx, api, repo, &facts).await?;
    }
    Ok(())
}

/// What a person has the mover do with the repository.
async fn errand(ctx: &Context, api: &Api<BackupRepo>, repo: &mut BackupRepo, facts: &Facts<'_>) -> Result<(), Error> {
    let Some(text) = Errand::text(repo).map(str::to_owned) else { return Ok(()) };
    let errand = match Errand::of(repo) {
        Ok(errand) => errand,
        Err(why) => {
            ctx.event(repo, EventType::Warning, "BadErrand", why).await;
            None
        }
    };
    let over = match &errand {
        None => true,
        Some(errand) => match errand::step(observe::errand(ctx, repo, &errand.id).as_deref()) {
            errand::Step::Start => {
                apply::start_errand(ctx, facts, errand).await?;
                false
            }
            errand::Step::Running => false,
            errand::Step::Over => true,
        },
    };
    if over {
        let mark = BTreeMap::from([(annotations::ERRAND_DONE, text.as_str())]);
        *repo = apply::annotate(api, repo, &mark).await.map_err(Error::Publish)?;
    }
    Ok(())
}

/// The pre-check, and the status that follows from it.
async fn check(
    ctx: &Context,
    api: &Api<BackupRepo>,
    repo: &mut BackupRepo,
    draft: &mut Draft,
    facts: &Facts<'_>,
    not_given: &[String],
) -> Result<(), Error> {
    let passed = BackupRepoCondition::PreCheckPassed;
    let request = pre_check::request(repo).map(str::to_owned);
    let wanted = Wanted { digest: facts.digest, request: request.as_deref() };
    let name = apply::check_name(repo);
    let (job, pods) = observe::pre_check(ctx, &name);
    let step = pre_check::step(&draft.status.conditions, wanted, job.as_deref(), &pods);
    let settled = conditions::find(&draft.status.conditions, passed.as_str())
        .is_some_and(|condition| condition.status != ConditionStatus::Unknown.as_str());
    let mut ended = None;
    match &step {
        Step::Settled => {}
        Step::Clear => apply::clear_check(ctx, repo).await?,
        Step::Start => {
            apply::start_check(ctx, &Facts { repo, ..*facts }, wanted).await?;
        }
        Step::Running(why) => {
            // A check that a person asked for does not take back the last result while it runs.
            if !settled {
                let why = why.as_deref().unwrap_or("the check runs");
                draft.unknown(passed, BackupRepoReason::DigestChanged, why);
            }
        }
        Step::Passed => {
            draft.holds(passed, BackupRepoReason::PreCheckPassed, "");
            ended = Some((
                EventType::Normal,
                BackupRepoReason::PreCheckPassed,
                "written, read back and removed".to_owned(),
            ));
        }
        Step::Failed(why) => {
            let events = observe::events(ctx, &name, job.as_deref(), &pods).await?;
            let message = pre_check::explain(why, not_given, &events);
            draft.fails(passed, BackupRepoReason::PreCheckFailed, &message);
            ended = Some((EventType::Warning, BackupRepoReason::PreCheckFailed, message));
        }
    }
    *repo = draft.publish(api, repo).await?.unwrap_or_else(|| repo.clone());
    if let Some((type_, reason, message)) = ended {
        ctx.event(repo, type_, reason.as_str(), message).await;
        if let Some(request) = &request {
            let mark = BTreeMap::from([(annotations::CHECKED_AT, request.as_str())]);
            *repo = apply::annotate(api, repo, &mark).await.map_err(Error::Publish)?;
        }
    }
    if matches!(step, Step::Passed | Step::Failed(_)) || (step == Step::Settled && job.is_some()) {
        apply::clear_check(ctx, repo).await?;
    }
    Ok(())
}

/// A refusal that will be repeated belongs into a condition; other errors are tried again and change nothing.
fn refusal(condition: BackupRepoCondition, reason: BackupRepoReason, what: &str, error: kube::Error) -> Halt {
    match &error {
        kube::Error::Api(answer) if matches!(answer.code, 400 | 403 | 404 | 422) => {
            Finding::new(condition, reason, format!("{what}: {}", answer.message)).into()
        }
        _ => Error::Write { what: what.to_owned(), source: error }.into(),
    }
}

/// A status in the making.
struct Draft {
    status: BackupRepoStatus,
    generation: Option<i64>,
    going: bool,
    now: Time,
}

impl Draft {
    fn new(repo: &BackupRepo, now: Timestamp) -> Self {
        let mut status = repo.status.clone().unwrap_or_default();
        status.is_default =
            Some(repo.annotations().get(annotations::IS_DEFAULT_REPO).is_some_and(|value| value == TRUE));
        status.observed_generation = repo.metadata.generation;
        let going = repo.metadata.deletion_timestamp.is_some();
        Self { status, generation: repo.metadata.generation, going, now: Time(now) }
    }

    fn set(&mut self, type_: BackupRepoCondition, status: ConditionStatus, reason: BackupRepoReason, message: &str) {
        let condition = conditions::new(type_, status, reason, message, self.generation, self.now.clone());
        conditions::set(&mut self.status.conditions, condition);
    }

    fn holds(&mut self, type_: BackupRepoCondition, reason: BackupRepoReason, message: &str) {
        self.set(type_, ConditionStatus::True, reason, message);
    }

    fn fails(&mut self, type_: BackupRepoCondition, reason: BackupRepoReason, message: &str) {
        self.set(type_, ConditionStatus::False, reason, message);
    }

    fn unknown(&mut self, type_: BackupRepoCondition, reason: BackupRepoReason, message: &str) {
        self.set(type_, ConditionStatus::Unknown, reason, message);
    }

    fn finding(&mut self, finding: &Finding) {
        self.fails(finding.condition, finding.reason, &finding.message);
    }

    /// Writes what is known so far. The phase stays: of a new repository nothing has failed yet, although conditions are missing.
    async fn note(&mut self, api: &Api<BackupRepo>, repo: &BackupRepo) -> Result<Option<BackupRepo>, Error> {
        self.status.phase = repo.status.as_ref().and_then(|status| status.phase);
        status::publish(api, repo, repo.status.as_ref(), &self.status).await.map_err(Error::Publish)
    }

    /// Writes the status if it differs from that of `repo`; the phase follows from the conditions.
    async fn publish(&mut self, api: &Api<BackupRepo>, repo: &BackupRepo) -> Result<Option<BackupRepo>, Error> {
        self.status.phase = Some(decide::phase(&self.status.conditions, self.going));
        status::publish(api, repo, repo.status.as_ref(), &self.status).await.map_err(Error::Publish)
    }
}

/// The repositories of the provider `name`.
pub fn using_provider(repos: &[Arc<Guarded<BackupRepo>>], name: &str) -> Vec<ObjectRef<Guarded<BackupRepo>>> {
    those(repos, |repo| repo.spec.storage_provider_ref == name)
}

/// The repositories whose credentials the Secret holds, or that the Secret was made for.
pub fn using_secret(repos: &[Arc<Guarded<BackupRepo>>], secret: &ObjectMeta) -> Vec<ObjectRef<Guarded<BackupRepo>>> {
    let mut found = those(repos, |repo| {
        repo.spec.credential.as_ref().is_some_and(|credential| {
            credential.name == secret.name
                && credential.namespace.as_deref().unwrap_or_default()
                    == secret.namespace.as_deref().unwrap_or_default()
        })
    });
    found.extend(made_for(secret));
    found
}

/// The repository that an object was made for.
pub fn made_for(object: &ObjectMeta) -> Option<ObjectRef<Guarded<BackupRepo>>> {
    object.labels.as_ref()?.get(labels::BACKUP_REPO_NAME).map(|name| ObjectRef::new(name))
}

/// The repository that a Job, or a pod of one, checks. The workers of backups and restores wear the repository's label as
/// well, and would have it looked at with every step of every backup.
pub fn checked_by(worker: &ObjectMeta) -> Option<ObjectRef<Guarded<BackupRepo>>> {
    let labels = worker.labels.as_ref()?;
    let works_for_others = [labels::BACKUP_NAME, labels::RESTORE].iter().any(|key| labels.contains_key(*key));
    made_for(worker).filter(|_| !works_for_others)
}

/// The repository that a Backup or Restore waits for, or that waits for a Backup to go.
pub fn concerned(repos: &Store<Guarded<BackupRepo>>, object: &ObjectMeta) -> Option<ObjectRef<Guarded<BackupRepo>>> {
    let repo = made_for(object)?;
    let waits = object.labels.as_ref().is_some_and(|labels| labels.contains_key(labels::WAIT_REPO_PREPARATION));
    let going = || repos.get(&repo).is_some_and(|repo| repo.meta().deletion_timestamp.is_some());
    (waits || going()).then_some(repo)
}

fn those(
    repos: &[Arc<Guarded<BackupRepo>>],
    wanted: impl Fn(&BackupRepo) -> bool,
) -> Vec<ObjectRef<Guarded<BackupRepo>>> {
    repos
        .iter()
        .filter(|repo| repo.0.as_ref().is_ok_and(&wanted))
        .map(|repo| ObjectRef::from_obj(repo.as_ref()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wearing(labels: &[&str]) -> ObjectMeta {
        let labels = labels.iter().map(|key| ((*key).to_owned(), "main".to_owned())).collect();
        ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }
    }

    #[test]
    fn only_its_own_workers_wake_a_repository() {
        let woken = |labels: &[&str]| checked_by(&wearing(labels)).map(|repo| repo.name);
        assert_eq!(woken(&[labels::BACKUP_REPO_NAME]).as_deref(), Some("main"));
        assert_eq!(woken(&[labels::BACKUP_REPO_NAME, labels::BACKUP_NAME]), None);
        assert_eq!(woken(&[labels::BACKUP_REPO_NAME, labels::RESTORE]), None);
        assert_eq!(woken(&[]), None);
    }
}
