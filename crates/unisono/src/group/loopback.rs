//! What a rank sends to itself: a queue in private memory, of any length.
//!
//! The queue's length is published in the rank's own cursor to itself, so that waiting for a message is the same wait as for
//! any other: with its deadline, its abort, and sleep.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use unisono_kernels::DType;
use unisono_protocol::{Ended, wait_until};

use super::Group;
use super::members::Waker;
use super::waiter::Waiter;
use crate::call::{Call, Operation};
use crate::error::{BoxedResult, Error};
use crate::memory::{Source, Target, copy};

/// Messages from a rank to itself, in order.
#[derive(Debug, Default)]
pub(crate) struct Loopback {
    messages: Mutex<VecDeque<(DType, Vec<u8>)>>,
}

impl Loopback {
    pub(crate) fn send(
        &self,
        group: &Group,
        dtype: DType,
        data: Source<'_>,
        timeout: Option<Duration>,
    ) -> BoxedResult<()> {
        let rank = group.members.rank;
        let mut side = group.lock_side("send", &group.outgoing[rank], timeout)?;
        let mut bytes = vec![0u8; data.len()];
        copy(Target::of(&mut bytes), data);
        self.messages.lock().push_back((dtype, bytes));
        side.messages += 1;
        group.members.own().head(rank).word().publish(side.messages, &Waker);
        Ok(())
    }

    pub(crate) fn recv(
        &self,
        group: &Group,
        dtype: DType,
        data: Target<'_>,
        count: usize,
        timeout: Option<Duration>,
    ) -> BoxedResult<()> {
        let rank = group.members.rank;
        let mut side = group.lock_side("recv", &group.incoming[rank], timeout)?;
        let mut waiter = Waiter::new(&group.members, group.crowded, timeout);
        let sent = group.members.own().head(rank);
        let call = Call::new(Operation::Recv).of(count, dtype).rooted(rank);
        let number = side.messages + 1;
        if let Err(ended) = wait_until(1 << rank, number, |_| sent.word(), &mut waiter) {
            return Err(group.end_transfer(ended, waiter.situation(call, number), false));
        }
        let mut messages = self.messages.lock();
        let Some((found, bytes)) = messages.front() else {
            // Only somebody who writes other ranks' words can bring us here.
            return Err(group.end_wait(Ended::Aborted(0), waiter.situation(call, number)));
        };
        if *found != dtype || bytes.len() != data.len() {
            let elements = bytes.len() / found.size_bytes();
            let problem =
                format!("asked for {count} x {dtype} from the own rank, which sent {elements} x {found}");
            return Err(Box::new(Error::argument("recv", problem)));
        }
        copy(data, Source::of(bytes));
        messages.pop_front();
        side.messages += 1;
        Ok(())
    }
}
