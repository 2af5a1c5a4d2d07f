//! Embeds the sentences of a text file with a MiniLM encoder that is split over the ranks.
//!
//! Started plainly it is one rank. Started under torchrun's environment each process is a rank, holds its share of the
//! heads and MLP columns, and adds up its partial results with the others' through unisono:
//!
//! ```text
//! unisono-example-embed --model DIR --text sentences.txt --save whole.safetensors
//! unisono run -n 2 -- unisono-example-embed --model DIR --text sentences.txt --compare whole.safetensors
//! ```
//!
//! Where to look: `all_reduce` is the operation that an engine built on candle needs, `parallel` the split layers,
//! `model` the encoder made of them, `ranks` the connection. Rank 0 prints; every rank checks the result and fails
//! with a non-zero exit status if it is not the same on all ranks, or not what was saved.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::Device;
use clap::Parser;

use crate::model::{Config, Encoder};
use crate::ranks::Ranks;
use crate::report::{AllReduces, Comparison, NearestPair, Report, TOLERANCE};
use crate::similarity::Embeddings;
use crate::text::Batch;
use crate::weights::Weights;

mod all_reduce;
mod model;
mod parallel;
mod ranks;
mod report;
mod similarity;
mod text;
mod threads;
mod weights;

/// How many nearest pairs are shown.
const PAIRS: usize = 8;

/// Embed the sentences of a text file with a MiniLM encoder split over the ranks that torchrun's environment names.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Folder with model.safetensors, config.json, tokenizer.json and sentence_bert_config.json.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Text with a sentence a line; lines that begin with # are left out.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Sentences embedded at once.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    batch: usize,
    /// Save the embeddings here, for a later --compare.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Compare with embeddings saved here; more than 1e-5 of difference fails.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Write the figures here, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How many times to embed the text while the clock runs.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    repeat: usize,
    /// Threads that each rank computes with.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    threads: usize,
}

fn at_least_one(text: &str) -> Result<usize> {
    let number: usize = text.parse()?;
    anyhow::ensure!(number > 0, "at least 1 is needed");
    Ok(number)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Everything runs inside candle's pool of threads. Called from outside, each softmax and layer norm would hand
    // its work to the pool and sleep until it is done, even where the pool has but one thread.
    let outcome =
        threads::limit(arguments.threads).and_then(|()| Device::Cpu.with_context(|| run(&arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let rank = std::env::var("RANK").map_or(String::new(), |rank| format!("rank {rank}: "));
            eprintln!("{rank}{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let ranks = Arc::new(Ranks::from_environment()?);
    let config = Config::read(&arguments.model.join("config.json"))?;
    let encoder =
        Encoder::load(&Weights::open(&arguments.model.join("model.safetensors"))?, &config, &ranks)?;

    let sentences = text::read_sentences(&arguments.text)?;
    let batches = text::batches(&text::tokenise(&arguments.model, &sentences)?, arguments.batch);

    let made = embed_repeatedly(
        &encoder,
        &batches,
        Embeddings::zeros(sentences.len(), config.hidden_size),
        arguments.repeat,
        &ranks,
    )?;
    let report = judge(arguments, &config, &ranks, &sentences, batches.len(), &made)?;
    if ranks.rank() == 0 {
        publish(arguments, &report, &made.embeddings)?;
    }
    // Before the verdict: a rank that fails here must not look to the others like one that died.
    ranks.close()?;
    report.verdict()
}

/// The embeddings of a text and what making them took.
struct Made {
    embeddings: Embeddings,
    elapsed: Duration,
    all_reduce_times: Vec<Duration>,
}

/// Collective. Embeds all batches `passes` times into `embeddings` and takes the time. One batch goes before, untimed:
/// it touches the weights and the shared memory for the first time.
fn embed_repeatedly(
    encoder: &Encoder,
    batches: &[Batch],
    mut embeddings: Embeddings,
    passes: usize,
    ranks: &Ranks,
) -> Result<Made> {
    for batch in batches.iter().take(1) {
        encoder.embed(batch)?;
    }
    ranks.take_all_reduce_times();
    ranks.barrier()?;
    let started = Instant::now();
    for _ in 0..passes {
        for batch in batches {
            embeddings.put(&batch.sentences, &encoder.embed(batch)?.to_vec2()?);
        }
    }
    Ok(Made { embeddings, elapsed: started.elapsed(), all_reduce_times: ranks.take_all_reduce_times() })
}

/// Collective. Draws up the report; each rank comes to the same verdict.
fn judge(
    arguments: &Arguments,
    config: &Config,
    ranks: &Ranks,
    sentences: &[String],
    batches: usize,
    made: &Made,
) -> Result<Report> {
    let passes = arguments.repeat;
    let seconds = made.elapsed.as_secs_f64();
    let sentences_per_second = (sentences.len() * passes) as f64 / seconds;
    let expected = if ranks.is_alone() { 0 } else { config.all_reduces(batches * passes) };
    let checksum = made.embeddings.checksum();
    let checksums = ranks.gather(&[checksum.cast_signed()])?;
    let compare = |path: &PathBuf| -> Result<Comparison> {
        let (saved, saved_sentences_per_second) = Embeddings::load(path)?;
        Ok(Comparison {
            largest_difference: made.embeddings.largest_difference(&saved)?,
            tolerance: TOLERANCE,
            saved_sentences_per_second,
            speed_up: sentences_per_second / saved_sentences_per_second,
        })
    };
    let nearest = made.embeddings.nearest_pairs(PAIRS);
    Ok(Report {
        world_size: ranks.world_size(),
        threads_per_rank: arguments.threads,
        sentences: sentences.len(),
        batch_size: arguments.batch,
        batches,
        passes,
        seconds,
        sentences_per_second,
        milliseconds_per_batch: seconds * 1e3 / (batches * passes) as f64,
        all_reduces: AllReduces::measured(ranks, &made.all_reduce_times, expected, made.elapsed)?,
        checksum: format!("{checksum:016x}"),
        same_bits: checksums.iter().all(|other| other.cast_unsigned() == checksum),
        comparison: arguments.compare.as_ref().map(compare).transpose()?,
        nearest: nearest.iter().map(|pair| NearestPair::new(pair, sentences)).collect(),
    })
}

/// Prints the report and writes what the command line asks for.
fn publish(arguments: &Arguments, report: &Report, embeddings: &Embeddings) -> Result<()> {
    println!("{}", report.tables());
    if let Some(path) = &arguments.save {
        embeddings.save(path, report.sentences_per_second)?;
    }
    if let Some(path) = &arguments.report {
        report.write_json(path).context("the run itself went well")?;
    }
    Ok(())
}
