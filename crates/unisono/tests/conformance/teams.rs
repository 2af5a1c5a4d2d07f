//! Promise 1 with several threads per rank: how the work is split among threads changes no bit.

use std::time::Duration;

use unisono::{Communicator, Error, ReduceOp, Team};

use super::{Checker, Draws, stream};

/// Steps of any size are shared.
const ANY_SIZE: usize = 1;

/// Give this rank a number of threads of its own: 2, 3 and 1 in turn, so that ranks differ.
pub(crate) fn take_threads(comm: &Communicator) {
    let threads = [2, 3, 1][comm.rank() % 3];
    comm.set_threads(threads).expect("threads can be started");
    comm.set_thread_bytes(ANY_SIZE).expect("nobody uses the communicator");
    assert_eq!(comm.threads(), threads);
}

/// The same operations, whose threads are the caller's: all of them in one time of leading, then one in each.
pub(crate) fn threads_of_the_callers_share_the_work(comm: &Communicator, operations: u64) {
    let team = Team::new(3).expect("three threads are a team").with_timeout(Some(Duration::from_secs(60)));
    comm.set_team(&team).expect("nobody uses the communicator");
    comm.set_thread_bytes(ANY_SIZE).expect("nobody uses the communicator");
    let refused = || Error::Team { problem: "as it should be".to_string() };
    std::thread::scope(|scope| {
        for thread in 1..3 {
            let (team, refused) = (&team, &refused);
            scope.spawn(move || {
                team.help(thread).expect("all operations succeed");
                for _ in 0..operations {
                    team.help(thread).expect("the operation succeeds");
                }
                let result = team.help(thread).expect_err("as thread 0");
                assert_eq!(result.to_string(), refused().to_string());
            });
        }
        let lead = |work: &mut dyn FnMut()| {
            team.lead(|| {
                work();
                Ok(())
            })
        };
        lead(&mut || stream::random_operations(comm, 77, operations)).expect("all have helped");
        let checker = Checker::new(comm, 78);
        let mut draws = Draws::new(&[78]);
        for number in 0..operations {
            let case = stream::random_case(&mut draws, comm.world_size());
            lead(&mut || checker.perform(number, case)).expect("all have helped");
        }
        let result = team.lead(|| Err(refused())).expect_err("its own error");
        assert_eq!(result.to_string(), refused().to_string());
    });
    // Nobody helps: the calling thread does it all.
    let mut ones = vec![1.0f32; 100_000];
    comm.all_reduce(&mut ones, ReduceOp::Sum).expect("all ranks call it");
    assert!(ones.iter().all(|sum| *sum == comm.world_size() as f32));
}

/// What threads that don't keep together are told.
pub(crate) fn threads_that_do_not_come_are_named() {
    let team = Team::new(3).expect("three threads are a team").with_timeout(Some(Duration::from_millis(50)));
    let alone = team.lead(|| Ok(())).expect_err("nobody helps");
    assert!(matches!(alone, Error::Team { .. }) && alone.to_string().contains("[1, 2]"), "{alone}");
    // What was led is over: who comes late goes on at once, and then waits in vain.
    team.help(1).expect("it was led");
    let late = team.help(1).expect_err("nobody leads");
    assert!(matches!(late, Error::Team { .. }), "{late}");
    for nobody in [0, 3] {
        assert!(matches!(team.help(nobody), Err(Error::InvalidArgument { .. })), "thread {nobody}");
    }
    for threads in [0, 33] {
        assert!(matches!(Team::new(threads), Err(Error::Setting { .. })), "{threads} threads");
    }
}

/// A thread that panics while it leads does not leave the others waiting.
pub(crate) fn who_helps_a_thread_that_panics_is_told() {
    let team = Team::new(2).expect("two threads are a team");
    std::thread::scope(|scope| {
        let helper = scope.spawn(|| team.help(1));
        let leader = scope.spawn(|| team.lead(|| panic!("as the test wants it")));
        assert!(leader.join().is_err());
        let told = helper.join().expect("it does not panic").expect_err("the work was not done");
        assert!(told.to_string().contains("panicked"), "{told}");
    });
}
