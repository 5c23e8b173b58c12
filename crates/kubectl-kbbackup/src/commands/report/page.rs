//! The page: no scripts, nothing from elsewhere, readable in light and dark, wide and narrow.

use std::fmt::Write as _;

use super::{Report, Section, picture};
use crate::output::human;

const STYLE: &str = include_str!("page.css");

/// Text that means nothing to a browser.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

pub(super) fn html(report: &Report) -> String {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Backups of {scope}, {now}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>Backups of {scope}</h1>\n\
         <p>{server}, seen at {now}. All times are UTC.</p>\n</header>\n<main>\n",
        scope = escaped(&report.scope),
        server = escaped(&report.server),
        now = human::stamp(report.now),
    );
    text.push_str(&summary(report));
    if report.sections.is_empty() {
        text.push_str("<p>Nothing is protected here: there are no policies and no backups.</p>\n");
    } else {
        text.push_str(&fleet(report));
        for (index, section) in report.sections.iter().enumerate() {
            text.push_str(&one(section, index, report));
        }
        text.push_str(LEGEND);
    }
    text.push_str("</main>\n</body>\n</html>\n");
    text
}

fn summary(report: &Report) -> String {
    let all = report.sections.len();
    let safe = report.sections.iter().filter(|section| section.status.protected).count();
    let bytes: u64 = report.sections.iter().map(|section| section.status.bytes).sum();
    let backups: usize = report.sections.iter().map(|section| section.status.backups).sum();
    let tile = |class: &str, value: String, name: &str| {
        format!("<div class=\"tile {class}\"><strong>{value}</strong><span>{name}</span></div>\n")
    };
    let mut text = "<div class=\"tiles\">\n".to_owned();
    text.push_str(&tile("", all.to_string(), if all == 1 { "source" } else { "sources" }));
    text.push_str(&tile(if safe == all { "good" } else { "" }, safe.to_string(), "protected"));
    text.push_str(&tile(if safe == all { "" } else { "bad" }, (all - safe).to_string(), "without a good backup"));
    text.push_str(&tile("", backups.to_string(), "backups"));
    text.push_str(&tile("", human::bytes(bytes), "stored"));
    text + "</div>\n"
}

const COLUMNS: [&str; 9] =
    ["Source", "Namespace", "Protected", "Last good", "Age", "Next", "Back to", "Stored", "Last failure"];

fn fleet(report: &Report) -> String {
    let mut text = "<h2>Fleet</h2>\n<table>\n<thead><tr>".to_owned();
    for column in COLUMNS {
        let _ = write!(text, "<th scope=\"col\">{column}</th>");
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for (index, section) in report.sections.iter().enumerate() {
        let cells = row(section, index, report);
        text.push_str("<tr>");
        for (column, cell) in COLUMNS.iter().zip(cells) {
            let cell = if cell.is_empty() { "–".to_owned() } else { cell };
            let _ = write!(text, "<td data-name=\"{column}\">{cell}</td>");
        }
        text.push_str("</tr>\n");
    }
    text + "</tbody>\n</table>\n"
}

/// Cells as HTML, in the order of the columns.
fn row(section: &Section, index: usize, report: &Report) -> [String; 9] {
    let status = &section.status;
    let good = status.last_good.as_ref();
    let failure = status.last_failure.as_ref().filter(|failure| good.is_none_or(|good| good.time < failure.time));
    let ago = |time| human::span(report.now.duration_since(time));
    let (class, word) = if status.protected { ("good", "yes") } else { ("bad", "no") };
    [
        format!("<a href=\"#s{index}\">{}</a>", escaped(&status.source)),
        escaped(&status.namespace),
        format!("<span class=\"mark {class}\">{word}</span>"),
        good.map(|good| escaped(&good.backup)).unwrap_or_default(),
        good.map(|good| ago(good.time)).unwrap_or_default(),
        status.next.map(|next| format!("in {}", human::span(next.duration_since(report.now)))).unwrap_or_default(),
        status.pitr_to.map(human::stamp).unwrap_or_default(),
        human::bytes(status.bytes),
        failure
            .map(|failure| {
                format!(
                    "<span title=\"{}\">{} ({} ago)</span>",
                    escaped(&failure.reason),
                    escaped(&failure.backup),
                    ago(failure.time)
                )
            })
            .unwrap_or_default(),
    ]
}

fn one(section: &Section, index: usize, report: &Report) -> String {
    let status = &section.status;
    let mut text = format!(
        "<section id=\"s{index}\">\n<h2>{} <small>{}</small></h2>\n",
        escaped(&status.source),
        escaped(&status.namespace)
    );
    let lanes = picture::lanes(section, report.now);
    if lanes.is_empty() {
        return text + "<p>No backups in this time.</p>\n</section>\n";
    }
    text.push_str("<div class=\"lanes\">\n");
    for (name, drawing) in lanes {
        let _ = writeln!(text, "<span class=\"name\">{}</span>{drawing}", escaped(&name));
    }
    if let Some(sizes) = picture::sizes(section, report.now) {
        let largest = section.points.iter().filter_map(|point| point.bytes).max().unwrap_or(0);
        let _ = writeln!(text, "<span class=\"name\">size, up to {}</span>{sizes}", human::bytes(largest));
    }
    let _ = writeln!(
        text,
        "<span></span><div class=\"scale\"><span>{}</span><span>{}</span></div>\n</div>",
        human::stamp(section.from),
        human::stamp(report.now)
    );
    text + "</section>\n"
}

const LEGEND: &str = "<footer><span><svg width=\"14\" height=\"14\"><circle class=\"full\" cx=\"7\" cy=\"7\" r=\"5\"/></svg> full</span> \
<span><svg width=\"14\" height=\"14\"><circle class=\"part\" cx=\"7\" cy=\"7\" r=\"5\"/></svg> builds on another</span> \
<span><svg width=\"14\" height=\"14\"><text class=\"bad\" x=\"7\" y=\"12\">✗</text></svg> failed</span> \
<span><svg width=\"14\" height=\"14\"><circle class=\"open\" cx=\"7\" cy=\"7\" r=\"4\"/></svg> under way</span> \
<span><svg width=\"24\" height=\"14\"><rect class=\"log\" y=\"5\" width=\"24\" height=\"4\"/></svg> log</span> \
<span><svg width=\"24\" height=\"14\"><rect class=\"gap\" y=\"5\" width=\"24\" height=\"4\"/></svg> gap</span> \
<span><svg width=\"24\" height=\"14\"><rect class=\"window\" y=\"1\" width=\"24\" height=\"12\"/></svg> times to go back to</span></footer>\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commands::{report::section, status, windows},
        recoverable,
    };
    use kbbackup_api::v1alpha1::{Backup, BackupPhase};

    fn report() -> Report {
        let (mut backups, sets) = windows::tests::objects(&windows::tests::running());
        let mut failed: Backup = backups[3].clone();
        failed.metadata.name = Some("wednesday".into());
        let state = failed.status.get_or_insert_default();
        state.phase = Some(BackupPhase::Failed);
        state.failure_reason = Some("<script>alert(\"no\")</script>".into());
        state.completion_timestamp = serde_json::from_str("\"2026-01-07T02:00:00Z\"").unwrap();
        for (backup, size) in backups.iter_mut().zip(["1Gi", "1100Mi", "20Mi", "1.2Gi"]) {
            backup.status.get_or_insert_default().total_size = Some(size.into());
        }
        backups.push(failed);
        let now = "2026-01-08T06:00:00Z".parse().unwrap();
        let logs = recoverable::of(&backups, &sets);
        let mut statuses = status::judge(&[], &backups, &[], None, now);
        status::reach(&mut statuses, &logs);
        let sections = statuses.into_iter().map(|status| section(status, &backups, &logs, None, now)).collect();
        Report { scope: "all namespaces".into(), server: "https://127.0.0.1:6443".into(), now, sections }
    }

    #[test]
    fn the_page() {
        let text = html(&report());
        if let Some(file) = std::env::var_os("KBBACKUP_REPORT") {
            std::fs::write(file, &text).unwrap();
        }
        let body = text.split_once("</style>").unwrap().1;
        insta::assert_snapshot!(body);
    }

    #[test]
    fn nothing_of_an_object_is_markup_and_nothing_comes_from_elsewhere() {
        let mut report = report();
        let markup = || "<script>alert(\"no\")</script>".to_owned();
        (report.scope, report.server) = (markup(), markup());
        (report.sections[0].status.source, report.sections[0].status.namespace) = (markup(), markup());
        (report.sections[0].points[0].method, report.sections[0].points[0].name) = (markup(), markup());
        let text = html(&report);
        assert!(text.contains("&lt;script&gt;") && !text.contains("<script"), "{text}");
        for word in ["src=", "url(", "@import", "http-equiv", "href=\"http"] {
            assert!(!text.contains(word), "{word}");
        }
    }

    #[test]
    fn an_empty_fleet_is_a_sentence() {
        let empty = Report { sections: Vec::new(), ..report() };
        assert!(html(&empty).contains("Nothing is protected here"));
    }
}
