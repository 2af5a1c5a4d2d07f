//! A rank of a measurement: its communicator, its buffers, its loops.
//!
//! The one invariant that matters: all ranks make the same calls in the same order, because each does exactly what
//! the parent asks of all.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Context;
use unisono::{Communicator, Error, ReduceOp};
use unisono_measure::{Summary, time_each};
use unisono_os::{clock, cpu};

use super::check;
use super::operate::{Buffers, operate};
use super::protocol::{Learned, Place, Subject};
use super::traffic;

/// No operation of a measurement takes longer unless something is wrong.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Ranks are started together, so they meet at once.
const RENDEZVOUS_TIMEOUT: Duration = Duration::from_secs(30);

/// A connected rank.
pub(super) struct Rank {
    communicator: Communicator,
}

impl Rank {
    /// Go to the core and meet the others.
    pub(super) fn connect(place: &Place) -> anyhow::Result<Rank> {
        cpu::pin_current_thread(&[place.cpu])
            .with_context(|| format!("cannot pin rank {} to core {}", place.rank, place.cpu))?;
        let communicator = Communicator::builder()
            .rank(place.rank)
            .world_size(place.ranks)
            .address("127.0.0.1")
            .port(place.port)
            .group_name("bench")
            .run_id(&place.run_id)
            .timeout(Some(TIMEOUT))
            .rendezvous_timeout(RENDEZVOUS_TIMEOUT)
            .connect()?;
        Ok(Rank { communicator })
    }

    /// Time an operation back to back.
    pub(super) fn time(
        &mut self,
        subject: &Subject,
        warm_up: usize,
        operations: usize,
    ) -> anyhow::Result<Summary> {
        let mut buffers = self.buffers(subject)?;
        let mut call = |number: usize| {
            if subject.traffic {
                traffic::produce(buffers.input(), number);
            }
            operate(&self.communicator, subject, &mut buffers)?;
            if subject.traffic {
                black_box(traffic::consume(buffers.output()));
            }
            Ok::<_, Error>(())
        };
        (0..warm_up).try_for_each(&mut call)?;
        // All ranks start the clock together, or the first operation measures who came late.
        self.communicator.barrier()?;
        let samples = time_each(operations, call)?;
        black_box(&buffers);
        samples.summary().context("no operation was to be timed")
    }

    /// Count wrong elements over some repetitions with changing data.
    pub(super) fn check(&mut self, subject: &Subject, repetitions: usize) -> anyhow::Result<u64> {
        let mut buffers = self.buffers(subject)?;
        let mut wrong = 0;
        for repetition in 0..repetitions {
            let case = check::Case {
                subject,
                rank: self.communicator.rank(),
                ranks: self.communicator.world_size(),
                repetition,
            };
            case.fill(&mut buffers);
            operate(&self.communicator, subject, &mut buffers)?;
            wrong += case.count_wrong(&buffers);
        }
        Ok(wrong)
    }

    /// All-reduce until it fails.
    pub(super) fn loop_until_death(&mut self) -> anyhow::Result<Learned> {
        let mut data = [0.0_f32; 1024];
        let error = loop {
            if let Err(error) = self.communicator.all_reduce(&mut data, ReduceOp::Sum) {
                break error;
            }
        };
        let at_ns = clock::monotonic_nanoseconds();
        let dead_rank = if let Error::PeerDied { rank, .. } = &error { Some(*rank) } else { None };
        Ok(Learned { at_ns, dead_rank, error: error.to_string() })
    }

    fn buffers(&self, subject: &Subject) -> Result<Buffers, Error> {
        let shape = subject.shape(self.communicator.world_size());
        if subject.registered {
            return Buffers::registered(&self.communicator, &shape, subject.dtype);
        }
        Ok(Buffers::new(&shape, subject.dtype, subject.is_in_place()))
    }
}
