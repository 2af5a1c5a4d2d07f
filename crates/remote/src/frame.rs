//! What a publisher says: frame sets of four frames, each tagged with the queue's key.
//!
//! ```text
//!   frame 0   topic     the subscription under which the reader said hello
//!   frame 1   header    64 bytes, little-endian
//!   frame 2   payload   up to 256 KiB
//!   frame 3   tag       HMAC-SHA256(key, header ++ payload), 32 bytes
//!
//!   header    0   "unisono", 1          what this is, and its version
//!             8   kind                  1 challenge, 2 welcome, 3 refused, 4 complete, 5 data, 6 end; seven zeros
//!             16  nonce                 the queue's, from its handle
//!             32  part                  the number of this part (data, end)
//!             40  message               the number of the message that it belongs to (data, end)
//!             48  offset                where in the message the payload lies
//!             56  length                of the whole message
//! ```
//!
//! The one invariant that matters: **nothing of a frame set is believed before its tag is checked**, and then its numbers
//! are still bounded by its length.

use crate::key::{Key, Tag};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;
/// Most bytes of a message in one frame set.
pub const PART_BYTES: usize = 256 << 10;
const MAGIC: [u8; 8] = *b"unisono\x01";
/// Longest topic that is listened to.
const LONGEST_TOPIC: usize = 64;

/// What a frame set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Sixteen bytes that whoever wants to come in has to sign.
    Challenge = 1,
    /// A reader is in.
    Welcome,
    /// A reader is not let in.
    Refused,
    /// All readers have come.
    Complete,
    /// A part of a message.
    Data,
    /// There are no more messages.
    End,
}

/// A frame set's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) nonce: [u8; 16],
    pub(crate) part: u64,
    pub(crate) message: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Header {
    /// A header without numbers.
    pub(crate) fn of(kind: Kind, nonce: [u8; 16]) -> Header {
        Header { kind, nonce, part: 0, message: 0, offset: 0, length: 0 }
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = self.kind as u8;
        bytes[16..32].copy_from_slice(&self.nonce);
        for (at, number) in [self.part, self.message, self.offset, self.length].into_iter().enumerate() {
            bytes[32 + 8 * at..][..8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Header> {
        if bytes.len() != HEADER_BYTES || bytes[..8] != MAGIC || bytes[9..16] != [0; 7] {
            return None;
        }
        let kind = match bytes[8] {
            1 => Kind::Challenge,
            2 => Kind::Welcome,
            3 => Kind::Refused,
            4 => Kind::Complete,
            5 => Kind::Data,
            6 => Kind::End,
            _ => return None,
        };
        let mut fields = Fields(&bytes[16..]);
        let (nonce, part, message) = (fields.bytes()?, fields.number()?, fields.number()?);
        Some(Header { kind, nonce, part, message, offset: fields.number()?, length: fields.number()? })
    }

    pub(crate) fn tag(self, key: &Key, payload: &[u8]) -> Tag {
        key.tag(&[&self.to_bytes(), payload])
    }
}

/// What came in place of a believable frame set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It is none.
    Shape,
    /// Its tag is not made with this key, or it is another queue's.
    Key,
}

/// A frame set that is believed.
#[derive(Debug)]
pub(crate) struct FrameSet {
    pub(crate) header: Header,
    pub(crate) payload: zmq::Message,
}

/// Take the next frame set from a socket, if there is one, and check it.
pub(crate) fn receive(
    socket: &zmq::Socket,
    key: &Key,
    nonce: [u8; 16],
) -> zmq::Result<Option<Result<FrameSet, Doubt>>> {
    let first = match socket.recv_msg(zmq::DONTWAIT) {
        Ok(first) => first,
        Err(zmq::Error::EAGAIN) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut frames = Vec::with_capacity(3);
    let (mut more, mut count) = (first.get_more(), 1);
    while more {
        // Frames of one set arrive all at once.
        let frame = socket.recv_msg(0)?;
        (more, count) = (frame.get_more(), count + 1);
        if frames.len() < 3 {
            frames.push(frame);
        }
    }
    let Ok([header, payload, tag]) = <[zmq::Message; 3]>::try_from(frames) else {
        return Ok(Some(Err(Doubt::Shape)));
    };
    if count != 4 || first.len() > LONGEST_TOPIC || payload.len() > PART_BYTES {
        return Ok(Some(Err(Doubt::Shape)));
    }
    let Some(parsed) = Header::from_bytes(&header) else { return Ok(Some(Err(Doubt::Shape))) };
    let is_believed = parsed.nonce == nonce && key.is_tag_of(&tag, &[&header, &payload]);
    Ok(Some(if is_believed { Ok(FrameSet { header: parsed, payload }) } else { Err(Doubt::Key) }))
}

/// Send a frame set; `false` if its reader has no room.
pub(crate) fn send(
    socket: &zmq::Socket,
    topic: &[u8],
    header: Header,
    payload: &[u8],
    tag: &Tag,
) -> zmq::Result<bool> {
    match socket.send(topic, zmq::SNDMORE | zmq::DONTWAIT) {
        Ok(()) => {}
        Err(zmq::Error::EAGAIN) => return Ok(false),
        Err(error) => return Err(error),
    }
    socket.send(&header.to_bytes()[..], zmq::SNDMORE)?;
    socket.send(payload, zmq::SNDMORE)?;
    socket.send(&tag[..], 0)?;
    Ok(true)
}

/// Takes fields from the front of a stretch of bytes, as long as there are any.
#[derive(Debug)]
pub(crate) struct Fields<'b>(pub(crate) &'b [u8]);

impl Fields<'_> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub(crate) fn small(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_arrives_as_it_was_sent_and_damage_is_none() {
        let header = Header { kind: Kind::Data, nonce: [3; 16], part: 7, message: 5, offset: 9, length: 11 };
        let bytes = header.to_bytes();
        assert_eq!(Header::from_bytes(&bytes), Some(header));
        for (at, value) in [(0, b'U'), (7, 2), (8, 0), (8, 7), (12, 1)] {
            let mut other = bytes;
            other[at] = value;
            assert_eq!(Header::from_bytes(&other), None, "byte {at}");
        }
        assert_eq!(Header::from_bytes(&bytes[..63]), None);
    }
}
