//! What a writer does when a message is on its way: it asks for the cache lines that the next one will be written to.
//!
//! Those lines lie in memory, or with the reader that read them last. Fetching them is what takes most of writing a
//! message, and a writer whose messages come one at a time can have it done before there is a next message: one of 4 KiB then takes
//! three quarters of the time to arrive (docs/performance.md). In a stream the next message is written at once, and asking ahead
//! gets in its way (it took a quarter of the speed at 1 KiB). So the writer asks the clock now and then how close its messages
//! follow one another.
//!
//! The invariant: it is a hint, and takes no more time than writing a message of that length would.

use std::time::{Duration, Instant};

use crate::memory::Target;

/// The clock is asked once in so many messages.
const MESSAGES_PER_LOOK: u32 = 128;
/// Messages that follow one another faster are a stream.
const STREAM: Duration = Duration::from_nanos(600);
/// At most so much is asked for: what lies beyond would push out what lies before.
const MOST: usize = 16 << 10;

/// How close a writer's messages follow one another.
#[derive(Debug)]
pub(super) struct Ahead {
    messages: u32,
    since: Instant,
    is_stream: bool,
}

impl Ahead {
    pub(super) fn new() -> Self {
        Ahead { messages: 0, since: Instant::now(), is_stream: false }
    }

    /// A message was sent. If the next one is not there yet, ask for the lines of `room`, where it will be if it is as long.
    #[inline]
    pub(super) fn prepare(&mut self, room: Target<'_>) {
        self.messages += 1;
        if self.messages == MESSAGES_PER_LOOK {
            self.look_at_the_clock();
        }
        if !self.is_stream {
            Self::ask_for(room);
        }
    }

    /// Out of the way of a stream.
    #[cold]
    #[inline(never)]
    fn ask_for(room: Target<'_>) {
        room.part(0, MOST).fetch_for_write();
    }

    #[cold]
    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        self.is_stream = now.duration_since(self.since) < STREAM * MESSAGES_PER_LOOK;
        (self.messages, self.since) = (0, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(ahead: &mut Ahead, messages: u32) {
        (0..messages).for_each(|_| ahead.prepare(Target::of::<u8>(&mut [0; 64])));
    }

    #[test]
    fn messages_that_come_at_once_are_a_stream_until_they_no_longer_do() {
        let mut ahead = Ahead::new();
        assert!(!ahead.is_stream, "the first message is none");
        ahead.since = Instant::now() + Duration::from_secs(60);
        send(&mut ahead, MESSAGES_PER_LOOK);
        assert!(ahead.is_stream, "no time has passed");
        ahead.since = Instant::now() - STREAM * MESSAGES_PER_LOOK;
        send(&mut ahead, MESSAGES_PER_LOOK - 1);
        assert!(ahead.is_stream, "the clock was not asked yet");
        send(&mut ahead, 1);
        assert!(!ahead.is_stream);
    }
}
