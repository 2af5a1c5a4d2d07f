//! What the fault tests share: how a rank tells its test how it ended, and how the test reads it.
//!
//! A rank under test runs operations until one fails, then says with [`tell`] which error it got and when.
//! The test compares what all ranks said. Times are of the machine's monotonic clock, which all processes share.

#![allow(dead_code, reason = "each test program uses a part of it")]

/// A list of functions under their own names.
macro_rules! named {
    ($($module:ident :: { $($function:ident),* $(,)? })*) => {
        &[$($((stringify!($function), $module::$function as fn())),*),*]
    };
}

pub(crate) mod log;
pub(crate) mod system;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use unisono::{Communicator, Error};
use unisono_os::socket::Address;

use crate::harness::{self, Outcome};

/// How long a rank may take to learn of a death here. The promise is 50 ms on a quiet machine; tests run beside one
/// another, so what was measured is printed, and only what nobody could call prompt fails.
pub(crate) const PROMPT: Duration = Duration::from_secs(2);

/// How long a test waits for its ranks.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How a rank ended, as it told its test.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// When, in nanoseconds of the monotonic clock.
    pub(crate) at: u64,
    /// The error's variant.
    pub(crate) kind: String,
    /// The ranks that the error names.
    pub(crate) ranks: Vec<usize>,
    /// Their processes.
    pub(crate) pids: Vec<u32>,
    /// The error as users read it.
    pub(crate) text: String,
}

/// The variant of an error, the ranks that it names, and their processes where it says them.
fn kind_of(error: &Error) -> (&'static str, Vec<usize>, Vec<u32>) {
    match error {
        Error::PeerDied { rank, pid, .. } => ("PeerDied", vec![*rank], vec![*pid]),
        Error::PeerLeft { rank, pid, .. } => ("PeerLeft", vec![*rank], vec![*pid]),
        Error::Timeout { peers, .. } => {
            let alive = if peers.iter().all(|peer| peer.alive) { "Timeout" } else { "Timeout of the dead" };
            (alive, peers.iter().map(|peer| peer.rank).collect(), peers.iter().map(|peer| peer.pid).collect())
        }
        Error::Mismatch { rank, peer, .. } => ("Mismatch", vec![*rank, *peer], vec![]),
        Error::Aborted { by, .. } => ("Aborted", by.iter().copied().collect(), vec![]),
        Error::Rendezvous { missing, .. } => ("Rendezvous", missing.clone(), vec![]),
        Error::InvalidArgument { .. } => ("InvalidArgument", vec![], vec![]),
        Error::Busy { .. } => ("Busy", vec![], vec![]),
        Error::Team { .. } => ("Team", vec![], vec![]),
        Error::Closed { .. } => ("Closed", vec![], vec![]),
        Error::Forked { .. } => ("Forked", vec![], vec![]),
        Error::Setting { .. } => ("Setting", vec![], vec![]),
        Error::OutOfMemory { .. } => ("OutOfMemory", vec![], vec![]),
        Error::Segment { .. } => ("Segment", vec![], vec![]),
        Error::Os { .. } => ("Os", vec![], vec![]),
        _ => ("Unknown", vec![], vec![]),
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn parted<T: std::str::FromStr>(text: &str) -> Vec<T> {
    text.split(',').filter_map(|item| item.parse().ok()).collect()
}

/// On a rank: tell the test about an error.
pub(crate) fn tell(error: &Error) {
    let (kind, ranks, pids) = kind_of(error);
    let at = unisono_os::clock::monotonic_nanoseconds();
    let text = error.to_string().replace('\n', " ");
    harness::report("ended", &format!("{at};{kind};{};{};{text}", joined(&ranks), joined(&pids)));
}

/// On a rank: tell the test the time.
pub(crate) fn tell_time(what: &str) {
    harness::report(what, &unisono_os::clock::monotonic_nanoseconds().to_string());
}

/// On a rank: what the test put into its environment.
pub(crate) fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("the test sets {name}"))
}

/// On a rank: meet the others as the environment says.
pub(crate) fn connect() -> Communicator {
    Communicator::from_env().unwrap_or_else(|error| panic!("the ranks meet: {error}"))
}

/// What a rank last reported under `key`.
pub(crate) fn reported(outcome: &Outcome, key: &str) -> Option<String> {
    outcome.reports(key).pop()
}

/// How a rank ended.
pub(crate) fn ended(outcome: &Outcome) -> Ended {
    let line = reported(outcome, "ended").unwrap_or_else(|| {
        panic!("rank {} told no error: {:?}\n{}", outcome.rank, outcome.status, outcome.output)
    });
    let mut parts = line.splitn(5, ';');
    let mut part = || parts.next().unwrap_or_default().to_string();
    let at = part().parse().expect("a time");
    Ended { at, kind: part(), ranks: parted(&part()), pids: parted(&part()), text: part() }
}

/// See that every one of `outcomes` but those of `except` ended with `kind`, naming `ranks`.
pub(crate) fn all_ended_with(outcomes: &[Outcome], except: &[usize], kind: &str, ranks: &[usize]) {
    for outcome in outcomes.iter().filter(|outcome| !except.contains(&outcome.rank)) {
        let ended = ended(outcome);
        assert_eq!(ended.kind, kind, "rank {}: {}", outcome.rank, ended.text);
        assert_eq!(ended.ranks, ranks, "rank {}: {}", outcome.rank, ended.text);
        outcome.assert_success();
    }
}

/// A name that no other test uses.
pub(crate) fn fresh_name(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Fail where the test cannot do what it is for.
pub(crate) fn needs_root() {
    assert_eq!(
        unisono_os::process::uid(),
        0,
        "this test needs root: for other users, namespaces or control groups"
    );
}

/// An empty directory, gone when dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(what: &str) -> Self {
        let directory = std::env::temp_dir().join(fresh_name(&format!("unisono-{what}")));
        std::fs::create_dir(&directory).expect("a new directory");
        Scratch(directory)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("it is there").filter_map(Result::ok);
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // Nothing depends on it any more.
    }
}

/// A control group that limits memory, gone when dropped.
pub(crate) struct MemoryGroup {
    directory: PathBuf,
    /// What says the limit, and what is in use.
    files: [&'static str; 2],
}

impl MemoryGroup {
    pub(crate) fn new(limit: u64) -> Self {
        needs_root();
        let name = fresh_name("unisono-test");
        let kinds = [
            ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.usage_in_bytes"]),
            ("/sys/fs/cgroup", ["memory.max", "memory.current"]),
        ];
        for (root, files) in kinds {
            let directory = Path::new(root).join(&name);
            let made = std::fs::create_dir(&directory).is_ok();
            let group = MemoryGroup { directory, files };
            if made && group.set_limit(limit).is_ok() {
                return group;
            }
            // There is none, or none that limits memory; dropped, it goes.
        }
        panic!("no control group that limits memory can be made here, neither version 1 nor 2: {kinds:?}");
    }

    pub(crate) fn set_limit(&self, limit: u64) -> std::io::Result<()> {
        std::fs::write(self.directory.join(self.files[0]), limit.to_string())
    }

    /// How many bytes are in use.
    pub(crate) fn usage(&self) -> u64 {
        let usage = std::fs::read_to_string(self.directory.join(self.files[1])).expect("the group is there");
        usage.trim().parse().expect("a number")
    }

    pub(crate) fn path(&self) -> String {
        self.directory.display().to_string()
    }

    /// A script for `sh -c` that enters the group and then runs its first argument.
    pub(crate) fn enter_and_run(&self) -> String {
        format!("echo $$ > {}/cgroup.procs && exec \"$0\"", self.path())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.directory); // A failing test may have left processes in it.
    }
}

/// The socket under which a group meets whose ranks got this name from an exchange: the library's own rule, said again
/// so that a test can be there before the ranks are.
pub(crate) fn abstract_name(drawn: &[u8]) -> Address {
    let text: String = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
    let bytes = text.len().to_le_bytes().into_iter().chain(text.bytes());
    // 128 bits of FNV-1a.
    let basis = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let prime = 0x0000_0000_0100_0000_0000_0000_0000_013b_u128;
    let hash = bytes.fold(basis, |state, byte| (state ^ u128::from(byte)).wrapping_mul(prime));
    Address::Abstract(format!("unisono/{hash:032x}").into_bytes())
}

/// Print a measured number where a person looks at it.
pub(crate) fn note(text: &str) {
    let mut out = std::io::stderr();
    let _ = writeln!(out, "{}{text}", if out.is_terminal() { "  " } else { "" });
}

/// Try `done` until it holds or two seconds have passed.
pub(crate) fn soon(what: &str, done: impl Fn() -> bool) {
    let patience = Instant::now() + PROMPT;
    while !done() {
        assert!(Instant::now() < patience, "{what}: not within {PROMPT:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
