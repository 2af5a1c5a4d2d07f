//! One rank's process: how it is started, what it says, how it ends.
//!
//! Standard output and standard error are one pipe, which a thread empties all the time, so that lines keep
//! their order and the rank never waits for its reader.

use std::io::{BufRead, BufReader, PipeReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use unisono_os::process::{ChildSetup, Signal, prepare_child};

/// How long the pipe may stay open after the rank ended: a forked child of it may hold it.
const PIPE_PATIENCE: Duration = Duration::from_secs(3);

/// A rank's process.
pub(super) struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
    started: Instant,
    ended: Option<(ExitStatus, Duration)>,
}

impl Process {
    /// Start the process; it dies with this one, and with the calling thread.
    pub(super) fn start(mut command: Command) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        command.stdin(Stdio::piped()).stdout(writer.try_clone().expect("a descriptor")).stderr(writer);
        let setup = ChildSetup { die_with_parent: Some(Signal::Kill), ..Default::default() };
        prepare_child(&mut command, setup);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} starts: {error}"));
        drop(command); // It holds the pipe's other end.
        let output = Arc::<Mutex<String>>::default();
        let collected = Arc::clone(&output);
        let reader = std::thread::spawn(move || collect(reader, &collected));
        Process { child, output, reader, started: Instant::now(), ended: None }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Send a signal; nothing happens if the process has ended.
    pub(super) fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = unisono_os::process::kill(self.pid(), signal); // It may have ended since.
        }
    }

    /// Write a line to its standard input.
    pub(super) fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("its standard input is a pipe");
        let _ = writeln!(input, "{line}"); // A rank that has ended hears nothing, and its end is looked at.
    }

    /// What it has said so far.
    pub(super) fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it ended and how long after its start, if it has.
    pub(super) fn ended(&mut self) -> Option<(ExitStatus, Duration)> {
        if self.ended.is_none() {
            let status = self.child.try_wait().expect("it is our child");
            self.ended = status.map(|status| (status, self.started.elapsed()));
        }
        self.ended
    }

    /// Wait until all it said is read; it has ended.
    pub(super) fn read_to_the_end(&self) {
        let end = Instant::now() + PIPE_PATIENCE;
        while !self.reader.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Append whole lines to `output` until the pipe's last writer is gone.
fn collect(from: PipeReader, output: &Mutex<String>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        output.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        line.clear();
    }
}
