//! Broadcast and barrier.
//!
//! A broadcast goes through two buffers in the root's memory, which all others read: written once, whatever the number of
//! ranks. The root may use a buffer again once every peer has published a step later than the one that used it last.

use std::time::Duration;

use unisono_kernels::DType;

use super::run::Run;
use crate::arguments;
use crate::call::{Algorithm, Call, Operation};
use crate::error::BoxedResult;
use crate::group::Group;
use crate::memory::{Source, Target};

/// Every rank's `data` becomes the root's.
pub(crate) fn broadcast(
    group: &Group,
    data: Target<'_>,
    count: usize,
    dtype: DType,
    root: usize,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    arguments::rank("broadcast", "root", root, group.members.world)?;
    let call = Call::new(Operation::Broadcast).of(count, dtype).rooted(root);
    broadcast_as(group, call, data, root, timeout)
}

/// The same as a call that has been described.
pub(super) fn broadcast_as(
    group: &Group,
    call: Call,
    data: Target<'_>,
    root: usize,
    timeout: Option<Duration>,
) -> BoxedResult<()> {
    let call = call.by(Algorithm::Shared);
    let mut run = Run::begin(group, call, timeout)?;
    // A single rank stages nothing.
    let piece = if group.members.world == 1 { usize::MAX } else { group.layout.broadcast_bytes };
    let mut offset: usize = 0;
    loop {
        run.broadcast_piece(data.part(offset, piece), root)?;
        offset = offset.saturating_add(piece);
        if offset >= data.len() {
            break;
        }
    }
    run.finish();
    Ok(())
}

/// Nobody leaves before all have come.
pub(crate) fn barrier(group: &Group, operation: Operation, timeout: Option<Duration>) -> BoxedResult<()> {
    meet(group, Call::new(operation), timeout)
}

/// The same as a part of another call.
pub(crate) fn meet(group: &Group, call: Call, timeout: Option<Duration>) -> BoxedResult<()> {
    let mut run = Run::begin(group, call, timeout)?;
    let swap = run.open_swap(0)?;
    for peer in run.others() {
        run.put(swap, peer, Source::of::<u8>(&[]))?;
    }
    run.publish();
    run.wait_for_messages(swap, run.members.peers())?;
    run.finish();
    Ok(())
}

impl Run<'_> {
    fn broadcast_piece(&mut self, data: Target<'_>, root: usize) -> BoxedResult<()> {
        self.open_step()?;
        let buffer = (self.steps.broadcast_uses % 2) as usize;
        self.steps.broadcast_uses += 1;
        let peers = self.members.peers();
        if self.members.rank == root {
            self.look_back(peers)?;
            let step = self.step();
            let written = std::mem::replace(&mut self.steps.broadcast_written[buffer], step);
            self.wait_until_passed(peers, written)?;
            if peers != 0 {
                let buffer = self.members.own().broadcast(buffer);
                self.in_shares(data.len(), |share| share.copy(buffer, data.as_source()));
            }
            self.publish();
        } else {
            self.publish();
            self.wait_for(1 << root)?;
            let buffer = self.members.memory(root).broadcast(buffer).as_source();
            self.in_shares(data.len(), |share| share.copy(data, buffer));
        }
        Ok(())
    }
}
