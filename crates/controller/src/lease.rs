//! Leader election by a Lease: of several replicas one works, the others wait to take over.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{is_conflict, is_not_found};

/// How long a lease holds without renewal.
const HOLDS: Duration = Duration::from_secs(15);
/// How often the holder renews.
const EVERY: Duration = Duration::from_secs(5);
/// How often the others look: what a killed holder leaves undone waits for at most this and [`HOLDS`].
const LOOK: Duration = Duration::from_secs(3);
/// A holder that could not renew for so long stops working: before [`HOLDS`] is over, whatever the clocks say.
const GIVE_UP: Duration = Duration::from_secs(10);

/// One candidate for one Lease.
#[derive(Clone)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The lease as we wrote it last.
    last: Option<Lease>,
}

/// What a candidate sees in a Lease.
#[derive(Debug, PartialEq, Eq)]
enum View {
    /// It is ours.
    Ours,
    /// Nobody holds it, or its holder has not renewed for too long.
    Free,
    /// Somebody else holds it.
    Taken,
}

impl Election {
    /// A candidate called `identity` for the Lease `name` in `namespace`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), identity, last: None }
    }

    /// Waits until the lease is ours.
    pub async fn acquire(&mut self) {
        // The holder's clock may be wrong: what counts is how long *we* have seen no renewal.
        let mut seen: Option<(Option<MicroTime>, Instant)> = None;
        loop {
            match self.attempt(&mut seen).await {
                Ok(true) => return,
                Ok(false) => tracing::debug!(lease = self.name, "somebody else holds the lease"),
                Err(error) => tracing::warn!(lease = self.name, %error, "lease could not be read or taken"),
            }
            sleep(LOOK).await;
        }
    }

    /// Keeps the lease; returns when it is lost.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            sleep(EVERY).await;
            match timeout_at(renewed + GIVE_UP, self.renew()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "lease could not be renewed"),
            }
            if renewed.elapsed() >= GIVE_UP {
                return;
            }
        }
    }

    /// Gives the lease back, so that the next candidate need not wait for it to run out.
    pub async fn release(&self) {
        let Ok(mut lease) = self.api.get(&self.name).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
                tracing::debug!(lease = self.name, %error, "lease was not released; it runs out by itself");
            }
        }
    }

    async fn attempt(&mut self, seen: &mut Option<(Option<MicroTime>, Instant)>) -> kube::Result<bool> {
        let lease = match self.api.get(&self.name).await {
            Ok(lease) => lease,
            Err(error) if is_not_found(&error) => {
                let lease = Lease {
                    metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                    spec: Some(self.held(None)),
                };
                let created = self.api.create(&PostParams::default(), &lease).await;
                return self.written(created);
            }
            Err(error) => return Err(error),
        };
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let since = match seen {
            Some((time, since)) if *time == renewed => *since,
            _ => seen.insert((renewed, Instant::now())).1,
        };
        match view(lease.spec.as_ref(), &self.identity, since.elapsed()) {
            View::Taken => Ok(false),
            View::Ours | View::Free => self.write(lease).await,
        }
    }

    /// One request as long as nobody else touches the lease.
    async fn renew(&mut self) -> kube::Result<bool> {
        if let Some(lease) = self.last.take()
            && self.write(lease).await?
        {
            return Ok(true);
        }
        let lease = self.api.get(&self.name).await?;
        match view(lease.spec.as_ref(), &self.identity, Duration::ZERO) {
            View::Ours => self.write(lease).await,
            View::Free | View::Taken => Ok(false),
        }
    }

    /// Writes our name into the lease as it was read; false when somebody else was faster.
    async fn write(&mut self, mut lease: Lease) -> kube::Result<bool> {
        lease.spec = Some(self.held(lease.spec.take()));
        let replaced = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        self.written(replaced)
    }

    fn written(&mut self, answer: kube::Result<Lease>) -> kube::Result<bool> {
        match answer {
            Ok(lease) => {
                self.last = Some(lease);
                Ok(true)
            }
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn held(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            acquire_time: if ours { before.acquire_time } else { Some(now.clone()) },
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(HOLDS.as_secs() as i32),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!ours)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

fn view(spec: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> View {
    let Some(holder) = spec.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty()) else {
        return View::Free;
    };
    let holds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    if holder == identity {
        View::Ours
    } else if unchanged > holds.map_or(HOLDS, Duration::from_secs) {
        View::Free
    } else {
        View::Taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(30), ..LeaseSpec::default() }
    }

    #[test]
    fn a_lease_is_taken_over_only_after_it_stood_still_for_its_whole_term() {
        let lease = held_by("a");
        assert_eq!(view(Some(&lease), "b", Duration::from_secs(30)), View::Taken);
        assert_eq!(view(Some(&lease), "b", Duration::from_secs(31)), View::Free);
        assert_eq!(view(Some(&lease), "a", Duration::ZERO), View::Ours);
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        assert_eq!(view(Some(&held_by("")), "b", Duration::ZERO), View::Free);
        assert_eq!(view(None, "b", Duration::ZERO), View::Free);
    }

    #[test]
    fn a_holder_stops_before_its_lease_can_be_taken() {
        assert!(GIVE_UP + EVERY <= HOLDS);
    }

    #[test]
    fn what_a_killed_holder_leaves_undone_is_taken_up_within_twenty_seconds() {
        // The last renewal is seen one look late at most, and that it has stood still is seen at a look too.
        let looks = u32::try_from(HOLDS.as_secs().div_ceil(LOOK.as_secs())).unwrap() + 1;
        assert!(LOOK * looks < Duration::from_secs(20));
    }
}
