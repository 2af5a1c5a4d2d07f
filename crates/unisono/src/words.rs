//! Words between processes over a socket: typed, one per message, within a length.
//!
//! Ranks that meet, a queue and its readers, and whoever asks how things stand, each have a language: an enum whose variants
//! are its messages, in an order that is the format. The one invariant that matters: **what cannot be understood is a message, too**,
//! one of that language which says so, so that nobody has to treat garbage apart from a refusal.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use unisono_os::socket::{Connection, Message as Packet, Received, SocketError};

/// A language that two processes speak over a socket.
pub(crate) trait Language: Serialize + DeserializeOwned {
    /// Longer messages are neither sent nor received.
    const LONGEST: usize;

    /// What stands for a message that is none, for this reason.
    fn not_understood(problem: String) -> Self;
}

/// Send a message, with descriptors.
pub(crate) fn send<Message: Language>(
    connection: &Connection,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<(), SocketError> {
    let too_long = || SocketError::MessageTooLong { allowed: Message::LONGEST };
    let bytes = postcard::to_stdvec(message).map_err(|_| too_long())?;
    if bytes.len() > Message::LONGEST {
        return Err(too_long());
    }
    connection.send(&bytes, descriptors, deadline)
}

/// Receive a message; `None` if the other side has gone.
pub(crate) fn receive<Message: Language>(
    connection: &Connection,
    deadline: Option<Instant>,
) -> Result<Option<(Message, Packet)>, SocketError> {
    match connection.receive(Message::LONGEST, deadline)? {
        Received::Closed => Ok(None),
        Received::Message(packet) => {
            let message = postcard::from_bytes(&packet.bytes).unwrap_or_else(|error| {
                Message::not_understood(format!(
                    "sent a message that cannot be understood ({error}): is it another version of unisono?"
                ))
            });
            Ok(Some((message, packet)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Word {
        Text(String),
        Garbled,
    }

    impl Language for Word {
        const LONGEST: usize = 16;

        fn not_understood(_problem: String) -> Self {
            Word::Garbled
        }
    }

    #[test]
    fn a_message_arrives_as_it_was_sent_and_garbage_as_a_message_that_says_so() {
        let (here, there) = Connection::pair().unwrap();
        let now = Some(Instant::now());
        send(&here, &Word::Text("hello".to_string()), &[], now).unwrap();
        here.send(&[7; 9], &[], now).unwrap();
        let heard = || receive::<Word>(&there, now).unwrap().unwrap().0;
        assert_eq!([heard(), heard()], [Word::Text("hello".to_string()), Word::Garbled]);
        let long = Word::Text("x".repeat(Word::LONGEST));
        assert!(matches!(send(&here, &long, &[], now), Err(SocketError::MessageTooLong { .. })));
        drop(here);
        assert!(receive::<Word>(&there, now).unwrap().is_none());
    }
}
