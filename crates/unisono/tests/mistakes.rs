//! Promise 3 where ranks are threads: waits that nobody else ends, roots that disagree, names that are used again.

#![allow(unsafe_code, reason = "the raw form is tested, too")]

use std::time::{Duration, Instant};

use unisono::{Communicator, Error, ReduceOp};

/// Nothing here waits for longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Run one rank per thread; give what each returned.
fn ranks<T: Send>(world: usize, rank: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
    let communicators = Communicator::in_process(world).expect("threads meet");
    std::thread::scope(|scope| {
        let rank = &rank;
        let threads: Vec<_> = communicators
            .into_iter()
            .map(|comm| scope.spawn(move || rank(comm.with_timeout(Some(PATIENCE)))))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}

#[test]
fn ranks_that_each_broadcast_as_root_are_told_so() {
    for world in [2, 3, 4] {
        let results = ranks(world, |comm| {
            let root = usize::from(comm.rank() == 1);
            (0..20).try_for_each(|_| comm.broadcast(&mut [comm.rank() as u32; 100], root))
        });
        for (rank, result) in results.into_iter().enumerate() {
            let error = result.expect_err("different roots are different calls");
            assert!(matches!(error, Error::Mismatch { .. }), "rank {rank} of {world}: {error}");
            assert!(error.to_string().contains("broadcast"), "{error}");
        }
    }
}

#[test]
fn roots_that_each_expect_the_others_part_are_told_so() {
    for gather in [false, true] {
        let results = ranks(2, |comm| {
            let other = 1 - comm.rank();
            (0..20).try_for_each(|_| match gather {
                true => comm.gather(&[1u8; 10], None, other),
                false => comm.reduce(&mut [1.0f32; 10], ReduceOp::Sum, other),
            })
        });
        for result in results {
            let error = result.expect_err("different roots are different calls");
            assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        }
    }
}

#[test]
fn an_abort_ends_a_receive_from_oneself() {
    for waits_before in [false, true] {
        let results = ranks(2, |comm| {
            if comm.rank() == 1 {
                std::thread::sleep(Duration::from_millis(if waits_before { 100 } else { 0 }));
                comm.abort();
                return None;
            }
            std::thread::sleep(Duration::from_millis(if waits_before { 0 } else { 100 }));
            let begin = Instant::now();
            let error = comm.with_timeout(None).recv(&mut [0u8; 4], 0).expect_err("nobody sends");
            assert!(begin.elapsed() < PATIENCE);
            // And every call after it says the same, also those that look at the same queue.
            assert!(comm.recv(&mut [0u8; 4], 0).is_err() && comm.send(&[0u8; 4], 0).is_err());
            Some(error)
        });
        let error = results.into_iter().flatten().next().expect("rank 0 was told");
        assert!(matches!(error, Error::Aborted { by: Some(1), .. }), "{error}");
    }
}

#[test]
fn a_receive_from_oneself_waits_for_another_thread_and_for_the_deadline() {
    ranks(1, |comm| {
        let error =
            comm.with_timeout(Some(Duration::from_millis(20))).recv(&mut [0u8], 0).expect_err("nobody sent");
        assert!(matches!(error, Error::Timeout { terminal: false, .. }) && !error.is_terminal(), "{error}");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                comm.send(&[7u8, 8], 0)
            });
            let mut found = [0u8; 2];
            comm.recv(&mut found, 0).expect("another thread sends");
            assert_eq!(found, [7, 8]);
        });
    });
}

#[test]
fn a_single_rank_needs_no_staging_for_any_size() {
    ranks(1, |comm| {
        let patience = comm.with_timeout(Some(Duration::from_secs(2)));
        let mut data = vec![3u8; 32 << 20];
        let mut output = vec![0u8; data.len()];
        patience.broadcast(&mut data, 0).expect("one rank broadcasts to nobody");
        patience.all_gather(&data, &mut output).expect("one rank gathers from itself");
        assert_eq!(data, output);
        patience.reduce_scatter(&data, &mut output, ReduceOp::Max).expect("one rank reduces its own");
        patience.all_to_all(&data, &mut output).expect("one rank keeps its own");
        patience.all_reduce(&mut output, ReduceOp::Sum).expect("one rank sums its own");
        assert_eq!(data, output);
    });
}

#[test]
fn a_name_is_free_once_all_have_closed() {
    let run = format!("closed-{}", std::process::id());
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let run = &run;
            scope.spawn(move || {
                let mut kept = Vec::new();
                for generation in 0..20u32 {
                    let comm = Communicator::builder()
                        .rank(rank)
                        .world_size(2)
                        .run_id(run)
                        .timeout(Some(PATIENCE))
                        .rendezvous_timeout(PATIENCE)
                        .connect()
                        .unwrap_or_else(|error| panic!("generation {generation} meets: {error}"));
                    let mut sum = [generation];
                    comm.all_reduce(&mut sum, ReduceOp::Sum).expect("both are there");
                    assert_eq!(sum, [2 * generation]);
                    comm.close(PATIENCE).expect("both close");
                    kept.push(comm); // A closed handle that lives on holds no name.
                }
            });
        }
    });
}

#[test]
fn input_and_output_of_an_uneven_all_to_all_must_be_separate() {
    ranks(1, |comm| {
        let mut data = [1u8, 2, 3, 4];
        let raw = comm.raw();
        let start = data.as_mut_ptr();
        // SAFETY: both pointers are valid for the four elements; that they are the same is what is tested.
        let error = unsafe { raw.all_to_all_v(start, &[4], start, &[4], unisono::DType::U8) };
        assert!(matches!(error, Err(Error::InvalidArgument { .. })), "{error:?}");
        comm.barrier().expect("an argument error changes nothing");
    });
}
