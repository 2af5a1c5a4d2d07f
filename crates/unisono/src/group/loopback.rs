//! What a rank sends to itself: a queue in private memory, of any length.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use unisono_kernels::DType;

use super::Group;
use super::members::Situation;
use crate::call::{Call, Operation};
use crate::error::{BoxedResult, Error};
use crate::memory::{Source, Target, copy};

/// Messages from a rank to itself, in order.
#[derive(Debug, Default)]
pub(crate) struct Loopback {
    messages: Mutex<VecDeque<(DType, Vec<u8>)>>,
    arrived: Condvar,
}

impl Loopback {
    pub(crate) fn send(&self, dtype: DType, data: Source<'_>) {
        let mut bytes = vec![0u8; data.len()];
        copy(Target::of(&mut bytes), data);
        self.messages.lock().push_back((dtype, bytes));
        self.arrived.notify_one();
    }

    /// Wake a waiting `recv`: the group has stopped.
    pub(crate) fn wake(&self) {
        // Under the lock, so that a waiter that has just found nothing cannot miss it.
        let _messages = self.messages.lock();
        self.arrived.notify_all();
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
        let call = Call::new(Operation::Recv).of(count, dtype).rooted(rank);
        let start = Instant::now();
        let mut messages = self.messages.lock();
        loop {
            if let Some((found, bytes)) = messages.front() {
                if *found != dtype || bytes.len() != data.len() {
                    let elements = bytes.len() / found.size_bytes();
                    let problem = format!(
                        "asked for {count} x {dtype} from the own rank, which sent {elements} x {found}"
                    );
                    return Err(Box::new(Error::argument("recv", problem)));
                }
                copy(data, Source::of(bytes));
                messages.pop_front();
                return Ok(());
            }
            let at = Situation { call, number: 0, waited: start.elapsed() };
            if group.members.is_stopped() {
                return Err(group.end_with(group.members.explain(0, at)));
            }
            match timeout {
                None => self.arrived.wait(&mut messages),
                Some(timeout) => {
                    if at.waited >= timeout {
                        return Err(Box::new(group.timed_out(1 << rank, at)));
                    }
                    self.arrived.wait_for(&mut messages, timeout - at.waited);
                }
            }
        }
    }
}
