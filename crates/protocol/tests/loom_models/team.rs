//! Models of the threads of one rank that share a task.

use crate::explore::explore;
use crate::scenarios::team::{self, Joining};

#[test]
fn a_member_helps_or_stays_out() {
    explore(3, || team::spinning_members_share_the_work(2, 2, 2, Joining::AtTheGate));
}

#[test]
fn two_members_help_or_stay_out() {
    explore(2, || team::hurried_members_share_the_work(3, 1, 1));
}

#[test]
fn a_sleeping_member_and_a_sleeping_leader_are_woken() {
    explore(3, || team::sleeping_members_are_woken(2, 2, 2));
}

#[test]
fn two_sleeping_members_are_woken() {
    explore(2, || team::sleeping_members_are_woken(3, 1, 1));
}
