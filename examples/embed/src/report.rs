//! What a run found out, as JSON for programs and as tables for people.
//!
//! `main` fills a [`Report`] and gives it to both. The invariant: a figure stands in it only if it was measured in the
//! run that writes it, except the speed of the saved run, which comes from that run's file.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use crate::ranks::Ranks;
use crate::similarity::Pair;

/// The largest difference to the saved result that still counts as the same embedding: sums in another order differ
/// by rounding, about a hundredth of this.
pub(crate) const TOLERANCE: f32 = 1e-5;

/// Everything a run found out.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) world_size: usize,
    pub(crate) threads_per_rank: usize,
    pub(crate) sentences: usize,
    pub(crate) batch_size: usize,
    /// Batches that the text makes.
    pub(crate) batches: usize,
    /// How many times the text was embedded.
    pub(crate) passes: usize,
    pub(crate) seconds: f64,
    pub(crate) sentences_per_second: f64,
    pub(crate) milliseconds_per_batch: f64,
    pub(crate) all_reduces: AllReduces,
    /// The checksum of the embeddings, the same on all ranks if `same_bits`.
    pub(crate) checksum: String,
    pub(crate) same_bits: bool,
    pub(crate) comparison: Option<Comparison>,
    pub(crate) nearest: Vec<NearestPair>,
}

/// What the all-reduces of the timed passes cost.
#[derive(Serialize)]
pub(crate) struct AllReduces {
    /// Made by each rank.
    pub(crate) count: usize,
    /// Layers times two times batches, if there is more than one process to make them.
    pub(crate) expected: usize,
    /// Time in an all-reduce as rank 0 sees it, waiting for slower ranks included.
    pub(crate) mean_microseconds: f64,
    /// The same for whichever rank came last to each, and so waited for nobody: what the all-reduce itself costs.
    pub(crate) last_rank_mean_microseconds: f64,
    /// Time in all-reduces over all time, on rank 0.
    pub(crate) share_of_time: f64,
}

/// A run beside the saved one.
#[derive(Serialize)]
pub(crate) struct Comparison {
    pub(crate) largest_difference: f32,
    pub(crate) tolerance: f32,
    pub(crate) saved_sentences_per_second: f64,
    pub(crate) speed_up: f64,
}

/// Two sentences that mean much the same.
#[derive(Serialize)]
pub(crate) struct NearestPair {
    pub(crate) cosine: f32,
    pub(crate) first: String,
    pub(crate) second: String,
}

impl NearestPair {
    pub(crate) fn new(pair: &Pair, sentences: &[String]) -> Self {
        let sentence = |number: usize| sentences[number].clone();
        Self { cosine: pair.cosine, first: sentence(pair.first), second: sentence(pair.second) }
    }
}

impl AllReduces {
    /// Collective. From the `times` of this rank's all-reduces in a run that took `total`.
    pub(crate) fn measured(
        ranks: &Ranks,
        times: &[Duration],
        expected: usize,
        total: Duration,
    ) -> Result<Self> {
        let counts = ranks.gather(&[times.len() as i64])?;
        ensure!(
            counts.iter().all(|&count| usize::try_from(count) == Ok(expected)),
            "each rank should have made {expected} all-reduces, they made {counts:?}"
        );
        let here: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        let everywhere = ranks.gather(&here)?;
        let shortest = (0..expected).map(|call| {
            everywhere.iter().skip(call).step_by(expected).copied().fold(f64::INFINITY, f64::min)
        });
        let mean = |sum: f64| if expected == 0 { 0.0 } else { sum / expected as f64 * 1e6 };
        let spent: f64 = here.iter().sum();
        Ok(Self {
            count: times.len(),
            expected,
            mean_microseconds: mean(spent),
            last_rank_mean_microseconds: mean(shortest.sum()),
            share_of_time: spent / total.as_secs_f64(),
        })
    }
}

impl Report {
    /// What is wrong with the result, if anything.
    pub(crate) fn verdict(&self) -> Result<()> {
        ensure!(self.same_bits, "the ranks hold different embeddings: their bits must be the same");
        if let Some(comparison) = &self.comparison {
            ensure!(
                comparison.largest_difference < comparison.tolerance,
                "the embeddings differ from the saved ones by {:e}, at most {:e} is rounding: were they saved from this \
                 text and model?",
                comparison.largest_difference,
                comparison.tolerance
            );
        }
        Ok(())
    }

    /// Writes the report as JSON.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(path, json + "\n").with_context(|| format!("writing the report to {}", path.display()))
    }

    /// The report as tables.
    pub(crate) fn tables(&self) -> String {
        format!("{}\n\n{}", self.nearest_table(), self.figures_table())
    }

    fn nearest_table(&self) -> Table {
        let mut table = plain_table();
        table.set_header(["cosine", "sentences that mean much the same"]);
        for pair in &self.nearest {
            let sentences = format!("{}\n{}", shortened(&pair.first), shortened(&pair.second));
            table.add_row([format!("{:.3}", pair.cosine), sentences]);
        }
        table
    }

    fn figures_table(&self) -> Table {
        let mut table = plain_table();
        let mut figure = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        figure("ranks × threads", format!("{} × {}", self.world_size, self.threads_per_rank));
        figure(
            "text",
            format!("{} sentences in {} batches, {} times", self.sentences, self.batches, self.passes),
        );
        figure("sentences per second", format!("{:.1}", self.sentences_per_second));
        figure("time of a batch", format!("{:.2} ms", self.milliseconds_per_batch));
        let reduces = &self.all_reduces;
        figure("all-reduces", format!("{}, as many as expected", reduces.count));
        if reduces.count > 0 {
            figure("time in an all-reduce", format!("{:.1} µs, waiting included", reduces.mean_microseconds));
            figure("  on the rank that came last", format!("{:.1} µs", reduces.last_rank_mean_microseconds));
            figure("share of time in all-reduces", format!("{:.1} %", reduces.share_of_time * 100.0));
        }
        let same = if self.same_bits { "the same bits on all ranks" } else { "DIFFERENT on some rank" };
        figure("embeddings", format!("{same} ({})", self.checksum));
        if let Some(comparison) = &self.comparison {
            let difference = comparison.largest_difference;
            figure(
                "largest difference to saved",
                format!("{difference:.1e}, allowed {:.0e}", comparison.tolerance),
            );
            let saved = comparison.saved_sentences_per_second;
            figure("speed over the saved run", format!("{:.2} × {saved:.1} a second", comparison.speed_up));
        }
        table
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table
}

/// At most a line of `sentence`.
fn shortened(sentence: &str) -> String {
    const LINE: usize = 96;
    if sentence.chars().count() <= LINE {
        return sentence.to_owned();
    }
    let kept: String = sentence.chars().take(LINE - 1).collect();
    kept + "…"
}
