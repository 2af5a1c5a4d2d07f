//! What a process is doing, as the system sees it.

/// What the system says a process is doing at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs, or could.
    Running,
    /// It sleeps until something happens.
    Sleeping,
    /// It waits inside the kernel, for a disk mostly, and hears no signal.
    Uninterruptible,
    /// It was stopped by a signal.
    Stopped,
    /// A debugger has stopped it.
    Traced,
    /// It has ended; its parent has not noticed.
    Ended,
}

/// What the process with this number is doing; `None` if there is none, or it cannot be seen.
pub fn state(pid: u32) -> Option<ProcessState> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; after its last bracket comes the state, one letter.
    Some(match stat.rsplit_once(") ")?.1.as_bytes().first()? {
        b'R' => ProcessState::Running,
        b'D' => ProcessState::Uninterruptible,
        b'T' => ProcessState::Stopped,
        b't' => ProcessState::Traced,
        b'Z' | b'X' | b'x' => ProcessState::Ended,
        // S, and I, K, P and W of some kernels: none of them runs.
        _ => ProcessState::Sleeping,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Signal, kill};
    use std::process::Command;
    use std::time::{Duration, Instant};

    fn wait_for(pid: u32, expected: ProcessState) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while state(pid) != Some(expected) {
            assert!(Instant::now() < deadline, "{:?}", state(pid));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_process_is_seen_to_sleep_to_be_stopped_and_to_end() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        wait_for(pid, ProcessState::Sleeping);
        kill(pid, Signal::Stop).unwrap();
        wait_for(pid, ProcessState::Stopped);
        kill(pid, Signal::Kill).unwrap();
        wait_for(pid, ProcessState::Ended);
        child.wait().unwrap();
        assert_eq!(state(pid), None);
    }
}
