//! Drawings. Places on the line of time are in percent, so that a picture has the width of its page and round dots.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{Point, Section, page::escaped};
use crate::output::human;

/// Height of a lane, in pixels.
const LANE: usize = 22;
/// Height of the sizes, in pixels.
const SIZES: f64 = 64.0;

/// A stretch of time as percents.
struct Axis {
    from: Timestamp,
    to: Timestamp,
}

impl Axis {
    /// Between 1 and 99, so that a dot at the edge is whole.
    fn percent(&self, time: Timestamp) -> f64 {
        let whole = self.to.duration_since(self.from).as_secs_f64().max(1.0);
        1.0 + 98.0 * (time.duration_since(self.from).as_secs_f64() / whole).clamp(0.0, 1.0)
    }

    fn stretch(&self, from: Timestamp, to: Timestamp) -> Option<(f64, f64)> {
        if to < self.from || from > self.to {
            return None;
        }
        let (from, to) = (self.percent(from), self.percent(to));
        Some((from, (to - from).max(0.2)))
    }
}

/// Lanes of backups by method, then logs, then what can be reached. Each lane is a name and a drawing.
pub(super) fn lanes(section: &Section, now: Timestamp) -> Vec<(String, String)> {
    let axis = Axis { from: section.from, to: now };
    let mut methods: Vec<&str> = Vec::new();
    for point in &section.points {
        if !methods.contains(&point.method.as_str()) {
            methods.push(&point.method);
        }
    }
    let mut lanes: Vec<(String, String)> = methods
        .iter()
        .map(|method| {
            let own = section.points.iter().filter(|point| point.method == **method);
            let dots: String = own.map(|point| dot(point, axis.percent(point.at))).collect();
            ((*method).to_owned(), lane(&dots))
        })
        .collect();
    for log in &section.logs {
        let mut drawn = String::new();
        if let (Some(start), Some(end)) = (log.log.start, log.log.end) {
            drawn.push_str(&bar(axis.stretch(start, end), "log", &format!("log {}", between(start, end))));
        }
        for gap in &log.log.gaps {
            drawn.push_str(&bar(
                axis.stretch(gap.start, gap.end),
                "gap",
                &format!("gap {}", between(gap.start, gap.end)),
            ));
        }
        lanes.push((format!("{} (log)", log.backup.spec.backup_method), lane(&drawn)));
        let windows = log.windows();
        let reached = windows.iter().map(|window| {
            bar(axis.stretch(window.from, window.to), "window", &format!("can be brought back to {}", window.text()))
        });
        lanes.push(("back to".to_owned(), lane(&reached.collect::<String>())));
    }
    lanes
}

fn between(from: Timestamp, to: Timestamp) -> String {
    format!("{} to {}", human::stamp(from), human::stamp(to))
}

fn lane(drawn: &str) -> String {
    format!("<svg class=\"lane\" height=\"{LANE}\" role=\"img\">{drawn}</svg>")
}

fn dot(point: &Point, percent: f64) -> String {
    let size = point.bytes.map(|bytes| format!(", {}", human::bytes(bytes))).unwrap_or_default();
    let about = format!("{}: {} {}, {}{size}", point.name, point.kind, point.phase, human::stamp(point.at));
    let title = format!("<title>{}</title>", escaped(&about));
    let middle = LANE / 2;
    match point.phase.as_str() {
        "Failed" => format!("<text class=\"bad\" x=\"{percent:.2}%\" y=\"{}\">✗{title}</text>", middle + 5),
        "Completed" => {
            let class = if matches!(point.kind.as_str(), "Incremental" | "Differential") { "part" } else { "full" };
            format!("<circle class=\"{class}\" cx=\"{percent:.2}%\" cy=\"{middle}\" r=\"5\">{title}</circle>")
        }
        _ => format!("<circle class=\"open\" cx=\"{percent:.2}%\" cy=\"{middle}\" r=\"4\">{title}</circle>"),
    }
}

fn bar(stretch: Option<(f64, f64)>, class: &str, about: &str) -> String {
    let Some((from, width)) = stretch else { return String::new() };
    let (y, height) = match class {
        "window" => (5, LANE - 10),
        "gap" => (LANE / 2 - 4, 8),
        _ => (LANE / 2 - 2, 4),
    };
    format!(
        "<rect class=\"{class}\" x=\"{from:.2}%\" y=\"{y}\" width=\"{width:.2}%\" height=\"{height}\"><title>{}</title></rect>",
        escaped(about)
    )
}

/// Sizes over time as columns; nothing when none is known. The largest is as high as there is room.
pub(super) fn sizes(section: &Section, now: Timestamp) -> Option<String> {
    let known: Vec<(&Point, u64)> = section.points.iter().filter_map(|point| Some((point, point.bytes?))).collect();
    let largest = known.iter().map(|(_, bytes)| *bytes).max().filter(|largest| *largest > 0)?;
    let axis = Axis { from: section.from, to: now };
    let mut drawn = String::new();
    for (point, bytes) in known {
        let height = (SIZES * bytes as f64 / largest as f64).max(2.0);
        let class = if matches!(point.kind.as_str(), "Incremental" | "Differential") { "part" } else { "full" };
        let about = escaped(&format!("{}: {}, {}", point.name, human::bytes(bytes), human::stamp(point.at)));
        let _ = write!(
            drawn,
            "<svg x=\"{:.2}%\" overflow=\"visible\"><rect class=\"{class}\" x=\"-3\" y=\"{:.1}\" width=\"6\" height=\"{height:.1}\"><title>{about}</title></rect></svg>",
            axis.percent(point.at),
            SIZES - height
        );
    }
    Some(format!("<svg class=\"sizes\" height=\"{SIZES}\" role=\"img\">{drawn}</svg>"))
}
