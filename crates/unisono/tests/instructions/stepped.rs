//! The process that is stepped: ranks on threads, of which rank 0, the first thread, says where operations begin and end.

use std::cell::Cell;
use std::time::Duration;

use unisono::Communicator;
use unisono::counts::before_every_wait;
use unisono_os::process::{be_stepped, mark};

use crate::formulas::{Case, Kind};
use crate::plan;
use crate::work::{self, Buffers};

/// No operation takes this long, stepped or not; a rank that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(600);

thread_local! {
    /// How many sections the operation at hand has so far.
    static SECTIONS: Cell<usize> = const { Cell::new(0) };
    /// How long the others need to do their part.
    static OTHERS_NEED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// End a section, let the others come to where they wait for this rank, and begin the next section.
fn let_others_finish() {
    mark();
    std::thread::sleep(OTHERS_NEED.get());
    SECTIONS.set(SECTIONS.get() + 1);
    mark();
}

/// Carry the plan out for this world and kind. Prints a line for each operation: how many sections it had. The first section of
/// all is empty, and shows what a section costs by itself.
pub(crate) fn run(kind: Kind, world: usize) {
    let parameters = work::parameters(kind, world);
    let mut ranks =
        Communicator::in_process_with(world, &parameters).expect("threads always meet").into_iter();
    let first = ranks.next().expect("a world has a rank");
    std::thread::scope(|scope| {
        for comm in ranks {
            scope.spawn(move || {
                let comm = comm.with_timeout(Some(PATIENCE));
                for bytes in plan::sizes(kind, world) {
                    let mut buffers = Buffers::of(&comm, Case { kind, world, rank: comm.rank(), bytes });
                    for _ in 0..=plan::repetitions(bytes) {
                        buffers.perform(&comm, kind);
                    }
                }
            });
        }
        count_this_thread(&first.with_timeout(Some(PATIENCE)), kind, world);
    });
}

fn count_this_thread(comm: &Communicator, kind: Kind, world: usize) {
    let counted = crate::on_the_core_of(kind, || count_operations(comm, kind, world));
    counted.expect("the core is allowed");
}

fn count_operations(comm: &Communicator, kind: Kind, world: usize) {
    be_stepped().expect("the parent may follow its child");
    mark();
    mark();
    for bytes in plan::sizes(kind, world) {
        let moving = Duration::from_nanos((bytes * world / 4) as u64);
        OTHERS_NEED.set(Duration::from_millis(1) + Duration::from_micros(300) * world as u32 + moving);
        let mut buffers = Buffers::of(comm, Case { kind, world, rank: comm.rank(), bytes });
        // Once for nothing: pages are touched and lines have migrated.
        buffers.perform(comm, kind);
        before_every_wait(Some(let_others_finish));
        for _ in 0..plan::repetitions(bytes) {
            std::thread::sleep(OTHERS_NEED.get());
            SECTIONS.set(1);
            mark();
            buffers.perform(comm, kind);
            mark();
            println!("{}", SECTIONS.get());
        }
        before_every_wait(None);
    }
}
