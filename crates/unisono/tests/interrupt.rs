//! A thread may end its own waits: at once enough for a person at the keyboard, and never at the cost of who does not ask.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use unisono::{Communicator, Error, interrupt};

/// When a switch is thrown.
const AFTER: Duration = Duration::from_millis(100);

/// The question of a thread, with a switch of its own.
macro_rules! switch {
    ($name:ident) => {
        static $name: AtomicBool = AtomicBool::new(false);
        interrupt::ask_on_this_thread(Some(|| $name.load(Ordering::Relaxed)));
    };
}

/// What a call returned that was interrupted by its switch; it has not taken much longer.
fn soon<T>(switch: &'static AtomicBool, call: impl FnOnce() -> Result<T, Error>) -> Error {
    switch.store(false, Ordering::Relaxed);
    let start = Instant::now();
    let hand = std::thread::spawn(|| {
        std::thread::sleep(AFTER);
        switch.store(true, Ordering::Relaxed);
    });
    let error = call().err().expect("nobody comes");
    let waited = start.elapsed();
    hand.join().expect("it throws a switch");
    assert!(waited >= AFTER, "{waited:?}: {error}");
    assert!(waited < AFTER + Duration::from_secs(5), "{waited:?}: {error}");
    error
}

#[test]
fn an_interrupted_collective_ends_and_the_others_hear_who_it_was() {
    let ranks = Communicator::in_process(2).unwrap();
    switch!(SWITCH);
    let error = soon(&SWITCH, || ranks[0].barrier());
    assert!(matches!(error, Error::Interrupted { operation: "barrier", terminal: true }), "{error}");
    assert!(error.is_terminal());
    assert!(
        matches!(ranks[0].barrier(), Err(Error::Interrupted { .. })),
        "every call returns it from then on"
    );
    let told = ranks[1].barrier().err().unwrap();
    assert!(matches!(told, Error::Aborted { by: Some(0), .. }), "{told}");
}

#[test]
fn an_interrupted_recv_of_which_nothing_had_moved_changes_nothing() {
    let ranks = Communicator::in_process(2).unwrap();
    let mut data = [0u8; 4];
    {
        switch!(SWITCH);
        let error = soon(&SWITCH, || ranks[1].recv(&mut data, 0));
        assert!(matches!(error, Error::Interrupted { operation: "recv", terminal: false }), "{error}");
    }
    {
        switch!(SWITCH);
        let error = soon(&SWITCH, || ranks[1].recv(&mut data, 1));
        assert!(!error.is_terminal(), "from the own rank: {error}");
    }
    interrupt::ask_on_this_thread(None);
    ranks[0].send(&[1u8, 2, 3, 4], 1).unwrap();
    ranks[1].recv(&mut data, 0).unwrap();
    assert_eq!(data, [1, 2, 3, 4]);
}

#[test]
fn waiting_for_another_thread_of_the_rank_is_interrupted_too() {
    let ranks = Communicator::in_process(2).unwrap();
    std::thread::scope(|scope| {
        static WAITS: AtomicBool = AtomicBool::new(false);
        scope.spawn(|| {
            // Who is asked waits, and the barrier is the one thing that it waits in.
            interrupt::ask_on_this_thread(Some(|| {
                WAITS.store(true, Ordering::Relaxed);
                false
            }));
            ranks[0].barrier().unwrap();
        });
        while !WAITS.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        {
            switch!(SWITCH);
            let error = soon(&SWITCH, || ranks[0].barrier());
            assert!(matches!(error, Error::Interrupted { terminal: false, .. }), "{error}");
        }
        let pending = ranks[0].barrier_async();
        {
            switch!(SWITCH);
            let error = soon(&SWITCH, || ranks[0].barrier());
            assert!(matches!(error, Error::Interrupted { terminal: false, .. }), "{error}");
        }
        interrupt::ask_on_this_thread(None);
        ranks[1].barrier().unwrap();
        ranks[1].barrier().unwrap();
        pending.wait().unwrap();
    });
}

#[test]
fn a_rendezvous_to_which_nobody_comes_is_interrupted() {
    for rank in [0, 1] {
        switch!(SWITCH);
        let run = format!("interrupt-{}-{rank}", std::process::id());
        let builder = Communicator::builder().rank(rank).world_size(2).run_id(&run);
        let error = soon(&SWITCH, || builder.connect());
        assert!(matches!(error, Error::Interrupted { operation: "connect", terminal: false }), "{error}");
    }
}

#[test]
fn a_call_whose_peers_are_on_time_asks_nobody() {
    thread_local! {
        static ASKED: Cell<u32> = const { Cell::new(0) };
    }
    let ranks = Communicator::in_process(2).unwrap();
    std::thread::scope(|scope| {
        for comm in ranks {
            scope.spawn(move || {
                interrupt::ask_on_this_thread(Some(|| {
                    ASKED.set(ASKED.get() + 1);
                    false
                }));
                let mut on_time = 0;
                for _ in 0..100 {
                    let (asked, start) = (ASKED.get(), Instant::now());
                    comm.barrier().unwrap();
                    // On a busy machine the other may be late at times.
                    if start.elapsed() < interrupt::ASK_EVERY {
                        assert_eq!(ASKED.get(), asked);
                        on_time += 1;
                    }
                }
                assert!(on_time > 0, "every barrier took {:?}", interrupt::ASK_EVERY);
            });
        }
    });
}
