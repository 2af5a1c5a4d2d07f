//! What was measured of queues as ratios, tables, verdicts and JSON.
//!
//! The one invariant that matters: a ratio is that of two values of one cell and one placement; below 1 unisono is faster.

use serde_json::{Value as Json, json};
use unisono_measure::report::microseconds;
use unisono_measure::table;

use super::cell::{Cell, Kind, REST_ALLOWED_MICROSECONDS};
use super::measure::Results;
use crate::cell::{Placement, Value};
use crate::targets::Targets;
use crate::verdict::{OURS, ROUNDS_TO_JUDGE, Verdict};

const PLACEMENTS: [Placement; 3] = [Placement::Near, Placement::Far, Placement::OneCore];
/// Against which size in place the others are judged.
const IN_PLACE_BASE: usize = 1 << 10;

/// What each implementation reached in a cell and a placement.
struct Row<'r> {
    cell: Cell,
    placement: Placement,
    values: Vec<(&'r str, Option<Value>)>,
}

impl<'r> Row<'r> {
    fn of(results: &'r Results, placement: Placement, targets: &Targets) -> Option<Row<'r>> {
        let value = |outcome: &'r crate::schedule::Outcome| {
            (outcome.name.as_str(), outcome.value(placement, targets.near_up_to()))
        };
        let values: Vec<_> = results.outcomes.iter().map(value).collect();
        let any = values.iter().any(|(_, value)| value.is_some());
        any.then_some(Row { cell: results.cell, placement, values })
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(of, _)| *of == name)?.1.as_ref()
    }

    /// unisono's time over that of this peer.
    fn ratio_to(&self, peer: &str) -> Option<f64> {
        let (own, peer) = (self.value(OURS)?, self.value(peer)?);
        Some(own.p50_ns as f64 / peer.p50_ns.max(1) as f64)
    }

    fn best_peer(&self) -> Option<&str> {
        let peers = self.values.iter().filter(|(name, _)| *name != OURS);
        let values = peers.filter_map(|(name, value)| Some((*name, value.as_ref()?.p50_ns)));
        values.min_by_key(|(_, time)| *time).map(|(name, _)| name)
    }

    fn is_judged(&self) -> bool {
        self.value(OURS).is_some_and(|value| value.rounds >= ROUNDS_TO_JUDGE || self.cell.kind == Kind::Rest)
    }
}

fn rows<'r>(results: &'r [Results], targets: &'r Targets) -> impl Iterator<Item = Row<'r>> {
    PLACEMENTS.into_iter().flat_map(move |placement| {
        results.iter().filter_map(move |results| Row::of(results, placement, targets))
    })
}

/// A value as people read it: microseconds, or for a stream millions of messages a second, for a rest milliseconds.
fn shown(cell: &Cell, value: &Value) -> String {
    match cell.kind {
        Kind::Latency | Kind::InPlace => format!("{} us", microseconds(value.p50_ns as f64 / 1000.0)),
        Kind::Stream => format!("{:.2} M/s", messages_per_second(cell, value) / 1e6),
        Kind::Rest => format!("{:.2} ms", value.p50_ns as f64 / 1000.0),
    }
}

fn messages_per_second(cell: &Cell, value: &Value) -> f64 {
    1e9 * cell.messages_of_a_value() as f64 / value.p50_ns.max(1) as f64
}

/// All that was measured, as a table, with notes on what is missing or wrong.
pub(crate) fn table_of(results: &[Results], targets: &Targets) -> String {
    let Some(first) = results.first() else { return String::new() };
    let names: Vec<&str> = first.outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
    let peers: Vec<&str> = names.iter().copied().filter(|name| *name != OURS).collect();
    let ratios: Vec<String> = peers.iter().map(|peer| format!("ratio to {peer}")).collect();
    let mut headings = vec!["queue", "cores"];
    headings.extend(&names);
    headings.extend(ratios.iter().map(String::as_str));
    let line = |row: Row<'_>| {
        let value = |name: &&str| row.value(name).map_or("-".to_string(), |value| shown(&row.cell, value));
        let ratio = |peer: &&str| row.ratio_to(peer).map_or("-".to_string(), |ratio| format!("{ratio:.3}"));
        // Where no distance was looked at there is none to show.
        let placement = if row.cell.kind == Kind::Rest { "any" } else { row.placement.name() };
        let mut line = vec![row.cell.to_string(), placement.to_string()];
        line.extend(names.iter().map(value));
        line.extend(peers.iter().map(ratio));
        line
    };
    let lines: Vec<Vec<String>> = rows(results, targets).map(line).collect();
    let title =
        "queue from one writer to many readers: median; one way is half of a round trip through two queues";
    let mut text = format!("\n{title}\n{}", table::render(&headings, &lines));
    for results in results {
        for outcome in &results.outcomes {
            if outcome.wrong > 0 {
                text += &format!(
                    "\n  {}, {}: {} WRONG messages, not compared",
                    outcome.name, results.cell, outcome.wrong
                );
            }
            if let Some(what) = &outcome.lacks {
                text += &format!("\n  {}, {}: lacks {what}", outcome.name, results.cell);
            }
        }
    }
    text
}

/// One verdict for each target and placement that something was measured of.
pub(crate) fn judge(results: &[Results], targets: &Targets) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for target in &targets.queues {
        let is_meant = |row: &Row<'_>| {
            let Cell { kind, bytes, readers } = row.cell;
            (kind, bytes, readers) == (target.kind, target.bytes, target.readers) && row.is_judged()
        };
        for row in rows(results, targets).filter(is_meant) {
            // A rest has no distance.
            let placement = if row.cell.kind == Kind::Rest { Placement::Near } else { row.placement };
            let (Some(goal), Some((ratio, to))) = (target.ratio(placement), compared(&row, results, targets))
            else {
                continue;
            };
            let place = if row.cell.kind == Kind::Rest { "any cores" } else { row.placement.name() };
            verdicts.push(Verdict {
                subject: format!("unisono queue, {}, {place}", row.cell),
                target: goal,
                bytes: row.cell.bytes,
                ratio,
                best_peer: to,
            });
        }
    }
    verdicts
}

/// The ratio by which a cell is judged, and to what.
fn compared(row: &Row<'_>, results: &[Results], targets: &Targets) -> Option<(f64, String)> {
    let own = row.value(OURS)?;
    match row.cell.kind {
        Kind::Latency | Kind::Stream => {
            let peer = row.best_peer()?;
            Some((row.ratio_to(peer)?, peer.to_string()))
        }
        Kind::InPlace => {
            let base = Cell { bytes: IN_PLACE_BASE, ..row.cell };
            let base = results.iter().find(|results| results.cell == base)?;
            let base = Row::of(base, row.placement, targets)?;
            let ratio = own.p50_ns as f64 / base.value(OURS)?.p50_ns.max(1) as f64;
            Some((ratio, "itself at 1 KiB".to_string()))
        }
        // Its values are microseconds.
        Kind::Rest => Some((own.p50_ns as f64 / REST_ALLOWED_MICROSECONDS as f64, "10 ms".to_string())),
    }
}

/// Everything, for programs.
pub(crate) fn json_of(results: &[Results], targets: &Targets) -> Vec<Json> {
    let one = |row: Row<'_>| {
        let values: serde_json::Map<String, Json> = row
            .values
            .iter()
            .filter_map(|(name, value)| {
                let value = value.as_ref()?;
                let mut json = json!({ "rounds": value.rounds, "round_trip_ns": value.round_trip_ns });
                match row.cell.kind {
                    Kind::Stream => json["msgs_per_s"] = messages_per_second(&row.cell, value).into(),
                    Kind::Rest => json["cpu_us"] = value.p50_ns.into(),
                    Kind::Latency | Kind::InPlace => {
                        (json["p50_ns"], json["p99_ns"]) = (value.p50_ns.into(), value.p99_ns.into());
                    }
                }
                Some((name.to_string(), json))
            })
            .collect();
        let peers = row.values.iter().filter(|(name, _)| *name != OURS);
        let ratios: serde_json::Map<String, Json> =
            peers.filter_map(|(peer, _)| Some((peer.to_string(), row.ratio_to(peer)?.into()))).collect();
        json!({
            "op": "queue",
            "kind": row.cell.kind,
            "bytes": row.cell.bytes,
            "readers": row.cell.readers,
            "placement": row.placement,
            "values": values,
            "ratios": ratios,
        })
    };
    rows(results, targets).map(one).collect()
}

/// Whether something of unisono's own was wrong or failed.
pub(crate) fn is_wrong(results: &[Results]) -> bool {
    let own = results.iter().flat_map(|results| &results.outcomes).filter(|outcome| outcome.name == OURS);
    own.into_iter().any(|outcome| outcome.wrong > 0 || outcome.lacks.is_some())
}
