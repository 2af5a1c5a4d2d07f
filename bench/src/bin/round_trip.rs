//! The placement probe for benchmarks that are no Rust: for each line `<cpu> <cpu>` on the standard input, a line with the
//! round trip of a cache line between the two in nanoseconds.

use std::io::{BufRead, Write, stdin, stdout};

use anyhow::{Context, Result};
use unisono_os::cpu;

fn main() -> Result<()> {
    for line in stdin().lock().lines() {
        let line = line?;
        let (one, other) =
            line.split_once(' ').with_context(|| format!("{line:?}: expected two processors"))?;
        let (one, other) = (one.parse()?, other.parse()?);
        // A thread that cannot be pinned gives a round trip that no placement has.
        let pin = |cpu: usize| {
            move || {
                let _ = cpu::pin_current_thread(&[cpu]);
            }
        };
        let round_trip = unisono_measure::round_trip(pin(one), pin(other));
        let mut out = stdout().lock();
        writeln!(out, "{}", round_trip.as_nanos())?;
        out.flush()?;
    }
    Ok(())
}
