//! Sub-groups: ranks that name the same color form a communicator of their own.

use super::Communicator;
use crate::call::{Call, Operation};
use crate::collectives::blocks::Table;
use crate::collectives::gather;
use crate::error::Result;
use crate::group::Group;
use crate::group::backend::Subgroup;
use crate::group::rendezvous::alongside::{Alongside, Limit, Reserving};
use crate::memory::{Source, Target};

/// What each rank says of itself: whether it has a color, which, its key, and the memory limit that it is under.
const SAID: usize = 4;

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
        // Nobody reserves before all have said this.
        let before = Limit::now();
        let mine: [u64; SAID] =
            [u64::from(color.is_some()), color.unwrap_or(0), key.cast_unsigned(), before.number()];
        let mut all = vec![0u64; SAID * world];
        let call = Call::new(Operation::Split);
        let blocks = Table::Even(size_of_val(&mine));
        let output = Target::of(&mut all);
        gather::all_gather(self.group(), call, Source::of(&mine), output, &blocks, None, self.timeout)?;

        let split = self.group.next_split();
        let subgroup = color.map(|color| subgroup(self.rank(), color, split, &all, before));
        // A rank that cannot take part ends it for all: nobody may wait for it.
        let assembled = self
            .group
            .backend
            .split(self.group(), subgroup.as_ref(), self.timeout)
            .inspect_err(|_| self.group.abort())?;
        let Some(assembled) = assembled else { return Ok(None) };
        let group = Group::new(assembled);
        group.change_sharing(None, |sharing| *sharing = self.group.sharing())?;
        Ok(Some(Self::over(group, self.timeout)))
    }
}

/// This rank's sub-group, from what all ranks said.
fn subgroup(rank: usize, color: u64, split: u64, all: &[u64], before: Limit) -> Subgroup {
    let all = all.as_chunks::<SAID>().0;
    let has = |said: &[u64; SAID], color: u64| said[0] == 1 && said[1] == color;
    let mut members: Vec<(i64, usize)> = all
        .iter()
        .enumerate()
        .filter(|(other, said)| *other == rank || has(said, color))
        .map(|(other, said)| (said[2].cast_signed(), other))
        .collect();
    members.sort_unstable();
    let members: Vec<usize> = members.into_iter().map(|(_, member)| member).collect();
    let new_rank = members.iter().position(|member| *member == rank).unwrap_or(0);
    let world_of = |color| all.iter().filter(|said| has(said, color)).count();
    let reserves = |said: &[u64; SAID]| Reserving { limit: said[3], world: world_of(said[1]) };
    let reserving = all.iter().filter(|said| said[0] == 1).map(reserves).collect();
    Subgroup { members, rank: new_rank, color, split, alongside: Alongside { before, all: reserving } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [[u64; SAID]; 5] =
        [[1, 7, 5, 30], [1, 8, 0, 30], [1, 7, (-3i64).cast_unsigned(), 31], [0, 7, 0, 30], [1, 7, 5, 30]];

    #[test]
    fn members_are_ordered_by_key_then_rank() {
        let group = subgroup(4, 7, 1, ALL.as_flattened(), Limit::now());
        assert_eq!(group.members, [2, 0, 4]);
        assert_eq!(group.rank, 2);
    }

    #[test]
    fn each_rank_reserves_for_its_own_subgroup_under_its_own_limit() {
        let expected = [(30, 3), (30, 1), (31, 3), (30, 3)].map(|(limit, world)| Reserving { limit, world });
        for (rank, color) in [(4, 7), (1, 8)] {
            let group = subgroup(rank, color, 1, ALL.as_flattened(), Limit::now());
            assert_eq!(group.alongside.all, expected, "the same on all ranks");
        }
    }
}
