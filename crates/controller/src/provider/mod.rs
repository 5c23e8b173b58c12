//! StorageProvider: whether the CSI driver that it names is there.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kbbackup_api::conditions::{self, ConditionStatus, StorageProviderCondition, StorageProviderReason};
use kbbackup_api::v1alpha1::{StorageProvider, StorageProviderPhase, StorageProviderStatus};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::context::{Context, readable};
use crate::error::{Class, Classified, Unreadable, api_class};
use crate::status;
use crate::watch::Guarded;

/// Why a provider was not reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not fit its type.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A finalizer of ours, left by the reference, could not be removed.
    #[error("finalizer could not be removed")]
    Release(#[source] kube::Error),
    /// The status could not be written.
    #[error("status could not be written")]
    Publish(#[source] kube::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Unreadable(_) => Class::Invalid,
            Self::Release(error) | Self::Publish(error) => api_class(error),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::Release(_) => "Release",
            Self::Publish(_) => "Publish",
        }
    }
}

/// Looks whether the CSI driver is there, and says so.
pub async fn reconcile(provider: Arc<Guarded<StorageProvider>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let provider = readable(&provider)?;
    let api: Api<StorageProvider> = Api::all(ctx.client.clone());
    if provider.metadata.deletion_timestamp.is_some() || !provider.finalizers().is_empty() {
        // A provider is never held: an uninstall must not wait for us.
        status::hold(&api, provider, false).await.map_err(Error::Release)?;
        return Ok(Action::await_change());
    }
    let installed = match provider.spec.csi_driver_name.as_deref().filter(|name| !name.is_empty()) {
        None => Driver::NotNeeded,
        Some(name) if ctx.stores.csi_drivers.get(&ObjectRef::new(name)).is_some() => Driver::Found(name),
        Some(name) => Driver::Missing(name),
    };
    let new = decide(provider, installed, Time(ctx.now()));
    status::publish(&api, provider, provider.status.as_ref(), &new).await.map_err(Error::Publish)?;
    Ok(Action::await_change())
}

/// The CSI driver that a provider names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver<'a> {
    NotNeeded,
    Found(&'a str),
    Missing(&'a str),
}

fn decide(provider: &StorageProvider, driver: Driver<'_>, now: Time) -> StorageProviderStatus {
    let (phase, status, reason, message) = match driver {
        Driver::NotNeeded => (
            StorageProviderPhase::Ready,
            ConditionStatus::True,
            StorageProviderReason::CsiDriverObjectFound,
            String::new(),
        ),
        Driver::Found(name) => (
            StorageProviderPhase::Ready,
            ConditionStatus::True,
            StorageProviderReason::CsiDriverObjectFound,
            format!("CSI driver {name} is installed"),
        ),
        Driver::Missing(name) => (
            StorageProviderPhase::NotReady,
            ConditionStatus::Unknown,
            StorageProviderReason::CheckCsiDriverFailed,
            format!("CSI driver {name} is not installed; repositories with accessMethod Tool do not need it"),
        ),
    };
    let mut new = provider.status.clone().unwrap_or_default();
    new.phase = Some(phase);
    let type_ = StorageProviderCondition::CsiDriverInstalled;
    conditions::set(
        &mut new.conditions,
        conditions::new(type_, status, reason, message, provider.metadata.generation, now),
    );
    new
}

/// The providers that name the CSI driver `name`.
pub fn naming_driver(
    providers: &[Arc<Guarded<StorageProvider>>],
    name: &str,
) -> Vec<ObjectRef<Guarded<StorageProvider>>> {
    let names_it = |provider: &StorageProvider| provider.spec.csi_driver_name.as_deref() == Some(name);
    providers
        .iter()
        .filter(|provider| provider.0.as_ref().is_ok_and(names_it))
        .map(|provider| ObjectRef::from_obj(provider.as_ref()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time(jiff::Timestamp::from_second(seconds).unwrap())
    }

    #[test]
    fn behaviour_2_a_missing_driver_is_unknown_and_not_ready() {
        let status = decide(&StorageProvider::default(), Driver::Missing("x.csi"), at(1));
        assert_eq!(status.phase, Some(StorageProviderPhase::NotReady));
        assert_eq!(status.conditions[0].status, "Unknown");
        assert_eq!(status.conditions[0].reason, "CheckCSIDriverFailed");
    }

    #[test]
    fn behaviour_2_a_second_look_at_the_same_changes_nothing() {
        let mut provider = StorageProvider::default();
        provider.status = Some(decide(&provider, Driver::NotNeeded, at(1)));
        assert_eq!(provider.status.as_ref(), Some(&decide(&provider, Driver::NotNeeded, at(2))));
    }
}
