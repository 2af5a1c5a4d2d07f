//! A file descriptor for other processes of this user: what a vendor's handle that is a descriptor travels as.
//!
//! Who offers it listens under a name of 16 random bytes, which the others are told; who comes there is given the descriptor. The
//! invariant: nobody but this user's processes is given it, or believed, and nobody waits without end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use unisono_os::process;
use unisono_os::socket::{Address, Connection, Listener, Received, SocketError};

/// Bytes of a name.
pub(super) const NAME_BYTES: usize = 16;

/// How long giving and taking may last.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the thread that gives looks whether it is to end.
const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// A descriptor that is being offered; dropped, it no longer is.
#[derive(Debug)]
pub(super) struct Offered {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Whose the thread is.
    process: u32,
}

fn address(name: [u8; NAME_BYTES]) -> Address {
    let hexadecimal: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    Address::Abstract(format!("unisono-gpu-{hexadecimal}").into_bytes())
}

impl Offered {
    /// Offers it until so many have taken it.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(super) fn new(descriptor: OwnedFd, name: [u8; NAME_BYTES], takers: usize) -> Result<Self, String> {
        let listener = Listener::bind(&address(name)).map_err(|problem| problem.to_string())?;
        let is_over = Arc::new(AtomicBool::new(false));
        let its_end = Arc::clone(&is_over);
        let give = move || {
            unisono_os::thread::mask_all_signals();
            give(&listener, &descriptor, takers, &its_end);
        };
        let thread = std::thread::Builder::new().name("unisono-offer".to_owned()).spawn(give);
        let thread = thread.map_err(|problem| format!("no thread for it: {problem}"))?;
        Ok(Self { is_over, thread: Some(thread), process: process::pid() })
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        // Relaxed: nothing else is told by it.
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take().filter(|_| self.process == process::pid()) {
            // A panic there has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn give(listener: &Listener, descriptor: &OwnedFd, takers: usize, is_over: &AtomicBool) {
    let mut given = 0;
    while given < takers && !is_over.load(Ordering::Relaxed) {
        match listener.accept(Some(Instant::now() + LOOKS_EVERY)) {
            Ok(taker) if is_ours(&taker) => {
                let deadline = Some(Instant::now() + PATIENCE);
                given += usize::from(taker.send(b"!", &[descriptor.as_fd()], deadline).is_ok());
            }
            // Another user's, or nobody.
            Ok(_) => {}
            Err(problem) if problem.is_timed_out() => {}
            Err(_) => std::thread::sleep(LOOKS_EVERY),
        }
    }
}

fn is_ours(other: &Connection) -> bool {
    other.peer_credentials().is_ok_and(|credentials| credentials.uid == process::uid())
}

/// Takes what is offered under a name.
///
/// # Errors
///
/// What the system said, or that nobody of this user offers it.
pub(super) fn take(name: [u8; NAME_BYTES]) -> Result<OwnedFd, String> {
    let deadline = Some(Instant::now() + PATIENCE);
    let told = |problem: SocketError| format!("it is not offered any more: {problem}");
    let giver = Connection::connect(&address(name), deadline).map_err(told)?;
    if !is_ours(&giver) {
        return Err("who offers it is another user's process".to_owned());
    }
    match giver.receive(1, deadline).map_err(told)? {
        Received::Message(mut message) => {
            message.descriptors.pop().ok_or_else(|| "a message without a descriptor came".to_owned())
        }
        Received::Closed => Err("it is not offered any more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn a_descriptor_is_given_to_so_many_and_then_no_more() {
        let name = unisono_os::random::bytes().unwrap();
        let offered = Offered::new(File::open("/proc/self/stat").unwrap().into(), name, 2).unwrap();
        for _ in 0..2 {
            let mut text = String::new();
            File::from(take(name).unwrap()).read_to_string(&mut text).unwrap();
            // One open file, read to its end by whoever comes first.
            assert!(text.is_empty() || text.starts_with(&format!("{} ", process::pid())));
        }
        drop(offered);
        assert!(take(name).unwrap_err().contains("not offered any more"));
    }

    #[test]
    fn an_offer_that_nobody_takes_ends_with_its_owner() {
        let name = unisono_os::random::bytes().unwrap();
        let start = Instant::now();
        drop(Offered::new(File::open("/dev/null").unwrap().into(), name, 1).unwrap());
        assert!(start.elapsed() < PATIENCE && take(name).is_err());
    }
}
