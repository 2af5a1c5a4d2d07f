//! What the driver asks a caller and what it answers: lines of words, so that a C program reads them with `sscanf`.
//!
//! | asked | answered |
//! |---|---|
//! | `time OPERATION TYPE COUNT LOOP WARM_UP OPERATIONS` | `samples OPERATIONS WRONG`, then as many 32-bit numbers of nanoseconds |
//! | `check OPERATION TYPE COUNT REPETITIONS SEED` | `wrong ELEMENTS` |
//! | `quit` | nothing: the caller ends |
//!
//! To what its library cannot do a caller answers `lacks WHAT`. The first line of a caller, unasked, is
//! `rank RANK PID SESSION`. The one invariant that matters: all ranks of a group are asked the same.

use std::fmt;
use std::io::{BufRead, Read};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use unisono::DType;
use unisono_measure::{Operation, Samples};

/// What happens around each operation that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Loop {
    /// Nothing: the next operation follows the last.
    Alone,
    /// All of the buffer is written before and read after, and both are timed too.
    Traffic,
}

impl Loop {
    /// The word on the wire and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Loop::Alone => "alone",
            Loop::Traffic => "traffic",
        }
    }
}

impl FromStr for Loop {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        match name {
            "alone" => Ok(Loop::Alone),
            "traffic" => Ok(Loop::Traffic),
            _ => bail!("{name:?} is no loop: use alone or traffic"),
        }
    }
}

/// One operation on so many elements of each rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) operation: Operation,
    pub(crate) dtype: DType,
    /// Elements that each rank contributes.
    pub(crate) count: usize,
}

impl Work {
    /// Bytes that each rank contributes.
    pub(crate) fn bytes(&self) -> usize {
        self.count * self.dtype.size_bytes()
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.operation.name(), self.dtype, self.count)
    }
}

/// What a caller is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Time { work: Work, around: Loop, warm_up: usize, operations: usize },
    Check { work: Work, repetitions: usize, seed: u64 },
    Quit,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Time { work, around, warm_up, operations } => {
                writeln!(f, "time {work} {} {warm_up} {operations}", around.name())
            }
            Request::Check { work, repetitions, seed } => writeln!(f, "check {work} {repetitions} {seed}"),
            Request::Quit => writeln!(f, "quit"),
        }
    }
}

impl FromStr for Request {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let work = |operation: &str, dtype: &str, count: &str| {
            anyhow::Ok(Work { operation: operation.parse()?, dtype: dtype.parse()?, count: count.parse()? })
        };
        match words.as_slice() {
            ["time", operation, dtype, count, around, warm_up, operations] => Ok(Request::Time {
                work: work(operation, dtype, count)?,
                around: around.parse()?,
                warm_up: warm_up.parse()?,
                operations: operations.parse()?,
            }),
            ["check", operation, dtype, count, repetitions, seed] => Ok(Request::Check {
                work: work(operation, dtype, count)?,
                repetitions: repetitions.parse()?,
                seed: seed.parse()?,
            }),
            ["quit"] => Ok(Request::Quit),
            _ => bail!("{line:?} is no request"),
        }
    }
}

/// What a caller answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Samples {
        samples: Samples,
        wrong: u64,
    },
    Wrong(u64),
    /// The library cannot do it.
    Lacks(String),
}

impl Answer {
    /// Read one answer.
    ///
    /// # Errors
    /// When the caller has gone, or says what is no answer.
    pub(crate) fn read(from: &mut impl BufRead) -> anyhow::Result<Answer> {
        let line = read_line(from)?;
        if let Some(what) = line.strip_prefix("lacks ") {
            return Ok(Answer::Lacks(what.to_string()));
        }
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["samples", operations, wrong] => Ok(Answer::Samples {
                samples: read_samples(from, operations.parse()?)?,
                wrong: wrong.parse()?,
            }),
            ["wrong", elements] => Ok(Answer::Wrong(elements.parse()?)),
            _ => bail!("a caller said {line:?}"),
        }
    }
}

fn read_samples(from: &mut impl Read, operations: usize) -> anyhow::Result<Samples> {
    let mut bytes = vec![0; operations.checked_mul(4).context("more samples than memory")?];
    from.read_exact(&mut bytes).context("a caller ended among its samples")?;
    let nanoseconds =
        bytes.chunks_exact(4).map(|four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]));
    Ok(nanoseconds.map(|nanoseconds| Duration::from_nanos(nanoseconds.into())).collect())
}

/// A line without its end.
///
/// # Errors
/// When there is none any more.
pub(crate) fn read_line(from: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    match from.read_line(&mut line).context("reading from a caller")? {
        0 => bail!("a caller has gone"),
        _ => Ok(line.trim_end().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        let work = Work { operation: Operation::AllGather, dtype: DType::BF16, count: 96 };
        let requests = [
            Request::Time { work, around: Loop::Traffic, warm_up: 3, operations: 40 },
            Request::Check { work, repetitions: 2, seed: 7 },
            Request::Quit,
        ];
        for request in requests {
            assert_eq!(request.to_string().parse::<Request>().unwrap(), request);
        }
        assert_eq!(requests[0].to_string(), "time all-gather bf16 96 traffic 3 40\n");
        assert!("time all-gather bf16 96".parse::<Request>().is_err());
    }

    #[test]
    fn samples_follow_their_line() {
        let mut sent = b"samples 2 1\n".to_vec();
        sent.extend([300_u32, 200].iter().flat_map(|sample| sample.to_ne_bytes()));
        sent.extend(b"lacks a type for bf16\n");
        let mut from = sent.as_slice();
        let Answer::Samples { samples, wrong } = Answer::read(&mut from).unwrap() else { panic!("samples") };
        assert_eq!((samples.len(), samples.summary().unwrap().max_ns, wrong), (2, 300, 1));
        assert!(matches!(Answer::read(&mut from).unwrap(), Answer::Lacks(what) if what == "a type for bf16"));
        assert!(Answer::read(&mut from).is_err());
    }
}
