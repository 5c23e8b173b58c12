//! From facts to causes: the likeliest first. Pure.

use serde::Serialize;

use super::facts::{Facts, State};
use crate::remedy::{self, Known};

/// Where something was said; what is nearer to the fault counts more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Origin {
    Operator,
    Pod,
    Job,
    Log,
    Repository,
    Status,
    Waiting,
    Condition,
    Event,
}

/// What was said, by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Evidence {
    pub origin: Origin,
    pub subject: String,
    pub text: String,
}

/// A possible cause with everything that speaks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Suspect {
    /// Stable word for scripts; `unknown` when nothing usual was recognised.
    pub cause: &'static str,
    pub title: String,
    pub remedy: String,
    pub evidence: Vec<Evidence>,
}

/// Word of a cause that is not among the usual ones.
const UNKNOWN: &str = "unknown";

/// Causes, the likeliest first. None when all is well, or nothing was said.
pub(super) fn causes(facts: &Facts) -> Vec<Suspect> {
    if facts.state == State::Good {
        return Vec::new();
    }
    let mut found: Vec<(Option<&'static Known>, Vec<Evidence>)> = Vec::new();
    for evidence in evidence(facts) {
        let known = remedy::known(&evidence.text);
        match found.iter_mut().find(|(other, _)| known.is_some() && *other == known) {
            Some((_, list)) => list.push(evidence),
            None => found.push((known, vec![evidence])),
        }
    }
    let mut causes: Vec<Suspect> = found.into_iter().map(|(known, evidence)| cause(known, evidence)).collect();
    if facts.operator_missing && facts.state == State::UnderWay {
        causes.push(no_operator());
    }
    // An exit code says less than the line before it.
    let is_mute = |cause: &Suspect| cause.cause == UNKNOWN && first_origin(cause) != Some(Origin::Log);
    causes.sort_by_key(|cause| (cause.cause == UNKNOWN, is_mute(cause), first_origin(cause), generality(cause)));
    // What was recognised explains the rest; without it the first words must do.
    let recognised = causes.iter().filter(|cause| cause.cause != UNKNOWN).count();
    causes.truncate(recognised.max(1));
    causes
}

fn first_origin(cause: &Suspect) -> Option<Origin> {
    cause.evidence.iter().map(|evidence| evidence.origin).min()
}

fn generality(cause: &Suspect) -> usize {
    let known = cause.evidence.first().and_then(|evidence| remedy::known(&evidence.text));
    known.map_or(usize::MAX, remedy::generality)
}

fn cause(known: Option<&'static Known>, evidence: Vec<Evidence>) -> Suspect {
    match known {
        Some(known) => {
            Suspect { cause: known.cause, title: known.title.to_owned(), remedy: known.remedy.to_owned(), evidence }
        }
        None => Suspect {
            cause: UNKNOWN,
            title: "no usual cause is recognised; this was said".to_owned(),
            remedy: "read the log below".to_owned(),
            evidence,
        },
    }
}

fn no_operator() -> Suspect {
    let text = "no operator of kbbackup was found in this cluster".to_owned();
    Suspect {
        cause: "no-operator",
        title: "nobody works on it".to_owned(),
        remedy: "install the operator: kubectl kbbackup install".to_owned(),
        evidence: vec![Evidence { origin: Origin::Operator, subject: "cluster".to_owned(), text }],
    }
}

/// Everything that was said, the nearest to the fault first.
fn evidence(facts: &Facts) -> Vec<Evidence> {
    let mut all = Vec::new();
    let mut add = |origin: Origin, subject: String, text: &str| {
        let text = text.trim();
        if !text.is_empty() {
            all.push(Evidence { origin, subject, text: text.to_owned() });
        }
    };
    // Earlier tries tell the same as the newest.
    if let Some(pod) = facts.pods.iter().rev().find(|pod| !pod.troubles.is_empty()) {
        for trouble in &pod.troubles {
            let container = &trouble.container;
            let place = if container.is_empty() { String::new() } else { format!(" container {container}") };
            add(Origin::Pod, format!("pod/{}{place}", pod.name), &trouble.text);
        }
    }
    for job in facts.jobs.iter().filter(|job| job.state.starts_with("failed")) {
        add(Origin::Job, format!("job/{}", job.name), &job.state);
    }
    if let Some(log) = &facts.log {
        let subject = format!("pod/{} container {}", log.pod, log.container);
        // A log tells more than one thing; the last that is recognised is the nearest to its end. Of other errors the
        // first has led to the rest.
        let known = log.lines.iter().rev().find(|line| remedy::known(line).is_some());
        let telling = known.or_else(|| log.lines.iter().find(|line| is_complaint(line)));
        add(Origin::Log, subject, telling.or_else(|| log.lines.last()).map_or("", String::as_str));
    }
    if let Some((name, reason)) = &facts.repo {
        add(Origin::Repository, format!("backuprepo/{name}"), reason);
    }
    add(Origin::Status, facts.short(), &facts.reason);
    add(Origin::Waiting, facts.short(), &facts.waiting_for);
    for condition in facts.conditions.iter().filter(|condition| condition.status == "False") {
        add(Origin::Condition, format!("{} condition {}", facts.short(), condition.type_), &condition.message);
    }
    for event in facts.events.iter().rev().take(3) {
        add(Origin::Event, facts.short(), event);
    }
    all
}

/// Whether a line of a log looks like the reason of an end.
fn is_complaint(line: &str) -> bool {
    let line = line.to_lowercase();
    ["error", "fatal", "cannot", "could not", "failed"].iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::why::facts::{JobFact, LogFact, PodFact, Trouble};

    fn failed() -> Facts {
        Facts {
            kind: "Backup",
            name: "one".to_owned(),
            state: State::Bad,
            reason: "BackoffLimitExceeded:Job has reached the specified backoff limit".to_owned(),
            ..Facts::default()
        }
    }

    fn pod(trouble: &str) -> PodFact {
        PodFact {
            name: "p".to_owned(),
            phase: "Pending".to_owned(),
            troubles: vec![Trouble { container: "backupdata".to_owned(), text: trouble.to_owned() }],
        }
    }

    #[test]
    fn the_log_explains_an_exit_code() {
        let mut facts = failed();
        facts.pods = vec![pod("Error, exit code 1")];
        facts.jobs = vec![JobFact { name: "j".to_owned(), state: "failed: BackoffLimitExceeded".to_owned() }];
        let lines = ["starting", "FATAL: password authentication failed for user \"a\"", "bye"];
        let lines = lines.map(str::to_owned).to_vec();
        facts.log = Some(LogFact { pod: "p".to_owned(), container: "backupdata".to_owned(), lines });
        let causes = causes(&facts);
        assert_eq!(causes.len(), 1, "{causes:?}");
        assert_eq!(causes[0].cause, "database-password");
        assert_eq!(causes[0].evidence[0].text, "FATAL: password authentication failed for user \"a\"");
    }

    #[test]
    fn what_the_pod_says_comes_before_what_others_say() {
        let mut facts = failed();
        facts.events = vec!["1m ago Warning Failed pod/p: connection refused".to_owned()];
        facts.repo = Some(("s3".to_owned(), "NoSuchBucket".to_owned()));
        facts.pods = vec![pod("OOMKilled, exit code 137")];
        let found: Vec<&str> = causes(&facts).iter().map(|cause| cause.cause).collect();
        assert_eq!(found, ["out-of-memory", "store-bucket", "unreachable"]);
    }

    #[test]
    fn several_voices_for_one_cause_are_one_cause() {
        let mut facts = failed();
        facts.pods = vec![pod("ImagePullBackOff: Back-off pulling image")];
        facts.events = vec!["2m ago Warning Failed pod/p: Failed to pull image".to_owned()];
        let causes = causes(&facts);
        assert_eq!(causes[0].cause, "image-pull");
        assert_eq!(causes[0].evidence.len(), 2);
    }

    #[test]
    fn unknown_words_are_repeated_rather_than_guessed_about() {
        let causes = causes(&failed());
        assert_eq!(causes.len(), 1);
        assert_eq!((causes[0].cause, causes[0].evidence[0].origin), (UNKNOWN, Origin::Status));
    }

    #[test]
    fn of_unknown_words_those_of_the_log_come_before_an_exit_code() {
        let mut facts = failed();
        facts.pods = vec![pod("Error, exit code 1")];
        let lines = ["streaming", "error: the stream is no whole file", "see above"].map(str::to_owned).to_vec();
        facts.log = Some(LogFact { pod: "p".to_owned(), container: "backupdata".to_owned(), lines });
        let causes = causes(&facts);
        assert_eq!((causes.len(), causes[0].cause), (1, UNKNOWN));
        assert_eq!(causes[0].evidence[0].text, "error: the stream is no whole file");
    }

    #[test]
    fn a_good_end_has_no_cause_and_a_missing_operator_is_one() {
        assert!(causes(&Facts { state: State::Good, ..failed() }).is_empty());
        let waits = Facts { state: State::UnderWay, operator_missing: true, reason: String::new(), ..failed() };
        assert_eq!(causes(&waits)[0].cause, "no-operator");
    }
}
