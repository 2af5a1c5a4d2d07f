//! The messages that some reader has not finished, and how they are cut into parts.
//!
//! Parts are numbered over all messages; a message has at least one. The one invariant that matters: **a message stays until
//! every reader for which it is kept has finished it**, so that whoever comes back gets it again.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use crate::frame::{Header, Kind, PART_BYTES};
use crate::key::{Key, Tag};

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    number: u64,
    /// The number of its first part, and how many bytes of messages there were before.
    first_part: u64,
    begins_at: u64,
    bytes: Vec<u8>,
    /// One for each part, made when it is sent for the first time.
    tags: Box<[OnceLock<Tag>]>,
}

impl Outgoing {
    fn parts(&self) -> u64 {
        self.tags.len() as u64
    }
}

/// One part of a message.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) number: u64,
    message: Arc<Outgoing>,
}

impl Part {
    fn index(&self) -> usize {
        (self.number - self.message.first_part) as usize
    }

    pub(crate) fn payload(&self) -> &[u8] {
        let bytes = &self.message.bytes;
        let from = self.index() * PART_BYTES;
        &bytes[from..bytes.len().min(from + PART_BYTES)]
    }

    pub(crate) fn header(&self, nonce: [u8; 16]) -> Header {
        let message = &self.message;
        let (offset, length) = ((self.index() * PART_BYTES) as u64, message.bytes.len() as u64);
        Header { kind: Kind::Data, nonce, part: self.number, message: message.number, offset, length }
    }

    pub(crate) fn tag(&self, key: &Key, header: Header) -> &Tag {
        self.message.tags[self.index()].get_or_init(|| header.tag(key, self.payload()))
    }
}

/// The messages that are kept, in order.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    kept: VecDeque<Arc<Outgoing>>,
    /// How many messages, parts and bytes there were in all.
    messages: u64,
    parts: u64,
    bytes: u64,
}

impl Backlog {
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn parts(&self) -> u64 {
        self.parts
    }

    pub(crate) fn push(&mut self, bytes: Vec<u8>) {
        let parts = bytes.len().div_ceil(PART_BYTES).max(1);
        let (number, first_part, begins_at) = (self.messages, self.parts, self.bytes);
        self.messages += 1;
        self.parts += parts as u64;
        self.bytes += bytes.len() as u64;
        let tags = (0..parts).map(|_| OnceLock::new()).collect();
        self.kept.push_back(Arc::new(Outgoing { number, first_part, begins_at, bytes, tags }));
    }

    /// Messages before this one are needed no more.
    pub(crate) fn forget_before(&mut self, message: u64) {
        while self.kept.front().is_some_and(|kept| kept.number < message) {
            self.kept.pop_front();
        }
    }

    pub(crate) fn part(&self, number: u64) -> Option<Part> {
        let after = self.kept.partition_point(|message| message.first_part <= number);
        let message = self.kept.get(after.checked_sub(1)?)?;
        (number < message.first_part + message.parts()).then(|| Part { number, message: Arc::clone(message) })
    }

    /// The first part of a message that is kept, or that comes next.
    pub(crate) fn first_part_of(&self, message: u64) -> u64 {
        self.find(message).map_or(self.parts, |message| message.first_part)
    }

    /// How many bytes of messages come from this one on.
    pub(crate) fn bytes_from(&self, message: u64) -> u64 {
        self.bytes - self.find(message).map_or(self.bytes, |message| message.begins_at)
    }

    /// How many bytes lie between two parts.
    pub(crate) fn bytes_between(&self, from: u64, to: u64) -> u64 {
        let at = |part: u64| match self.part(part) {
            Some(part) => part.message.begins_at + (part.index() * PART_BYTES) as u64,
            None => self.bytes,
        };
        at(to).saturating_sub(at(from))
    }

    /// How many messages the parts before this one complete.
    pub(crate) fn messages_before(&self, part: u64) -> u64 {
        self.part(part).map_or(self.messages, |part| part.message.number)
    }

    fn find(&self, message: u64) -> Option<&Arc<Outgoing>> {
        let first = self.kept.front()?.number;
        self.kept.get(usize::try_from(message.checked_sub(first)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_into_parts_and_kept_until_they_are_finished() {
        let mut backlog = Backlog::default();
        let lengths = [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES];
        lengths.iter().for_each(|length| backlog.push(vec![9; *length]));
        assert_eq!((backlog.messages(), backlog.parts()), (5, 1 + 1 + 1 + 2 + 3));
        let payloads: Vec<usize> = (0..8).map(|part| backlog.part(part).unwrap().payload().len()).collect();
        assert_eq!(payloads, [0, 1, PART_BYTES, PART_BYTES, 1, PART_BYTES, PART_BYTES, PART_BYTES]);
        let header = backlog.part(4).unwrap().header([1; 16]);
        assert_eq!(
            (header.message, header.offset, header.length),
            (3, PART_BYTES as u64, PART_BYTES as u64 + 1)
        );
        assert!(backlog.part(8).is_none());
        assert_eq!(backlog.bytes_from(4), 3 * PART_BYTES as u64);
        assert_eq!(backlog.bytes_between(0, 4), 1 + 2 * PART_BYTES as u64);
        backlog.forget_before(3);
        assert!(backlog.part(2).is_none() && backlog.part(3).is_some());
        assert_eq!((backlog.first_part_of(3), backlog.first_part_of(5)), (3, 8));
        assert_eq!((backlog.messages_before(5), backlog.messages_before(8)), (4, 5));
        assert_eq!((backlog.bytes_from(5), backlog.bytes_between(5, 8)), (0, 3 * PART_BYTES as u64));
    }
}
