//! Raising the priority of a measurement, as far as the system lets us.
//!
//! The `unisono` program's benches ask for it, so that other work on the machine disturbs them less. The
//! invariant: it never fails; it says what worked.

/// What [`raise_priority`] achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriorityRaised {
    /// The calling thread has the highest ordinary priority (nice -20), and so have threads and children that
    /// it starts from now on.
    pub thread: bool,
    /// Its session's scheduling group has. Where there are such groups, a thread's priority counts within its
    /// group only, and this one is shared by all processes of the session: start with a session of your own.
    pub session_group: bool,
}

/// Give the calling thread, and its session's scheduling group if there is one, the highest ordinary
/// priority. Needs privileges; without them nothing changes. Call it before other threads are started.
pub fn raise_priority() -> PriorityRaised {
    PriorityRaised {
        thread: rustix::process::setpriority_process(None, -20).is_ok(),
        session_group: std::fs::write("/proc/self/autogroup", "-20").is_ok(),
    }
}
