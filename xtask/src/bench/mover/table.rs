//! The result as Markdown.

use std::collections::HashMap;

use super::cases::{Case, targets};
use super::site::Site;
use crate::bench::run::Measured;
use crate::ui;

pub(super) fn print(site: &Site, size: u64, runs: u32, cases: &[Case], best: &HashMap<String, Measured>) {
    ui::result(format!(
        "{size} MiB, the fastest of {runs} interleaved runs; the client and, for S3, its server share the cores.\n"
    ));
    for version in site.versions() {
        ui::result(format!("- {version}"));
    }
    let mut title = String::new();
    for case in cases {
        let Some(one) = best.get(&case.id()) else { continue };
        let head = format!("{}, {} data: {}", case.store, case.data, case.way);
        if head != title {
            ui::result(format!("\n| {head} | seconds | MiB/s | CPU seconds | peak MiB |\n|---|---:|---:|---:|---:|"));
            title = head;
        }
        let seconds = one.time.as_secs_f64();
        ui::result(format!(
            "| {} | {seconds:.2} | {:.0} | {:.2} | {:.1} |",
            case.name,
            size as f64 / seconds,
            one.cpu.as_secs_f64(),
            one.peak as f64 / 1024.0
        ));
    }
    ui::result("\n| target | beside | throughput | at least | met |\n|---|---|---:|---:|---|");
    for target in targets() {
        let base = target.bases.iter().filter_map(|base| Some((base, best.get(base)?))).min_by_key(|(_, one)| one.time);
        let (Some(case), Some((name, base))) = (best.get(&target.case), base) else { continue };
        let ratio = base.time.as_secs_f64() / case.time.as_secs_f64();
        let name = name.rsplit(": ").next().unwrap_or(name);
        let met = if ratio >= target.at_least { "yes" } else { "**no**" };
        ui::result(format!("| {} | {name} | {ratio:.2} | {:.2} | {met} |", target.case, target.at_least));
    }
    let mover = cases.iter().filter(|case| case.name.starts_with("mover"));
    let peak = mover.filter_map(|case| Some((best.get(&case.id())?.peak, case.id()))).max();
    if let Some((peak, id)) = peak {
        ui::result(format!("\nThe mover's largest peak: {:.1} MiB ({id}).", peak as f64 / 1024.0));
    }
}
