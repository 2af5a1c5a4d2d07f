//! The records that peers read for their errors: never torn, and the first cause stands.

use unisono_protocol::record::RECORDS;
use unisono_protocol::{CallRecord, CauseRecord, Latest, Word};

use super::platform::{Arc, Mutex, join_all, spawn, yield_now};
use super::waits::Spinning;

/// A record is overwritten while it is read: the reader has one of the two whole, or nothing.
pub(crate) fn a_call_record_is_read_whole(rewrites: u64, reads: u64) {
    let record = Arc::new(CallRecord::default());
    record.write(0, [0; 4]);
    let writer = record.clone();
    let writer = spawn(move || {
        for number in 1..=rewrites {
            writer.write(number, [number; 4]);
        }
    });
    for _ in 0..reads {
        if let Some((number, fields)) = record.read() {
            assert_eq!(fields, [number; 4], "the fields of another call");
        }
    }
    join_all([writer]);
    assert_eq!(record.read(), Some((rewrites, [rewrites; 4])), "the last record stands");
}

/// A rank makes calls, the later ones in ring slots of the earlier; a peer asks for the newest call meanwhile.
pub(crate) fn the_newest_call_is_read_whole(calls: u64) {
    let latest = Arc::new(Latest::default());
    latest.begin(0, [0; 4]);
    let rank = latest.clone();
    let rank = spawn(move || {
        rank.finish(0);
        for call in 1..=calls {
            // Every call in the slot of the one before: the ring is at its shortest.
            rank.begin(call * RECORDS, [call * RECORDS; 4]);
        }
    });
    if let Some((number, fields, finished)) = latest.newest() {
        assert_eq!(fields, [number; 4], "the fields of another call");
        assert!(!finished || number == 0, "only call 0 has finished");
    }
    join_all([rank]);
    assert_eq!(latest.newest(), Some((calls * RECORDS, [calls * RECORDS; 4], false)));
}

/// A peer that was stopped for another reason reads a cause while it is being written: it has all of it or none.
pub(crate) fn a_cause_is_read_whole_at_any_moment() {
    let cause = Arc::new(CauseRecord::default());
    let writer = cause.clone();
    let writer = spawn(move || assert!(writer.write(7, &[7; 12]), "nobody else writes"));
    if let Some(found) = cause.read() {
        assert_eq!(found, (7, [7; 12]), "half a cause");
    }
    join_all([writer]);
    assert_eq!(cause.read(), Some((7, [7; 12])));
}

/// Whether the threads of one rank that stop the group take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    InTurn,
    #[cfg_attr(not(loom), allow(dead_code, reason = "shown to be wrong where it is certain to be seen"))]
    AtOnce,
}

struct Stop {
    cause: CauseRecord,
    word: Word,
    turn: Mutex<()>,
    stopping: Stopping,
}

/// Two threads of a rank stop the group for different reasons; a peer that sees ABORT finds one of them, whole,
/// and it is the one whose writer was told that it stands.
pub(crate) fn the_first_cause_stands(stopping: Stopping) {
    let stop =
        Arc::new(Stop { cause: CauseRecord::default(), word: Word::new(0), turn: Mutex::new(()), stopping });
    let stoppers = [1, 2].map(|kind| {
        let stop = stop.clone();
        spawn(move || stop_for(&stop, kind))
    });
    while !stop.word.look().is_aborted() {
        yield_now();
    }
    let (kind, fields) = stop.cause.read().expect("whoever sees ABORT finds a cause");
    assert_eq!(fields[..3], [u64::from(kind); 3], "the fields of another cause");
    join_all(stoppers);
    assert_eq!(stop.cause.read().map(|(kind, _)| kind), Some(kind), "a later cause took its place");
}

fn stop_for(stop: &Stop, kind: u32) {
    let _turn = (stop.stopping == Stopping::InTurn).then(|| stop.turn.lock().expect("nobody panics with it"));
    if stop.cause.write(kind, &[u64::from(kind); 3]) {
        assert_eq!(stop.cause.read().map(|(kind, _)| kind), Some(kind), "the writer was told that it stands");
    }
    stop.word.abort(&Spinning);
}
