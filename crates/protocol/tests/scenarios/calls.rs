//! Two ranks that only write, and so wait for nobody: each looks back at the other's calls.

use unisono_protocol::{ArrivalLine, Ended, Halt, Steps, wait_until};

use super::machine::lines;
use super::platform::{Arc, run_ranks};
use super::waits::Spinning;

struct Writers {
    lines: Vec<ArrivalLine>,
    steps: u64,
    differ_from: u64,
}

/// Two ranks write `steps` steps each; from step `differ_from` on they mean different calls. Then each of them notices, or
/// is told by the one that did; and where no step differs nobody believes so, however far one is ahead.
pub(crate) fn writers_look_back(steps: u64, differ_from: u64) {
    let shared = Arc::new(Writers { lines: lines(2), steps, differ_from });
    run_ranks(2, &shared, write).expect("who is told of another's abort ends well");
}

fn write(rank: usize, writers: &Writers) -> Result<(), Ended> {
    let peers = 1 << (1 - rank);
    let line_of = |peer: usize| &writers.lines[peer];
    let mut steps = Steps::new();
    for step in 1..=writers.steps {
        let opened = steps.open(peers, line_of, &mut Spinning).and_then(|()| steps.look_back(peers, line_of));
        match opened {
            Ok(()) => {}
            Err(Halt::Differs(_)) => {
                assert!(step > writers.differ_from, "before step {step} nothing differs");
                writers.lines.iter().for_each(|line| line.word().abort(&Spinning));
                return Ok(());
            }
            Err(Halt::Ended(ended)) => return told(writers, ended),
        }
        let fingerprint = if step < writers.differ_from { step } else { step * 1000 + rank as u64 };
        steps.publish(&writers.lines[rank], fingerprint, &Spinning);
    }
    match wait_until(peers, writers.steps, |peer| line_of(peer).word(), &mut Spinning) {
        // The other has come as far, and now it shows.
        Ok(()) => {
            let noticed = steps.look_back(peers, line_of) == Err(Halt::Differs(1 - rank));
            assert_eq!(noticed, writers.differ_from <= writers.steps);
            Ok(())
        }
        Err(ended) => told(writers, ended),
    }
}

fn told(writers: &Writers, ended: Ended) -> Result<(), Ended> {
    assert!(writers.differ_from <= writers.steps, "nobody has a reason to abort");
    if matches!(ended, Ended::Aborted(_)) { Ok(()) } else { Err(ended) }
}
