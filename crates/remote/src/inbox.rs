//! Messages that have arrived and were not taken yet, and how a subscriber's thread and its reader pass them on.
//!
//! The one invariant that matters: **the end is told after everything that arrived before it.**

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use unisono_os::monitor::{lock, wait_until};
use unisono_os::poll::Waker;

/// Why no more messages come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The publisher said goodbye.
    Left,
    /// The connection ended, or nothing came over it any more: the publisher died, or its machine, or the way there.
    LinkLost,
    /// A message is missing, or a part of one.
    Lost {
        /// The number of the message that was to come, or to go on.
        expected: u64,
        /// The number of the one of which a part came.
        found: u64,
        /// The numbers of those parts, which are counted over all messages: the one that was to come, and the one that came.
        parts: (u64, u64),
    },
    /// Something arrived that is not tagged with the queue's key.
    Unauthentic,
    /// Something arrived that cannot be, though it was tagged with the key.
    Broken(&'static str),
}

/// What [`Subscriber::wait`](crate::Subscriber::wait) found.
#[derive(Debug)]
pub enum Found {
    /// The next message.
    Message(Vec<u8>),
    /// There are none, and no more will come.
    End(End),
    /// The caller's own reason to end the wait.
    Over,
    /// Nothing, in all the time.
    Nothing,
}

/// How much has come so far.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// How many messages have arrived, those before this subscriber's first included.
    pub messages: u64,
    /// When something of them, or the welcome, last arrived.
    pub last_arrival: Instant,
    /// How many bytes of the next message have arrived, and how many it has, if some have and it is not whole.
    pub message_begun: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Content {
    messages: VecDeque<Vec<u8>>,
    progress: Progress,
    is_complete: bool,
    end: Option<End>,
}

/// What a subscriber shares with its thread.
#[derive(Debug)]
pub(crate) struct Inbox {
    content: Mutex<Content>,
    changed: Condvar,
    /// How many messages are finished, those before this reader came included.
    finished: AtomicU64,
    /// Wakes the thread.
    pub(crate) waker: Waker,
}

impl Inbox {
    pub(crate) fn new(messages: u64, waker: Waker) -> Inbox {
        let progress = Progress { messages, last_arrival: Instant::now(), message_begun: None };
        let content = Content { messages: VecDeque::new(), progress, is_complete: false, end: None };
        Inbox {
            content: Mutex::new(content),
            changed: Condvar::new(),
            finished: AtomicU64::new(messages),
            waker,
        }
    }

    fn change(&self, act: impl FnOnce(&mut Content)) {
        act(&mut lock(&self.content));
        self.changed.notify_all();
    }

    pub(crate) fn deliver(&self, message: Vec<u8>) {
        self.change(|content| {
            content.messages.push_back(message);
            let messages = content.progress.messages + 1;
            content.progress = Progress { messages, last_arrival: Instant::now(), message_begun: None };
        });
    }

    /// So much of the next message has come, and so much it has. Nobody waits for that.
    pub(crate) fn has_begun(&self, here: u64, of: u64) {
        let progress = &mut lock(&self.content).progress;
        (progress.last_arrival, progress.message_begun) = (Instant::now(), Some((here, of)));
    }

    pub(crate) fn put_back(&self, message: Vec<u8>) {
        self.change(|content| content.messages.push_front(message));
    }

    pub(crate) fn progress(&self) -> Progress {
        lock(&self.content).progress
    }

    pub(crate) fn set_complete(&self) {
        self.change(|content| content.is_complete = true);
    }

    /// The first reason stands.
    pub(crate) fn end(&self, end: End) {
        self.change(|content| {
            content.end.get_or_insert(end);
        });
    }

    pub(crate) fn rouse(&self) {
        self.change(|_| ());
    }

    pub(crate) fn finish_one(&self) {
        self.finished.fetch_add(1, Ordering::Release);
        self.waker.wake();
    }

    /// Pairs with the release in `finish_one`.
    pub(crate) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Acquire)
    }

    /// The next message, or why there is none.
    pub(crate) fn wait(&self, timeout: Option<Duration>, is_over: impl Fn() -> bool) -> Found {
        self.wait_for(timeout, is_over, |content| content.messages.pop_front().map(Found::Message))
    }

    /// Until all readers have come.
    pub(crate) fn wait_until_complete(&self, timeout: Option<Duration>, is_over: impl Fn() -> bool) -> Found {
        self.wait_for(timeout, is_over, |content| content.is_complete.then(|| Found::Message(Vec::new())))
    }

    fn wait_for(
        &self,
        timeout: Option<Duration>,
        is_over: impl Fn() -> bool,
        mut look: impl FnMut(&mut Content) -> Option<Found>,
    ) -> Found {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut content = lock(&self.content);
        loop {
            if is_over() {
                return Found::Over;
            }
            if let Some(found) = look(&mut content) {
                return found;
            }
            if let Some(end) = &content.end {
                return Found::End(end.clone());
            }
            match until {
                Some(until) if Instant::now() >= until => return Found::Nothing,
                until => content = wait_until(&self.changed, content, until),
            }
        }
    }
}
