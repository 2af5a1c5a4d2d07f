//! How many threads a rank computes with.
//!
//! candle takes that number from the environment, anew for each matrix product. Ranks share the machine's cores, so a
//! rank must not take all of them. `main` calls [`limit`] first of all; the invariant is that the process has a single
//! thread then, which is checked, since changing the environment beside other threads would be a data race.
#![allow(unsafe_code)]

use anyhow::{Context, Result, ensure};

/// The variable from which rayon, and through it candle, takes its number of threads.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// Lets this process compute with `count` threads. Fails where the process has started a thread already.
pub(crate) fn limit(count: usize) -> Result<()> {
    ensure!(count > 0, "a rank needs at least one thread, --threads says 0");
    let running = std::fs::read_dir("/proc/self/task").context("counting this process's threads")?.count();
    ensure!(running == 1, "the number of threads must be set before any is started, {running} run already");
    // SAFETY: changing the environment must not race with a read of it in another thread. The kernel has just listed
    // one thread in this process, which is the one that runs this line, and only that one could start another.
    unsafe { std::env::set_var(VARIABLE, count.to_string()) };
    Ok(())
}
