//! Another user sees nothing, neither by looking nor by asking the sockets that anybody can find.

use std::time::{Duration, Instant};

use unisono::queue::Writer;
use unisono::{Communicator, observe};
use unisono_os::socket::{Address, Connection, Received, listening};

use crate::faults::{PATIENCE, fresh_name, needs_root, reported, system, told};
use crate::harness::{self, Ranks};

/// The questions as they are said: of a rank in its version, of a queue.
const QUESTIONS: [(&str, &[u8]); 2] = [("unisono-rank/", &[0, 1]), ("unisono-queue/", &[6])];

/// Ask every socket of unisono; how many were asked, and how many gave an answer that is longer than a refusal's number.
fn ask_everybody(pid: u32) -> (usize, usize) {
    let (mut asked, mut answered) = (0, 0);
    for (start, question) in QUESTIONS {
        for name in listening(start).expect("sockets can be seen") {
            let until = Some(Instant::now() + Duration::from_secs(2));
            let Ok(connection) = Connection::connect(&Address::Abstract(name.into_bytes()), until) else {
                continue;
            };
            if connection.peer_credentials().expect("the kernel knows").pid != pid {
                continue;
            }
            asked += 1;
            let _ = connection.send(question, &[], until); // It may have been shut out already.
            let facts = if start == "unisono-queue/" { 7 } else { 1 };
            if let Ok(Received::Message(message)) = connection.receive(16 * 1024, until) {
                answered += usize::from(message.bytes[0] == facts);
            }
        }
    }
    (asked, answered)
}

/// Process: as another user, look, and ask as who looks does.
pub(crate) fn look_as_another_user() {
    system::become_user(65_534);
    let parent = told("OWNER").parse().expect("a number");
    let listing = observe::list(None).expect("one may look");
    let queues = listing.queues.iter().filter(|queue| queue.writer.pid == parent).count();
    let ranks = listing.communicators.iter().flat_map(|communicator| &communicator.ranks);
    let ranks = ranks.filter(|rank| rank.process.pid == parent).count();
    let silent = listing.silent.iter().filter(|silent| silent.process.pid == parent).count();
    harness::report("seen", &format!("{}", queues + ranks + silent));
    harness::report("answers", &format!("{:?}", ask_everybody(parent)));
}

/// Process: a writer that forks a child, which keeps its sockets open, and is killed.
pub(crate) fn leave_a_forked_child() {
    let writer = Writer::builder().create().expect("a queue");
    let child = system::fork_sleeping_child();
    harness::report("child", &format!("{child} {}", writer.handle().name()));
    harness::wait_for_go();
    harness::kill_myself();
}

pub(crate) fn a_forked_child_that_outlives_the_dead_is_told_as_that() {
    let mut ranks = Ranks::of("leave_a_forked_child", 1).start();
    let pid = ranks.pid(0);
    let told = ranks.wait_for_report(0, "child", PATIENCE);
    let (child, name) = told.split_once(' ').expect("two words");
    ranks.go(0);
    ranks.wait_others(&[], PATIENCE);
    let listing = observe::list(None).expect("one may look");
    assert!(listing.queues.iter().all(|queue| queue.name != name));
    let silent = listing.silent.iter().find(|silent| silent.process.pid == pid).expect("it is told of");
    assert!(silent.address.contains(name) && silent.problem.contains("forked"), "{silent:?}");
    let child = child.parse().expect("a number");
    unisono_os::process::kill(child, unisono_os::process::Signal::Kill).expect("it is there");
}

/// Process: look with so few descriptors that not all queues can be asked.
pub(crate) fn look_with_few_descriptors() {
    let names = told("NAMES");
    let names: Vec<&str> = names.split(',').collect();
    let is_meant = |text: &str| names.iter().any(|name| text.contains(name));
    let taken = system::take_descriptors(4);
    let listing = observe::list(None).expect("one may look");
    drop(taken);
    let answered = listing.queues.iter().filter(|queue| is_meant(&queue.name)).count();
    let silent: Vec<_> = listing.silent.iter().filter(|silent| is_meant(&silent.address)).collect();
    assert!(silent.iter().all(|silent| silent.problem.contains("Too many open files")), "{silent:?}");
    assert!(!silent.is_empty() && answered + silent.len() == names.len(), "{answered} answered, {silent:?}");
}

pub(crate) fn whoever_cannot_be_asked_for_want_of_descriptors_is_told_of() {
    let queues: Vec<Writer> = (0..8).map(|_| Writer::builder().create().expect("a queue")).collect();
    let names: Vec<String> = queues.iter().map(|queue| queue.handle().name()).collect();
    Ranks::of("look_with_few_descriptors", 1).env("NAMES", &names.join(",")).start().all_succeed(PATIENCE);
}

pub(crate) fn another_user_sees_nothing() {
    needs_root();
    let own = std::process::id();
    let _writer = Writer::builder().create().expect("a queue");
    let name = fresh_name("seen");
    let connect = |rank: usize| {
        let builder = Communicator::builder().rank(rank).world_size(2).run_id(&name);
        builder.rendezvous_timeout(PATIENCE).connect().expect("the ranks meet")
    };
    // Both ranks in this process, each with a watcher of its own.
    let _comms = std::thread::scope(|scope| {
        let other = scope.spawn(|| connect(1));
        (connect(0), other.join().expect("it meets"))
    });
    assert_eq!(ask_everybody(own), (3, 3), "what is asked is answered to this user");
    let listing = observe::list(None).expect("one may look");
    assert_eq!(listing.queues.iter().filter(|queue| queue.writer.pid == own).count(), 1);

    let outcomes =
        Ranks::of("look_as_another_user", 1).env("OWNER", &own.to_string()).start().all_succeed(PATIENCE);
    assert_eq!(reported(&outcomes[0], "seen").as_deref(), Some("0"));
    assert_eq!(reported(&outcomes[0], "answers").as_deref(), Some("(3, 0)"));
}
