//! Burdens that make a death hard to notice.
//!
//! The one invariant that matters: what is taken up here stays until the process dies, and no longer than a
//! minute whatever happens to the measurement.

use anyhow::Context;
use unisono_os::process;

use super::protocol::Burden;

/// How long a forked child lives if nobody ends it, in seconds.
const LONGEST_LIFE_S: u32 = 60;

/// Take up the burden.
pub(super) fn take_up(burden: Burden) -> anyhow::Result<()> {
    match burden {
        Burden::None => {}
        Burden::Memory(bytes) => {
            // Written, so that it is there, and never freed: that is left to the kernel, which is the point.
            let memory = vec![1_u8; bytes];
            std::hint::black_box(memory.leak());
        }
        Burden::ForkedChild => {
            process::fork_sleeping_child(LONGEST_LIFE_S).context("cannot fork")?;
        }
    }
    Ok(())
}
