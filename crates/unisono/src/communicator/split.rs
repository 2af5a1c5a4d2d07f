//! Sub-groups: ranks that name the same color form a communicator of their own.

use super::Communicator;
use crate::call::{Call, Operation};
use crate::collectives::blocks::Table;
use crate::collectives::gather;
use crate::error::Result;
use crate::group::Group;
use crate::group::backend::Subgroup;
use crate::memory::{Source, Target};

impl Communicator {
    /// Form sub-groups: ranks that pass the same color come together, in the order of `key` and, where keys are equal, of
    /// their rank here. A rank that passes `None` takes part in the call and is in no sub-group.
    ///
    /// The sub-group has memory of its own and fails on its own, but shares with its parent the knowledge of who is alive.
    /// It outlives the parent.
    ///
    /// ```
    /// let ranks = unisono::Communicator::in_process(4)?;
    /// std::thread::scope(|scope| {
    ///     for comm in ranks {
    ///         scope.spawn(move || {
    ///             let half = comm.split(Some(comm.rank() as u64 / 2), 0)?.expect("has a color");
    ///             assert_eq!((half.rank(), half.world_size()), (comm.rank() % 2, 2));
    ///             Ok::<_, unisono::Error>(())
    ///         });
    ///     }
    /// });
    /// # Ok::<_, unisono::Error>(())
    /// ```
    ///
    /// # Errors
    /// Any terminal error; a rank that has no memory left for the sub-group says so.
    pub fn split(&self, color: Option<u64>, key: i64) -> Result<Option<Communicator>> {
        let world = self.world_size();
        let mine = [u64::from(color.is_some()), color.unwrap_or(0), key.cast_unsigned()];
        let mut all = vec![0u64; 3 * world];
        let call = Call::new(Operation::Split);
        let blocks = Table::Even(size_of_val(&mine));
        let output = Target::of(&mut all);
        gather::all_gather(&self.group, call, Source::of(&mine), output, &blocks, None, self.timeout)?;

        let split = self.group.next_split();
        let subgroup = color.map(|color| subgroup(self.rank(), color, split, &all));
        // A rank that cannot take part ends it for all: nobody may wait for it.
        let assembled = self
            .group
            .backend
            .split(&self.group, subgroup.as_ref(), self.timeout)
            .inspect_err(|_| self.group.abort())?;
        Ok(assembled.map(|assembled| Self::over(Group::new(assembled), self.timeout)))
    }
}

/// The members of this rank's sub-group, from what all ranks said: whether they have a color, which, and their key.
fn subgroup(rank: usize, color: u64, split: u64, all: &[u64]) -> Subgroup {
    let mut members: Vec<(i64, usize)> = all
        .chunks_exact(3)
        .enumerate()
        .filter(|(other, said)| *other == rank || (said[0] == 1 && said[1] == color))
        .map(|(other, said)| (said[2].cast_signed(), other))
        .collect();
    members.sort_unstable();
    let members: Vec<usize> = members.into_iter().map(|(_, member)| member).collect();
    let ranks_alongside = all.chunks_exact(3).filter(|said| said[0] == 1).count().max(members.len());
    let new_rank = members.iter().position(|member| *member == rank).unwrap_or(0);
    Subgroup { members, rank: new_rank, color, split, ranks_alongside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_ordered_by_key_then_rank() {
        let all = [[1, 7, 5u64], [1, 8, 0], [1, 7, (-3i64).cast_unsigned()], [0, 7, 0], [1, 7, 5]].concat();
        let group = subgroup(4, 7, 1, &all);
        assert_eq!(group.members, [2, 0, 4]);
        assert_eq!(group.rank, 2);
    }
}
