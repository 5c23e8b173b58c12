//! How the answer looks.

use serde_json::{Value, json};

use super::{
    facts::{Facts, State},
    judge::Suspect,
};
use crate::{
    output::table::Sheet,
    ui::{Mark, Ui},
};

/// A documented object for scripts.
pub(super) fn value(facts: &Facts, causes: &[Suspect]) -> Value {
    json!({
        "apiVersion": "cli.kbbackup.io/v1alpha1", "kind": "Explanation",
        "object": {"kind": facts.kind, "namespace": facts.namespace, "name": facts.name},
        "phase": facts.phase, "state": facts.state, "causes": causes,
        "conditions": facts.conditions, "jobs": facts.jobs, "pods": facts.pods, "events": facts.events, "log": facts.log,
    })
}

pub(super) fn text(ui: &Ui, facts: &Facts, causes: &[Suspect]) -> String {
    let mut text = headline(ui, facts, causes);
    for (index, cause) in causes.iter().enumerate() {
        let title = if index == 0 { "Most likely" } else { "Also possible" };
        text.push_str(&format!("\n{}\n", ui.bold(&format!("{title}: {}", cause.title))));
        for evidence in &cause.evidence {
            text.push_str(&said(&evidence.subject, &evidence.text));
        }
        text.push_str(&format!("  → {}\n", cause.remedy));
    }
    let details = details(facts);
    if !details.is_empty() {
        text.push('\n');
        text.push_str(&details);
    }
    text
}

fn headline(ui: &Ui, facts: &Facts, causes: &[Suspect]) -> String {
    let name = facts.short();
    match facts.state {
        State::Good => ui.marked(Mark::Good, &format!("{name} has ended well ({})\n", facts.phase)),
        State::Bad => ui.marked(Mark::Bad, &format!("{name} has failed\n")),
        State::UnderWay if causes.is_empty() => {
            ui.marked(Mark::Good, &format!("{name} is under way ({}); nothing is in its way\n", facts.phase))
        }
        State::UnderWay => {
            ui.marked(Mark::Warn, &format!("{name} is under way ({}), and meets obstacles\n", facts.phase))
        }
    }
}

/// `  subject: text`, further lines of the text below it.
fn said(subject: &str, text: &str) -> String {
    let mut lines = text.lines();
    let mut said = format!("  {subject}: {}\n", lines.next().unwrap_or_default());
    lines.for_each(|line| said.push_str(&format!("    {line}\n")));
    said
}

fn details(facts: &Facts) -> String {
    let mut sheet = Sheet::default();
    if facts.state == State::Good {
        return String::new();
    }
    sheet.title("Conditions");
    for condition in &facts.conditions {
        let words = format!("{} {}: {}", condition.status, condition.reason, condition.message);
        sheet.item(&condition.type_, words.trim_end_matches([':', ' ']));
    }
    sheet.title("Jobs");
    for job in &facts.jobs {
        sheet.block(&format!("job/{}  {}", job.name, job.state));
    }
    sheet.title("Pods");
    for pod in &facts.pods {
        sheet.block(&format!("pod/{}  {}", pod.name, pod.phase));
        for trouble in &pod.troubles {
            sheet.block(format!("    {} {}", trouble.container, trouble.text).trim_end());
        }
    }
    sheet.title("Warnings");
    sheet.blocks(&facts.events);
    if let Some(log) = &facts.log {
        sheet.title(&format!("Last lines of {} in pod/{}", log.container, log.pod));
        sheet.blocks(&log.lines);
    }
    sheet.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        args::Color,
        commands::why::{
            facts::{JobFact, LogFact, PodFact, Trouble},
            judge,
        },
    };

    fn facts() -> Facts {
        Facts {
            kind: "Backup",
            namespace: "demo".to_owned(),
            name: "one".to_owned(),
            phase: "Failed".to_owned(),
            state: State::Bad,
            reason: "Log Collector Output: error: disk\nbye".to_owned(),
            jobs: vec![JobFact { name: "dp-backup-0".to_owned(), state: "failed: BackoffLimitExceeded".to_owned() }],
            pods: vec![PodFact {
                name: "dp-backup-0-x".to_owned(),
                phase: "Failed".to_owned(),
                troubles: vec![Trouble { container: "backupdata".to_owned(), text: "Error, exit code 1".to_owned() }],
            }],
            events: vec!["1m ago Warning BackoffLimitExceeded job/dp-backup-0: reached".to_owned()],
            log: Some(LogFact {
                pod: "dp-backup-0-x".to_owned(),
                container: "backupdata".to_owned(),
                lines: vec!["pushing".to_owned(), "write: No space left on device".to_owned()],
            }),
            ..Facts::default()
        }
    }

    fn shown(facts: &Facts) -> String {
        let ui = Ui::new(Color::Never, true);
        text(&ui, facts, &judge::causes(facts))
    }

    #[test]
    fn cause_remedy_and_everything_below() {
        insta::assert_snapshot!(shown(&facts()));
    }

    #[test]
    fn a_good_end_is_one_line() {
        let facts = Facts { state: State::Good, phase: "Completed".to_owned(), ..facts() };
        assert_eq!(shown(&facts), "✓ backup/one has ended well (Completed)\n");
    }

    #[test]
    fn scripts_find_the_cause_first() {
        let facts = facts();
        let value = value(&facts, &judge::causes(&facts));
        assert_eq!(value["kind"], "Explanation");
        assert_eq!(value["causes"][0]["cause"], "store-full");
        assert_eq!(value["causes"][0]["evidence"][0]["origin"], "log");
    }
}
