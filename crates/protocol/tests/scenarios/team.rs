//! A leader and the members of its team: whoever works on a task may look at it, and its leader sees all of the work.

use unisono_protocol::Wait;
use unisono_protocol::team::{Gate, Team};

use super::platform::{Arc, Region, join_all, spawn};
use super::waits::{Beds, Sleeping, Spinning};

/// How members join. [`Joining::WithoutAsking`] is the seeded bug of the tests that show the models have teeth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joining {
    AtTheGate,
    #[cfg_attr(not(loom), allow(dead_code, reason = "a race is only ever run where it cannot do harm"))]
    WithoutAsking,
}

struct Work {
    team: Box<Team>,
    beds: Beds,
    /// What the leader writes down before it opens a task.
    task: Region,
    /// What comes of each share.
    shares: Vec<Region>,
    joining: Joining,
}

impl Work {
    fn new(members: usize, shares: usize, joining: Joining) -> Arc<Self> {
        // Boxed: the words must stay where the beds believe them.
        let team = Box::new(Team::new(members));
        let beds = Beds::of(team.words());
        let shares = (0..shares).map(|_| Region::new(0)).collect();
        Arc::new(Work { team, beds, task: Region::new(0), shares, joining })
    }

    fn take_shares(&self, first: usize) {
        let shares = self.shares.len() as u32;
        while let Some(share) = self.team.take(first as u32 % shares, shares) {
            self.shares[share as usize].write(self.task.read());
        }
    }

    fn lead(&self, tasks: u64, mut wait: impl Wait) {
        for number in 1..=tasks {
            self.task.write(number * 7);
            self.team.open(number, &wait);
            self.take_shares(0);
            self.team.close(number, &mut wait);
            for share in &self.shares {
                assert_eq!(share.read(), number * 7, "what comes of a share of task {number}");
            }
        }
        self.team.dissolve(&wait);
    }

    fn help(&self, member: usize, mut wait: impl Wait) {
        loop {
            let number = match self.team.join(member, &wait) {
                Gate::Joined(number) => {
                    self.take_shares(member);
                    self.team.done(member, number, &wait);
                    number
                }
                Gate::Closed(number) if self.joining == Joining::WithoutAsking => {
                    self.take_shares(member);
                    number
                }
                Gate::Closed(number) => number,
            };
            if self.team.wait_for_next(number, &mut wait).is_err() {
                return;
            }
        }
    }
}

/// Members look again until there is a task.
pub(crate) fn spinning_members_share_the_work(members: usize, shares: usize, tasks: u64, joining: Joining) {
    share_the_work(members, Work::new(members, shares, joining), tasks, |work, member| {
        work.help(member, Spinning);
    });
}

/// Members look for a task a few times, then go for good: the leader needs none of them.
#[cfg(loom)]
pub(crate) fn hurried_members_share_the_work(members: usize, shares: usize, tasks: u64) {
    share_the_work(members, Work::new(members, shares, Joining::AtTheGate), tasks, |work, member| {
        work.help(member, super::waits::Hurried::default());
    });
}

fn share_the_work(members: usize, work: Arc<Work>, tasks: u64, help: fn(&Work, usize)) {
    let helpers: Vec<_> = (1..members)
        .map(|member| {
            let work = work.clone();
            spawn(move || help(&work, member))
        })
        .collect();
    work.lead(tasks, Spinning);
    join_all(helpers);
}

/// Members sleep until there is a task, the leader until they are done.
pub(crate) fn sleeping_members_are_woken(members: usize, shares: usize, tasks: u64) {
    let work = Work::new(members, shares, Joining::AtTheGate);
    let helpers: Vec<_> = (1..members)
        .map(|member| {
            let work = work.clone();
            spawn(move || work.help(member, Sleeping(&work.beds)))
        })
        .collect();
    work.lead(tasks, Sleeping(&work.beds));
    join_all(helpers);
}
