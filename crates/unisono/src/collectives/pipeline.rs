//! Pipeline: migrate in chunks, of which the next is handed out before the last has come back.
//!
//! The chunks are small enough for the staging to stay in the caches, so that a large message is read from memory once
//! and written once. A chunk takes one step instead of two, and one more step ends the message:
//!
//! ```text
//!   step                 1            2              3            …   last + 1
//!   before publishing    hand out 1   hand out 2     hand out 3       -
//!   after the wait       -            take back 1    take back 2      take back last
//!                        reduce 1     reduce 2       reduce 3         -
//! ```
//!
//! What was reduced after step *i* is published with step *i + 1* and taken back after it. Two halves of a slot are enough:
//! chunk *i + 2* is handed out after chunk *i* was taken back.

use super::all_reduce::Reduced;
use super::migrate::{Part, Slices};
use super::run::Run;
use crate::error::BoxedResult;
use crate::group::layout::LINE;

impl Run<'_> {
    /// Elements that one chunk may have.
    fn pipeline_chunk(&self, element: usize) -> usize {
        let world = self.members.world;
        let half = self.group.layout.migrate_bytes / 2 / LINE * LINE;
        Slices::largest_chunk(half.min(self.group.parameters.pipeline_bytes / world), world, element)
    }

    /// Reduce a message of any length.
    pub(crate) fn pipeline(&mut self, whole: Reduced<'_>) -> BoxedResult<()> {
        let size = self.pipeline_chunk(whole.element);
        let chunks = whole.count.div_ceil(size);
        let mut before: Option<(Slices, Part, Reduced<'_>)> = None;
        for index in 0..=chunks {
            let now = (index < chunks).then(|| {
                let chunk = whole.part(index * size, size);
                (self.slices_of(chunk), Part::Half(index), chunk)
            });
            self.open_step()?;
            if let Some((slices, half, chunk)) = now {
                self.hand_out(slices, half, chunk)?;
            }
            self.publish();
            if now.is_some() || whole.output.is_some() {
                self.wait_for(self.members.peers())?;
            }
            if let Some((slices, half, chunk)) = before
                && let Some(output) = chunk.output
            {
                self.take_back(slices, half, output);
            }
            if let Some((slices, half, chunk)) = now {
                self.reduce_own_slice(slices, half, chunk);
            }
            before = now;
        }
        Ok(())
    }
}
