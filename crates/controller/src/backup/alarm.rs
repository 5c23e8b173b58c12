//! Wakes backups when their time has come: one timer for all of them, instead of one for each.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::catalogue::Entry;
use crate::context::Context;

/// A second later, so that the clock has passed the moment when the backup is judged.
const LATER: Duration = Duration::from_secs(1);

/// Backups that have expired, each time that one does; and, as others may have kept some of them, all again after each
/// period of clean-up (`GC_FREQUENCY_SECONDS`). `changes` tells of new dates.
pub fn due(ctx: &Context, changes: UnboundedReceiver<Arc<Entry>>) -> impl Stream<Item = ObjectRef<Entry>> + use<> {
    let period = Duration::from_secs(ctx.settings.gc_seconds.max(1));
    due_of(Store::clone(&ctx.stores.backups), changes, period)
}

fn due_of(
    store: Store<Entry>,
    changes: UnboundedReceiver<Arc<Entry>>,
    period: Duration,
) -> impl Stream<Item = ObjectRef<Entry>> {
    let alarm = Alarm { store, changes: changes.fuse(), period, next: None, end: tokio::time::Instant::now() + period };
    stream::unfold(alarm, |mut alarm| async move { Some((alarm.ring().await?, alarm)) }).flat_map(stream::iter)
}

struct Alarm {
    store: Store<Entry>,
    changes: stream::Fuse<UnboundedReceiver<Arc<Entry>>>,
    period: Duration,
    /// The earliest date to come.
    next: Option<Timestamp>,
    /// Of the period.
    end: tokio::time::Instant,
}

impl Alarm {
    /// Waits until something has expired; `None` when nothing can change any more.
    async fn ring(&mut self) -> Option<Vec<ObjectRef<Entry>>> {
        loop {
            let left = self.next.map(|next| until(next) + LATER);
            let soon = left.map(|left| tokio::time::Instant::now() + left).filter(|soon| *soon < self.end);
            tokio::select! {
                changed = self.changes.next() => {
                    // What has expired already was looked at because it changed.
                    let date = changed?.expiration().filter(|date| *date > Timestamp::now());
                    self.next = self.next.into_iter().chain(date).min();
                }
                () = tokio::time::sleep_until(soon.unwrap_or(self.end)) => break,
            }
        }
        let now = tokio::time::Instant::now();
        if now >= self.end {
            self.end = now + self.period;
        }
        let now = Timestamp::now();
        let (mut due, mut next) = (Vec::new(), None);
        for entry in self.store.state() {
            match entry.expiration() {
                Some(date) if date <= now => due.push(ObjectRef::from_obj(entry.as_ref())),
                Some(date) => next = next.into_iter().chain([date]).min(),
                None => {}
            }
        }
        self.next = next;
        Some(due)
    }
}

fn until(date: Timestamp) -> Duration {
    Duration::try_from(date.duration_since(Timestamp::now())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc::unbounded;
    use kbbackup_api::names::labels;
    use serde_json::json;

    use super::*;
    use crate::fake::{from, holding};

    fn entry(name: &str, expiration: Timestamp) -> Entry {
        from(json!({ "metadata": { "name": name, "namespace": "demo", "labels": { labels::BACKUP_TYPE: "Full" } },
            "spec": { "backupPolicyName": "p", "backupMethod": "m" },
            "status": { "phase": "Completed", "expiration": expiration } }))
    }

    fn after(time: Duration) -> Timestamp {
        Timestamp::now() + time
    }

    #[tokio::test]
    async fn a_backup_is_woken_when_it_expires_and_not_before() {
        let (soon, late) =
            (entry("soon", after(Duration::from_secs(4))), entry("late", after(Duration::from_hours(1))));
        let store: Store<Entry> = holding([soon.clone(), late.clone()]);
        let (sender, changes) = unbounded();
        let mut due = Box::pin(due_of(store, changes, Duration::from_hours(2)));
        for entry in [late, soon] {
            sender.unbounded_send(Arc::new(entry)).unwrap();
        }
        let early = tokio::time::timeout(Duration::from_millis(500), due.next()).await;
        assert!(early.is_err(), "{early:?}");
        let woken = tokio::time::timeout(Duration::from_secs(60), due.next()).await.unwrap().unwrap();
        assert_eq!(woken.name, "soon");
        drop(sender);
        assert!(due.next().await.is_none(), "it ends with the watch");
    }

    #[tokio::test]
    async fn one_that_was_kept_is_looked_at_again_after_each_period() {
        let store: Store<Entry> = holding([entry("kept", "2026-01-01T00:00:00Z".parse().unwrap())]);
        let (_sender, changes) = unbounded();
        let mut due = Box::pin(due_of(store, changes, Duration::from_millis(50)));
        for _ in 0..2 {
            let woken = tokio::time::timeout(Duration::from_secs(10), due.next()).await.unwrap().unwrap();
            assert_eq!(woken.name, "kept");
        }
    }
}
