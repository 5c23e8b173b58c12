//! Why a Job has no pod: a quota, an admission rule or a missing account is told by the Job's events alone.

use std::borrow::Borrow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use super::outcome::{is_of, short};

/// A Job has its pod sooner than this; only one that has none is asked about, so that a healthy backup costs no request.
const MOMENT: SignedDuration = SignedDuration::from_secs(10);

/// What the Job's events say about a pod that does not come; `None` when there is one, or nothing is known.
pub async fn obstacle<P: Borrow<Pod>>(client: &Client, job: &Job, pods: &[P], now: Timestamp) -> Option<String> {
    if !is_overdue(job, pods, now) {
        return None;
    }
    let (namespace, uid) = (job.namespace().unwrap_or_default(), job.uid()?);
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(50);
    match Api::<Event>::namespaced(client.clone(), &namespace).list(&about).await {
        Ok(events) => told(&job.name_any(), &events.items),
        Err(error) => {
            // It explains; the backup does not depend on it.
            tracing::debug!(%error, namespace, job = job.name_any(), "no events");
            None
        }
    }
}

fn is_overdue<P: Borrow<Pod>>(job: &Job, pods: &[P], now: Timestamp) -> bool {
    let old = job.creation_timestamp().is_some_and(|time| now.duration_since(time.0) >= MOMENT);
    old && !pods.iter().any(|pod| is_of(pod.borrow(), job))
}

/// The newest refusal, in words.
fn told(job: &str, events: &[Event]) -> Option<String> {
    let refusals = events.iter().filter(|event| event.reason.as_deref() == Some("FailedCreate"));
    let newest = refusals.max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))?;
    Some(format!("job {job} cannot create its pod: {}", short(newest.message.as_deref().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::from;

    fn event(reason: &str, last: &str, message: &str) -> Event {
        from(
            json!({ "metadata": {}, "involvedObject": {}, "reason": reason, "lastTimestamp": last, "message": message }),
        )
    }

    fn pod(owner: &str) -> Pod {
        let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": owner });
        from(json!({ "metadata": { "name": "p", "ownerReferences": [owner] } }))
    }

    #[test]
    fn the_newest_refusal_counts_and_other_events_do_not() {
        let events = [
            event("FailedCreate", "2026-01-01T00:00:02Z", "exceeded quota: q,\n requested: pods=1"),
            event("FailedCreate", "2026-01-01T00:00:01Z", "older"),
            event("SuccessfulCreate", "2026-01-01T00:00:03Z", "created"),
        ];
        assert_eq!(
            told("j", &events).as_deref(),
            Some("job j cannot create its pod: exceeded quota: q, requested: pods=1")
        );
        assert_eq!(told("j", &events[2..]), None);
    }

    #[test]
    fn only_a_job_that_has_waited_for_its_first_pod_is_asked_about() {
        let job: Job =
            from(json!({ "metadata": { "name": "j", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z" } }));
        let at = |second: i64| "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second);
        assert!(is_overdue::<Pod>(&job, &[], at(10)));
        assert!(is_overdue(&job, &[pod("other")], at(10)));
        assert!(!is_overdue::<Pod>(&job, &[], at(9)));
        assert!(!is_overdue(&job, &[pod("u")], at(10)));
    }
}
