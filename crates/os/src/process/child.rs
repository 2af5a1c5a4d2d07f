//! What a child does between its birth and the start of its program.
//!
//! The `unisono` program starts ranks that must not outlive it, each in a process group or session of its
//! own. The invariant: between fork and exec only calls are made that are safe there: no allocation, no lock.

#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{Signal, signal};

/// What a child shall do before its program starts; the default is nothing but opening all signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildSetup {
    /// Be sent this signal when the thread that started it ends.
    pub die_with_parent: Option<Signal>,
    /// Lead a new session (and process group), without a terminal.
    pub new_session: bool,
    /// Lead a new process group; implied by a new session.
    pub new_process_group: bool,
}

/// Let the child that `command` starts set itself up so. Signals that this process masks or watches are open
/// in it.
pub fn prepare_child(command: &mut Command, setup: ChildSetup) {
    let parent = std::process::id();
    // SAFETY: the closure runs in the forked child, where other threads' locks may be held for ever and
    // memory must not be allocated: `set_up` makes bare system calls and builds errors from numbers alone.
    unsafe { command.pre_exec(move || set_up(setup, parent)) };
}

fn set_up(setup: ChildSetup, parent: u32) -> std::io::Result<()> {
    signal::open_all_signals();
    if setup.new_session {
        rustix::process::setsid()?;
    } else if setup.new_process_group {
        rustix::process::setpgid(None, None)?;
    }
    if let Some(signal) = setup.die_with_parent {
        rustix::process::set_parent_process_death_signal(Some(signal.number()))?;
        // A parent that died before the line above is not reported any more.
        if super::parent_pid() != parent {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    /// Field `index` (from 1, as the manual counts) of `/proc/pid/stat`.
    fn stat_field(pid: u32, index: usize) -> i64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let rest = stat.rsplit_once(") ").unwrap().1;
        rest.split(' ').nth(index - 3).unwrap().parse().unwrap()
    }

    fn started(setup: ChildSetup) -> std::process::Child {
        let mut command = Command::new("sleep");
        prepare_child(command.arg("60").stdin(Stdio::null()), setup);
        command.spawn().unwrap()
    }

    #[test]
    fn a_child_leads_its_group_or_session() {
        let mut grouped = started(ChildSetup { new_process_group: true, ..Default::default() });
        assert_eq!(stat_field(grouped.id(), 5), i64::from(grouped.id()));
        assert_ne!(stat_field(grouped.id(), 6), i64::from(grouped.id()));
        let mut alone = started(ChildSetup { new_session: true, ..Default::default() });
        assert_eq!(stat_field(alone.id(), 6), i64::from(alone.id()));
        for child in [&mut grouped, &mut alone] {
            super::super::kill_group(child.id(), Signal::Kill).unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let setup = ChildSetup { die_with_parent: Some(Signal::Kill), ..Default::default() };
        let mut child = std::thread::spawn(move || started(setup)).join().unwrap();
        assert_eq!(super::super::describe_exit(child.wait().unwrap()), "SIGKILL");
    }

    #[test]
    fn a_child_has_all_signals_open() {
        let mut child = std::thread::spawn(|| {
            crate::thread::mask_all_signals();
            started(ChildSetup::default())
        })
        .join()
        .unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
        assert_eq!(u64::from_str_radix(blocked, 16).unwrap(), 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
