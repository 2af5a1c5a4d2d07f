//! Processes that want the ranks' cores and never yield: what else runs on a machine.
//!
//! The one invariant that matters: a stranger ends with the driver, however that ends.

use std::convert::Infallible;
use std::hint::black_box;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use unisono_os::process::{self, Signal};

/// Strangers at work, until dropped.
pub(crate) struct Strangers(Vec<Child>);

impl Strangers {
    /// Let so many begin, in the driver's session and with its priority, on any core.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(crate) fn start(count: usize) -> anyhow::Result<Strangers> {
        let program = std::env::current_exe().context("this program's own file")?;
        let mut strangers = Strangers(Vec::new());
        for _ in 0..count {
            let mut command = Command::new(&program);
            command.arg("stranger").stdin(Stdio::null());
            strangers.0.push(command.spawn().context("starting a stranger")?);
        }
        Ok(strangers)
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        for stranger in &mut self.0 {
            let _ = stranger.kill();
            let _ = stranger.wait();
        }
    }
}

/// Be a stranger, until killed.
///
/// # Errors
/// When it would outlive the driver.
pub(crate) fn run() -> anyhow::Result<Infallible> {
    process::die_with_parent(Signal::Kill)?;
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}
