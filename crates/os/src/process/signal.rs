//! Signals by name, and a descriptor from which a program reads those sent to it.
//!
//! The `unisono` program passes signals on to its ranks from an ordinary loop instead of a handler. The
//! invariant of a [`SignalWatch`]: while it lives, the watched signals are delivered to it alone.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::OsError;

/// The signals that this project sends, watches or passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the signal of that name")]
pub enum Signal {
    Hangup,
    Interrupt,
    Quit,
    Kill,
    User1,
    User2,
    Terminate,
    Child,
    Continue,
    Stop,
    WindowChange,
}

/// Numbers and names of all signals that have one, for [`name_of`].
const NAMES: [(i32, &str); 31] = [
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGKILL, "SIGKILL"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGSTKFLT, "SIGSTKFLT"),
    (libc::SIGCHLD, "SIGCHLD"),
    (libc::SIGCONT, "SIGCONT"),
    (libc::SIGSTOP, "SIGSTOP"),
    (libc::SIGTSTP, "SIGTSTP"),
    (libc::SIGTTIN, "SIGTTIN"),
    (libc::SIGTTOU, "SIGTTOU"),
    (libc::SIGURG, "SIGURG"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGXFSZ, "SIGXFSZ"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGWINCH, "SIGWINCH"),
    (libc::SIGIO, "SIGIO"),
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGSYS, "SIGSYS"),
];

impl Signal {
    const ALL: [Signal; 11] = [
        Signal::Hangup,
        Signal::Interrupt,
        Signal::Quit,
        Signal::Kill,
        Signal::User1,
        Signal::User2,
        Signal::Terminate,
        Signal::Child,
        Signal::Continue,
        Signal::Stop,
        Signal::WindowChange,
    ];

    /// The system's number.
    pub fn raw(self) -> i32 {
        self.number().as_raw()
    }

    /// The signal with this number, if it is one of these.
    pub fn from_raw(number: i32) -> Option<Signal> {
        Signal::ALL.into_iter().find(|signal| signal.raw() == number)
    }

    /// Its name as manual pages write it.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(number, _)| *number == self.raw()).map_or("signal", |(_, name)| name)
    }

    pub(crate) fn number(self) -> rustix::process::Signal {
        use rustix::process::Signal as System;
        match self {
            Signal::Hangup => System::HUP,
            Signal::Interrupt => System::INT,
            Signal::Quit => System::QUIT,
            Signal::Kill => System::KILL,
            Signal::User1 => System::USR1,
            Signal::User2 => System::USR2,
            Signal::Terminate => System::TERM,
            Signal::Child => System::CHILD,
            Signal::Continue => System::CONT,
            Signal::Stop => System::STOP,
            Signal::WindowChange => System::WINCH,
        }
    }
}

/// The name of any signal.
pub(super) fn name_of(number: i32) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

/// Signals sent to this process, read instead of handled.
#[derive(Debug)]
pub struct SignalWatch {
    descriptor: OwnedFd,
}

impl SignalWatch {
    /// Watch these signals. Call it on the first thread, before others are started: they inherit that the
    /// signals are not delivered to them. Children started by [`prepare_child`](super::prepare_child) do not.
    ///
    /// # Errors
    /// If descriptors run out. `SIGKILL` and `SIGSTOP` cannot be watched and are left out by the system.
    pub fn new(signals: &[Signal]) -> Result<SignalWatch, OsError> {
        let set = set_of(signals);
        // SAFETY: the set is valid, and no former mask is asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        // SAFETY: -1 asks for a new descriptor; the set is valid.
        let number = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if number < 0 {
            return Err(OsError::last("signalfd", format!("{signals:?}")));
        }
        // SAFETY: the system has just made this descriptor for us alone.
        Ok(SignalWatch { descriptor: unsafe { OwnedFd::from_raw_fd(number) } })
    }

    /// The next signal that was sent, `None` if there is none now. Poll the descriptor to sleep until there
    /// is.
    pub fn take(&self) -> Option<Signal> {
        const RECORD: usize = size_of::<libc::signalfd_siginfo>();
        let mut record = [0_u8; RECORD];
        // SAFETY: the buffer has as many bytes as are asked for.
        let read = unsafe { libc::read(self.descriptor.as_raw_fd(), record.as_mut_ptr().cast(), RECORD) };
        if read != RECORD.cast_signed() {
            return None;
        }
        // The record starts with the signal's number, as 32 bits.
        let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
        Signal::from_raw(number.cast_signed())
    }

    /// The descriptor to poll: readable when a signal waits.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn set_of(signals: &[Signal]) -> libc::sigset_t {
    // SAFETY: `sigset_t` is plain data for which all bits zero is valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is valid, and the numbers are those of signals.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, signal.raw());
        }
    }
    set
}

/// Open every signal again, for a child that is about to start a program. Async-signal-safe.
pub(super) fn open_all_signals() {
    let none = set_of(&[]);
    // SAFETY: the set is valid, and no former mask is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_its_number_and_name() {
        for signal in Signal::ALL {
            assert_eq!(Signal::from_raw(signal.raw()), Some(signal));
            assert!(signal.name().starts_with("SIG"), "{signal:?}");
        }
        assert_eq!(Signal::Terminate.name(), "SIGTERM");
        assert_eq!(name_of(64), "signal 64");
        assert_eq!(Signal::from_raw(0), None);
    }

    #[test]
    fn a_watched_signal_is_read_and_does_no_harm() {
        std::thread::spawn(|| {
            let watch = SignalWatch::new(&[Signal::User1, Signal::WindowChange]).unwrap();
            assert_eq!(watch.take(), None);
            // SAFETY: sends a signal, which this thread has just masked, to this thread itself.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            let ready = crate::poll::until_readable(&[watch.descriptor()], Some(deadline)).unwrap();
            assert!(ready[0].readable);
            assert_eq!(watch.take(), Some(Signal::User1));
            assert_eq!(watch.take(), None);
        })
        .join()
        .unwrap();
    }
}
