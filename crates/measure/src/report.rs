//! A measured line: columns for people as nccl-tests prints them, one JSON object for programs.
//!
//! The program prints a [`Line`] per size as soon as it is measured; comparisons with other libraries read and
//! write the same JSON, told apart by `impl`. The one invariant that matters: the names and units of the JSON
//! keys never change, and new ones are only ever added.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::operation::Operation;
use crate::rounds::Settled;

/// One measured size of one operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Which library was measured.
    #[serde(rename = "impl")]
    pub implementation: String,
    /// The operation, such as `all-reduce`.
    pub op: String,
    /// The element type, such as `f32`.
    pub dtype: String,
    /// The number of ranks.
    pub ranks: usize,
    /// The size in bytes: the larger of a rank's two buffers.
    pub bytes: usize,
    /// The round trip between the ranks' cores in nanoseconds; `None` where there is only one core.
    pub round_trip_ns: Option<u64>,
    /// The slowest rank's median, in microseconds.
    pub p50_us: f64,
    /// The slowest rank's 99th percentile, in microseconds.
    pub p99_us: f64,
    /// Size over median, in 10^9 bytes a second.
    pub algbw_gbps: f64,
    /// The algorithm bandwidth times the operation's bus factor.
    pub busbw_gbps: f64,
    /// How many elements of the results were wrong on all ranks; `None` if nobody looked.
    pub wrong: Option<u64>,
    /// The count of elements handed to the operation.
    pub count: usize,
    /// The reduce operation, such as `sum`; `None` where nothing is reduced.
    pub redop: Option<String>,
    /// How many operations were timed on each rank.
    pub samples: usize,
    /// How many rounds the value is the median of.
    pub rounds: usize,
    /// Whether the cores moved during every round, so that the value is of a mixture of near and far.
    pub moved: bool,
    /// Messages a second in one direction; queues only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msgs_per_s: Option<f64>,
}

/// What was measured: everything of a [`Line`] that is known before the clock runs.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Which library is measured.
    pub implementation: String,
    /// The operation.
    pub operation: Operation,
    /// The element type's name.
    pub dtype: String,
    /// The reduce operation's name, if values are reduced.
    pub redop: Option<String>,
    /// The number of ranks.
    pub ranks: usize,
    /// The size in bytes.
    pub bytes: usize,
    /// The count of elements handed to the operation.
    pub count: usize,
}

impl Line {
    /// The line for a subject and its settled value.
    pub fn new(subject: Subject, settled: &Settled, wrong: Option<u64>) -> Line {
        let p50_ns = settled.summary.p50_ns;
        let algbw_gbps = if p50_ns == 0 { 0.0 } else { subject.bytes as f64 / p50_ns as f64 };
        Line {
            implementation: subject.implementation,
            op: subject.operation.name().to_string(),
            dtype: subject.dtype,
            ranks: subject.ranks,
            bytes: subject.bytes,
            round_trip_ns: settled.round_trip.map(|time| time.as_nanos() as u64),
            p50_us: p50_ns as f64 / 1000.0,
            p99_us: settled.summary.p99_ns as f64 / 1000.0,
            algbw_gbps: thousandths(algbw_gbps),
            busbw_gbps: thousandths(algbw_gbps * subject.operation.bus_factor(subject.ranks)),
            wrong,
            count: subject.count,
            redop: subject.redop,
            samples: settled.summary.samples,
            rounds: settled.rounds,
            moved: settled.moved,
            msgs_per_s: None,
        }
    }

    /// The headings above the columns, two lines, each beginning with `#`.
    pub fn headings() -> String {
        format!(
            "#{:>11} {:>12} {:>6} {:>8} {:>10} {:>10} {:>8} {:>8} {:>7} {:>6}\n#{:>11} {:>12} {:>6} {:>8} {:>10} {:>10} \
             {:>8} {:>8} {:>7} {:>6}",
            "size",
            "count",
            "type",
            "redop",
            "p50",
            "p99",
            "algbw",
            "busbw",
            "#wrong",
            "cores",
            "(B)",
            "(elements)",
            "",
            "",
            "(us)",
            "(us)",
            "(GB/s)",
            "(GB/s)",
            "",
            "(ns)"
        )
    }

    /// This line as columns under [`Line::headings`].
    pub fn columns(&self) -> String {
        let or = |value: Option<String>, otherwise: &str| value.unwrap_or_else(|| otherwise.to_string());
        format!(
            " {:>11} {:>12} {:>6} {:>8} {:>10} {:>10} {:>8.2} {:>8.2} {:>7} {:>6}{}",
            self.bytes,
            self.count,
            self.dtype,
            or(self.redop.clone(), "none"),
            microseconds(self.p50_us),
            microseconds(self.p99_us),
            self.algbw_gbps,
            self.busbw_gbps,
            or(self.wrong.map(|wrong| wrong.to_string()), "N/A"),
            or(self.round_trip_ns.map(|time| time.to_string()), "-"),
            if self.moved { "  cores moved" } else { "" }
        )
    }

    /// This line as one JSON object on one line.
    ///
    /// # Errors
    /// None that a `Line` with finite numbers can meet.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// A time in microseconds with as many decimals as tell something.
pub fn microseconds(time_us: f64) -> String {
    match time_us {
        t if t < 10.0 => format!("{t:.2}"),
        t if t < 1000.0 => format!("{t:.1}"),
        t => format!("{t:.0}"),
    }
}

/// A time for people, in the unit that suits it.
pub fn duration(time: Duration) -> String {
    match time.as_nanos() {
        0..=9_999 => format!("{} ns", time.as_nanos()),
        10_000..=9_999_999 => format!("{:.1} us", time.as_secs_f64() * 1e6),
        10_000_000..=9_999_999_999 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Summary;

    fn line() -> Line {
        let subject = Subject {
            implementation: "unisono".to_string(),
            operation: Operation::AllReduce,
            dtype: "f32".to_string(),
            redop: Some("sum".to_string()),
            ranks: 4,
            bytes: 16384,
            count: 4096,
        };
        let settled = Settled {
            summary: Summary { samples: 1000, p50_ns: 2048, p99_ns: 4096, max_ns: 9000 },
            round_trip: Some(Duration::from_nanos(101)),
            rounds: 3,
            moved: false,
        };
        Line::new(subject, &settled, Some(0))
    }

    #[test]
    fn bandwidth_is_size_over_median_and_the_bus_factor_on_top() {
        let line = line();
        assert_eq!((line.algbw_gbps, line.busbw_gbps), (8.0, 12.0));
        assert_eq!((line.p50_us, line.p99_us), (2.048, 4.096));
    }

    #[test]
    fn the_json_line_has_the_documented_keys_in_order_and_reads_back() {
        let json = line().json().unwrap();
        let documented = concat!(
            r#"{"impl":"unisono","op":"all-reduce","dtype":"f32","ranks":4,"bytes":16384,"round_trip_ns":101,"#,
            r#""p50_us":2.048,"p99_us":4.096,"algbw_gbps":8.0,"busbw_gbps":12.0,"wrong":0,"#
        );
        assert!(json.starts_with(documented), "{json}");
        assert!(!json.contains('\n'));
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line());
    }

    #[test]
    fn every_column_stands_under_its_heading() {
        let headings = Line::headings();
        let width = headings.lines().next().unwrap().len();
        assert_eq!(headings.lines().map(str::len).collect::<Vec<_>>(), [width, width]);
        assert_eq!(line().columns().len(), width);
        let unchecked = Line { wrong: None, moved: true, ..line() };
        assert!(unchecked.columns().contains("N/A") && unchecked.columns().ends_with("cores moved"));
    }

    #[test]
    fn times_are_shown_in_the_unit_that_suits_them() {
        assert_eq!(duration(Duration::from_nanos(101)), "101 ns");
        assert_eq!(duration(Duration::from_micros(250)), "250.0 us");
        assert_eq!(duration(Duration::from_millis(50)), "50.0 ms");
        assert_eq!(duration(Duration::from_secs(30)), "30.0 s");
    }
}
