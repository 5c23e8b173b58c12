//! Waiting for an object to reach its end: a watch that survives disconnects, one line of progress, Ctrl-C, a limit.

use std::{fmt::Debug, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::{
    error::{CliError, Result, from_watch},
    exit::Exit,
    output::human,
    ui::Ui,
};

/// What an observed state means to the one who waits.
#[derive(Debug)]
pub(crate) enum Seen<T> {
    /// Not yet; the text says where it stands.
    Going(String),
    /// The end, good or bad.
    End(T),
}

/// What is waited for, and what to do when the waiting ends early.
#[derive(Clone, Debug)]
pub(crate) struct Waiting<'a> {
    /// The object, as in `backup/nightly`.
    pub what: &'a str,
    /// Longest wait.
    pub limit: Option<Duration>,
    /// Commands to look again, or to stop the operation itself.
    pub hints: Vec<String>,
}

/// Watches one object until `judge` sees its end. `judge` gets `None` while the object does not exist.
pub(crate) async fn until<K, T>(
    ui: &Ui,
    api: Api<K>,
    name: &str,
    waiting: &Waiting<'_>,
    mut judge: impl FnMut(Option<&K>) -> Seen<T>,
) -> Result<T>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let started = Instant::now();
    let mut line = Line::new(ui, started);
    let mut seen = Box::pin(watcher::watch_object(api, name).default_backoff());
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let end = waiting.limit.map(|limit| started + limit);
    let mut interrupt = Box::pin(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            _ = &mut interrupt => return Err(early(waiting, Exit::Interrupted, "interrupted; it goes on in the cluster".to_owned())),
            () = sleep_until(end.unwrap_or(started)), if end.is_some() => {
                let limit = waiting.limit.unwrap_or_default();
                return Err(early(waiting, Exit::Timeout, format!("not at its end after {}; it goes on in the cluster", seconds(limit))));
            }
            _ = tick.tick() => line.tick(),
            event = seen.next() => match event {
                Some(Ok(object)) => match judge(object.as_ref()) {
                    Seen::Going(text) => line.show(text),
                    Seen::End(end) => return Ok(end),
                },
                Some(Err(error)) if is_final(&error) => {
                    return Err(from_watch(format!("{} cannot be watched", waiting.what), &error));
                }
                Some(Err(error)) => line.show(format!("connection lost, trying again: {error}")),
                None => return Err(CliError::refused(format!("{} cannot be watched", waiting.what), "the watch ended")),
            }
        }
    }
}

fn early(waiting: &Waiting<'_>, exit: Exit, why: String) -> CliError {
    let mut error = CliError::new(exit, format!("stopped waiting for {}", waiting.what), why);
    error.hints.clone_from(&waiting.hints);
    error
}

/// Errors that no second try will cure: rights, unknown kinds.
fn is_final(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => {
            matches!(status.code, 401 | 403 | 404 | 405)
        }
        _ => false,
    }
}

fn seconds(duration: Duration) -> String {
    human::span(jiff::SignedDuration::try_from(duration).unwrap_or_default())
}

/// The line of progress: on a terminal rewritten each second, elsewhere written when its text changes.
pub(crate) struct Line<'a> {
    ui: &'a Ui,
    started: Instant,
    text: String,
}

impl<'a> Line<'a> {
    pub(crate) fn new(ui: &'a Ui, started: Instant) -> Self {
        Self { ui, started, text: String::new() }
    }

    pub(crate) fn show(&mut self, text: String) {
        if text != self.text {
            self.text = text;
            self.write();
        }
    }

    pub(crate) fn tick(&mut self) {
        if self.ui.is_live() && !self.text.is_empty() {
            self.write();
        }
    }

    fn write(&self) {
        self.ui.progress(&format!("{} ({})", self.text, seconds(self.started.elapsed())));
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.ui.clear();
    }
}
