//! `unisono doctor`: look at the machine, try two ranks on it, and say what to do.
//!
//! The one invariant that matters: exit code 0 means that ranks work here, 1 that something prevents it.

use std::process::ExitCode;

use serde::Serialize;
use unisono_measure::{size, table};

use super::advice::{self, Advice, Level};
use super::machine::Machine;
use crate::output;

/// Look at this machine: what unisono finds, what it will do, and what you can do about it.
///
/// Two ranks are started for a moment to see whether they can work together. Exit code 0 if they can, 1 if something
/// prevents it.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// The whole report, as JSON has it.
#[derive(Serialize)]
struct Report {
    fine: bool,
    #[serde(flatten)]
    machine: Machine,
    advice: Vec<Advice>,
}

/// Look and tell.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let machine = Machine::look();
    let advice = advice::on(&machine);
    let fine = advice.iter().all(|advice| advice.level != Level::Error);
    let report = Report { fine, machine, advice };
    if arguments.json {
        output::result_line(&serde_json::to_string(&report)?)?;
    } else {
        output::result_line(&text(&report)?)?;
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &Report) -> anyhow::Result<String> {
    let machine = &report.machine;
    let mut paragraphs = vec![
        format!("unisono {} on {}, Linux {}", machine.version, machine.architecture, machine.kernel),
        table::render(&["machine", ""], &overview(machine)),
        table::render(&["kernel feature", "since", "here", "without it"], &feature_rows(machine)),
        parameters(machine)?,
    ];
    paragraphs.push(advice_text(report));
    Ok(paragraphs.join("\n\n"))
}

fn overview(machine: &Machine) -> Vec<Vec<String>> {
    let unknown = || "not known".to_string();
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_string(), value]);
    row("processor", machine.processor.clone().unwrap_or_else(unknown));
    row("cores allowed", ranges(&machine.cores.allowed));
    row("quota", machine.cores.quota.map_or("none".to_string(), |quota| format!("{quota:.2} cores")));
    for cache in &machine.caches {
        let (bytes, cpus) = (size::display(cache.bytes as u64), named(&cache.cpus));
        row(&format!("L{} {}", cache.level, cache.kind), format!("{bytes}, {cpus}"));
    }
    for node in &machine.numa_nodes {
        row(&format!("NUMA node {}", node.node), named(&node.cpus));
    }
    let sets = &machine.instruction_sets;
    row("instruction set", format!("{} (of {})", sets.selected.unwrap_or("none"), sets.available.join(", ")));
    for round_trip in &machine.round_trips {
        let (one, other) = round_trip.cpus;
        row(&format!("cores {one} and {other}"), format!("{} ns, {}", round_trip.ns, round_trip.distance));
    }
    let memory = &machine.memory;
    row("memory to be had", format!("{} ({})", size::about(memory.headroom_bytes), memory.limited_by));
    let dev_shm = memory.dev_shm_bytes.map_or_else(unknown, size::about);
    row("/dev/shm", format!("{dev_shm} (not needed by collectives)"));
    row("user", machine.user.uid.to_string());
    row(
        "namespaces",
        format!(
            "net {}, {}",
            machine.user.network_namespace.map_or_else(unknown, |number| number.to_string()),
            machine.user.pid_namespace.clone().unwrap_or_else(unknown)
        ),
    );
    row("trial of two ranks", if machine.trial.passed { "passed" } else { "FAILED" }.to_string());
    rows
}

fn feature_rows(machine: &Machine) -> Vec<Vec<String>> {
    let row = |feature: &super::machine::Feature| {
        let here = if feature.present { "yes" } else { "no" };
        vec![
            feature.name.to_string(),
            feature.since_kernel.to_string(),
            here.to_string(),
            feature.fall_back.to_string(),
        ]
    };
    machine.features.iter().map(row).collect()
}

/// The parameters by world size, a row each; the names come from the library.
fn parameters(machine: &Machine) -> anyhow::Result<String> {
    let mut headings: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for (ranks, parameters) in &machine.parameters {
        let fields = serde_json::to_value(parameters)?;
        let fields = fields.as_object().cloned().unwrap_or_default();
        headings = fields.keys().cloned().collect();
        let value =
            |value: &serde_json::Value| value.as_u64().map_or_else(|| value.to_string(), size::display);
        rows.push([vec![ranks.to_string()], fields.values().map(value).collect()].concat());
    }
    let headings: Vec<&str> = std::iter::once("ranks").chain(headings.iter().map(String::as_str)).collect();
    Ok(table::render(&headings, &rows))
}

fn advice_text(report: &Report) -> String {
    let line = |advice: &Advice| {
        let level = match advice.level {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "ERROR",
        };
        format!(" {level}: {}", advice.text)
    };
    let verdict = if report.fine { " fine: ranks work here" } else { " ranks do not work here" };
    let mut lines: Vec<String> = report.advice.iter().map(line).collect();
    lines.push(verdict.to_string());
    lines.join("\n")
}

/// `core 0`, `cores 0-3,8`.
fn named(cpus: &[usize]) -> String {
    format!("{} {}", if cpus.len() == 1 { "core" } else { "cores" }, ranges(cpus))
}

/// Core numbers as people write them: `0-3,8`.
fn ranges(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == *cpu => *end = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let range = |(begin, end): &(usize, usize)| {
        if begin == end { begin.to_string() } else { format!("{begin}-{end}") }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_numbers_are_shown_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
        assert_eq!(ranges(&[]), "");
    }
}
