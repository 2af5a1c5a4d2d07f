//! Models of ends: every waiter is told, knows why, and keeps what was published before.

use crate::explore::explore;
use crate::scenarios::stop::{self, Waiters};

#[test]
fn an_abort_reaches_a_spinning_waiter_with_its_cause() {
    explore(3, || stop::an_abort_reaches_who_waits_for_more(Waiters::Spin));
}

#[test]
fn an_abort_reaches_a_sleeper_past_a_publisher() {
    explore(3, || stop::an_abort_reaches_who_waits_for_more(Waiters::Sleep));
}

#[test]
fn a_spinning_waiter_has_the_step_or_the_cause() {
    explore(3, || stop::an_abort_or_the_step_it_races_with(Waiters::Spin));
}

#[test]
fn a_sleeper_has_the_step_or_the_cause() {
    explore(3, || stop::an_abort_or_the_step_it_races_with(Waiters::Sleep));
}

#[test]
fn what_the_first_of_two_peers_published_before_it_died_counts() {
    explore(3, || stop::what_the_dead_published_counts(Waiters::Spin, 0));
}

#[test]
fn what_the_second_of_two_peers_published_before_it_died_counts() {
    explore(3, || stop::what_the_dead_published_counts(Waiters::Spin, 1));
}

#[test]
fn a_sleeper_counts_what_the_dead_published() {
    explore(3, || stop::what_the_dead_published_counts(Waiters::Sleep, 0));
}

#[test]
fn a_spinning_waiter_learns_that_a_peer_left() {
    explore(3, || stop::who_needs_a_rank_that_left_is_told(Waiters::Spin));
}

#[test]
fn a_sleeper_learns_that_a_peer_left() {
    explore(3, || stop::who_needs_a_rank_that_left_is_told(Waiters::Sleep));
}

#[test]
fn a_peer_that_left_is_noticed_beside_a_late_one() {
    explore(3, || stop::a_leaver_is_noticed_beside_a_late_peer(Waiters::Spin));
}

#[test]
fn a_sleeper_on_a_late_peer_learns_that_another_left() {
    explore(3, || stop::a_leaver_is_noticed_beside_a_late_peer(Waiters::Sleep));
}

#[test]
fn a_sleeper_on_a_peer_that_never_comes_learns_that_another_left() {
    explore(3, || stop::a_leaver_is_noticed_beside_a_peer_that_never_comes(Waiters::Sleep));
}
