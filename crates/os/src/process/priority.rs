//! Raising the priority of a measurement, as far as the system lets us.
//!
//! The `unisono` program's benches ask for it, so that other work on the machine disturbs them less. The invariant: it
//! never fails; it says what worked.

/// What [`raise_priority`] achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriorityRaised {
    /// This process has the highest ordinary priority (nice -20).
    pub process: bool,
    /// Its session's scheduling group has, too; where there are such groups, the process's own counts within it only.
    pub session_group: bool,
}

/// Give this process, and its session's scheduling group if there is one, the highest ordinary priority.
/// Needs privileges; without them nothing changes.
pub fn raise_priority() -> PriorityRaised {
    PriorityRaised {
        process: rustix::process::setpriority_process(None, -20).is_ok(),
        session_group: std::fs::write("/proc/self/autogroup", "-20").is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_is_what_is_so() {
        // On a thread of its own: the system keeps priorities by thread.
        std::thread::spawn(|| {
            let raised = raise_priority();
            let now = rustix::process::getpriority_process(None).unwrap();
            assert_eq!(raised.process, now == -20, "{raised:?}, nice {now}");
        })
        .join()
        .unwrap();
    }
}
