//! What a reader says: words, sent as subscriptions, since that is all a SUB socket can say.
//!
//! ```text
//!   hello    "unisono1h" session[16]                                         asks for a challenge, and is the topic of the answers
//!   join     "unisono1j" session[16] rank[8] pid[4] tag[32]                   the challenge, signed
//!   ack      "unisono1a" session[16] parts[8] messages[8] tag[32]             so many parts received, so many messages finished
//!   goodbye  "unisono1b" session[16] tag[32]                                  the reader leaves
//!
//!   tag = HMAC-SHA256(key, the word before it ++ the queue's nonce ++ the challenge)
//! ```
//!
//! Numbers are little-endian. `session` is drawn by the reader, `challenge` by the publisher. The one invariant that
//! matters: **a word counts in its own session only**: the challenge in its tag was drawn for that.

use crate::frame::Fields;
use crate::key::{Key, TAG_BYTES};

pub(crate) type Session = [u8; 16];

const PREFIX: &[u8; 8] = b"unisono1";
/// No word is longer.
pub(crate) const LONGEST_WORD: usize = 128;

/// A word as it was read; its tag is still to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Hello,
    Join { rank: u64, pid: u32 },
    Ack { parts: u64, messages: u64 },
    Goodbye,
}

/// The topic of a session, which is its hello.
pub(crate) fn topic(session: Session) -> Vec<u8> {
    [&PREFIX[..], b"h", &session].concat()
}

impl Word {
    /// The word's bytes in its session.
    pub(crate) fn sign(self, session: Session, key: &Key, nonce: [u8; 16], challenge: [u8; 16]) -> Vec<u8> {
        let body = match self {
            Word::Hello => return topic(session),
            Word::Join { rank, pid } => {
                [&b"j"[..], &session, &rank.to_le_bytes(), &pid.to_le_bytes()].concat()
            }
            Word::Ack { parts, messages } => {
                [&b"a"[..], &session, &parts.to_le_bytes(), &messages.to_le_bytes()].concat()
            }
            Word::Goodbye => [&b"b"[..], &session].concat(),
        };
        let mut word = [&PREFIX[..], &body].concat();
        let tag = key.tag(&[&word, &nonce, &challenge]);
        word.extend(tag);
        word
    }

    /// What these bytes say, in which session.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Word, Session)> {
        let mut fields = Fields(bytes.strip_prefix(PREFIX)?);
        let [letter] = fields.bytes()?;
        let session = fields.bytes()?;
        let word = match letter {
            b'h' => return fields.0.is_empty().then_some((Word::Hello, session)),
            b'j' => Word::Join { rank: fields.number()?, pid: fields.small()? },
            b'a' => Word::Ack { parts: fields.number()?, messages: fields.number()? },
            b'b' => Word::Goodbye,
            _ => return None,
        };
        (fields.0.len() == TAG_BYTES).then_some((word, session))
    }

    /// Whether a word that was read is signed in the session of this challenge.
    pub(crate) fn is_signed(bytes: &[u8], key: &Key, nonce: [u8; 16], challenge: [u8; 16]) -> bool {
        let Some((word, tag)) = bytes.split_last_chunk::<TAG_BYTES>() else { return false };
        key.is_tag_of(tag, &[word, &nonce, &challenge])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_were_said_and_count_in_their_session_only() {
        let (key, nonce, challenge) = (Key::from_bytes([1; 32]), [2; 16], [3; 16]);
        let words = [
            Word::Hello,
            Word::Join { rank: 5, pid: 6 },
            Word::Ack { parts: u64::MAX, messages: 1 },
            Word::Goodbye,
        ];
        for word in words {
            let bytes = word.sign([4; 16], &key, nonce, challenge);
            assert_eq!(Word::read(&bytes), Some((word, [4; 16])));
            assert!(bytes.len() <= LONGEST_WORD);
            (0..bytes.len()).for_each(|cut| assert_eq!(Word::read(&bytes[..cut]), None, "{cut} bytes"));
            if word != Word::Hello {
                assert!(Word::is_signed(&bytes, &key, nonce, challenge));
                assert!(!Word::is_signed(&bytes, &key, nonce, [9; 16]));
                assert!(!Word::is_signed(&bytes, &Key::from_bytes([9; 32]), nonce, challenge));
            }
        }
    }
}
