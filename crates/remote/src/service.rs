//! The publisher's thread: it hears what readers say and sends what they have room for.
//!
//! It sleeps in the kernel on its socket and its waker. The one invariant that matters: **this thread alone uses the
//! socket**, and a reader is believed only after it has signed the challenge that was drawn for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use unisono_os::fault;
use unisono_os::seldom::Seldom;

use crate::frame::{self, Header, Kind};
use crate::key::random;
use crate::link;
use crate::manual;
use crate::publisher::Shared;
use crate::roster::{Refusal, Welcome};
use crate::state::Why;
use crate::word::{self, Session, Word};

/// So many may have said hello and not yet joined; who comes first is forgotten first, and says hello again.
const MOST_STRANGERS: usize = 64;
/// So many words are heard before messages are sent again.
const MOST_WORDS_AT_ONCE: usize = 256;

/// Among the words of busy readers a hello's sender cannot be told for certain. Then nothing is sent for so long, so that they
/// fall silent and the hello can be said again; but not all the time, whoever says it.
const QUIET_FOR: Duration = Duration::from_millis(250);
const QUIET_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How often it is said in the log that somebody does not have the key.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// The first byte of what an XPUB socket receives.
const UNSUBSCRIBED: u8 = 0;
const SUBSCRIBED: u8 = 1;

/// Somebody who said hello and was challenged.
#[derive(Debug)]
struct Stranger {
    session: Session,
    challenge: [u8; 16],
}

/// What the thread has.
pub(crate) struct Service {
    socket: zmq::Socket,
    shared: Arc<Shared>,
    strangers: VecDeque<Stranger>,
    /// Joins that were not signed with the queue's key: anybody in the network may say one.
    unsigned: Seldom,
    /// When it was last decided to be quiet.
    quiet_since: Option<Instant>,
    /// Ends after the socket.
    _context: zmq::Context,
}

impl Service {
    pub(crate) fn new(context: zmq::Context, socket: zmq::Socket, shared: Arc<Shared>) -> Service {
        let (strangers, unsigned) = (VecDeque::new(), Seldom::every(COMPLAIN_EVERY));
        Service { socket, shared, strangers, unsigned, quiet_since: None, _context: context }
    }

    /// The thread's life, until everybody has everything after the end, or may not take longer.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.serve() {
            tracing::error!(%error, "a queue cannot reach its readers elsewhere any more");
            self.shared.change(|roster| roster.lose_all());
            self.shared.tell();
        }
    }

    fn serve(&mut self) -> zmq::Result<()> {
        loop {
            let closing_until = self.shared.closing_until();
            let is_over = closing_until.is_some_and(|until| Instant::now() >= until)
                || closing_until.is_some() && self.shared.look(|roster| roster.all_is_received());
            if is_over {
                return Ok(());
            }
            let until = [closing_until, self.quiet_until()].into_iter().flatten().min();
            link::wait(&[&self.socket], Some(&self.shared.waker), until)?;
            self.shared.waker.drain();
            let mut is_news = false;
            for _ in 0..MOST_WORDS_AT_ONCE {
                match self.socket.recv_msg(zmq::DONTWAIT) {
                    Ok(word) => is_news |= self.hear(word)?,
                    Err(zmq::Error::EAGAIN) => break,
                    Err(error) => return Err(error),
                }
            }
            if self.quiet_until().is_none() {
                self.send_what_is_due()?;
            }
            if is_news {
                self.shared.tell();
            }
        }
    }

    /// Somebody subscribed or unsubscribed. Says whether a reader came, is ready, or went.
    fn hear(&mut self, mut heard: zmq::Message) -> zmq::Result<bool> {
        let (word, session) = match heard.split_first() {
            Some((&UNSUBSCRIBED, topic)) => {
                let Some((Word::Hello, session)) = Word::read(topic) else { return Ok(false) };
                return Ok(self.has_gone(session, Why::LinkLost));
            }
            Some((&SUBSCRIBED, topic)) => match Word::read(topic) {
                Some(read) => read,
                None => return Ok(false), // No reader of ours; it hears nothing.
            },
            _ => return Ok(false),
        };
        let address = heard.gets("Peer-Address").unwrap_or("an unknown address").to_string();
        match word {
            Word::Hello => self.challenge(session).map(|()| false),
            Word::Join { rank, pid } => self.join(session, rank, pid, address, &heard[1..]),
            Word::Ack { parts, messages } => Ok(self.acknowledge(session, parts, messages, &heard[1..])),
            Word::Goodbye => {
                let is_signed = self.is_signed(session, &heard[1..]);
                Ok(is_signed && self.has_gone(session, Why::Left))
            }
        }
    }

    /// A stranger's hello: give it something to sign, if it can be let hear that at all. If not, it asks again.
    fn challenge(&mut self, session: Session) -> zmq::Result<()> {
        let is_known = self.strangers.iter().any(|stranger| stranger.session == session)
            || self.shared.look(|roster| roster.find(session).is_some());
        if is_known {
            return Ok(());
        }
        fault::reach("heard hello");
        if !manual::grant(&self.socket, &word::topic(session))? {
            self.be_quiet();
            return Ok(());
        }
        let challenge = match random() {
            Ok(challenge) => challenge,
            Err(error) => {
                tracing::error!(%error, "a reader was not let in");
                return Ok(());
            }
        };
        if self.strangers.len() == MOST_STRANGERS {
            self.strangers.pop_front();
        }
        self.strangers.push_back(Stranger { session, challenge });
        self.answer(session, Kind::Challenge, &[&session, &challenge])?;
        fault::reach("sent challenge");
        Ok(())
    }

    fn be_quiet(&mut self) {
        let now = Instant::now();
        if self.quiet_since.is_none_or(|since| now >= since + QUIET_AGAIN_AFTER) {
            self.quiet_since = Some(now);
        }
    }

    /// Until when nothing is sent.
    fn quiet_until(&self) -> Option<Instant> {
        self.quiet_since.map(|since| since + QUIET_FOR).filter(|until| Instant::now() < *until)
    }

    /// A stranger signed its challenge, or claims so.
    fn join(
        &mut self,
        session: Session,
        rank: u64,
        pid: u32,
        address: String,
        word: &[u8],
    ) -> zmq::Result<bool> {
        let Some(at) = self.strangers.iter().position(|stranger| stranger.session == session) else {
            return Ok(false);
        };
        let Some(Stranger { challenge, .. }) = self.strangers.remove(at) else { return Ok(false) };
        let config = &self.shared.config;
        if !Word::is_signed(word, &config.key, config.nonce, challenge) {
            if let Some(times) = self.unsigned.note(Instant::now()) {
                tracing::warn!(
                    rank,
                    address,
                    times,
                    "a reader was turned away: it does not have the queue's key"
                );
            }
            return Ok(false);
        }
        fault::reach("heard join");
        let joined = self.shared.change(|roster| roster.join(rank, session, challenge, pid, address.clone()));
        match joined {
            Ok(Welcome { part, message }) => {
                let own_pid = std::process::id().to_le_bytes();
                let (rank, part, message) =
                    (config.rank.to_le_bytes(), part.to_le_bytes(), message.to_le_bytes());
                self.answer(
                    session,
                    Kind::Welcome,
                    &[&session, &challenge, &rank, &own_pid, &part, &message],
                )?;
                fault::reach("sent welcome");
                Ok(true)
            }
            Err(refusal) => {
                // One that asks for a taken rank asks again and again, and says so itself in the end.
                if matches!(refusal, Refusal::Taken { .. }) {
                    tracing::debug!(rank, address, ?refusal, "a reader was turned away");
                } else {
                    tracing::warn!(rank, address, ?refusal, "a reader was turned away");
                }
                let (code, pid, text) = match refusal {
                    Refusal::Taken { pid, address } => (1u32, pid, address),
                    Refusal::UnknownRank => (2, 0, format!("there is no reader of rank {rank} elsewhere")),
                    Refusal::Closing => (3, 0, "the queue has ended".to_string()),
                };
                let (code, pid) = (code.to_le_bytes(), pid.to_le_bytes());
                self.answer(session, Kind::Refused, &[&session, &challenge, &code, &pid, text.as_bytes()])?;
                Ok(false)
            }
        }
    }

    /// Says whether its reader has room for it. Whoever comes in and has none asks again, with another hello.
    fn answer(&self, session: Session, kind: Kind, fields: &[&[u8]]) -> zmq::Result<bool> {
        self.say(session, Header::of(kind, self.shared.config.nonce), &fields.concat())
    }

    fn say(&self, session: Session, header: Header, payload: &[u8]) -> zmq::Result<bool> {
        let tag = header.tag(&self.shared.config.key, payload);
        frame::send(&self.socket, &word::topic(session), header, payload, &tag)
    }

    fn acknowledge(&mut self, session: Session, parts: u64, messages: u64, word: &[u8]) -> bool {
        if !self.is_signed(session, word) {
            return false;
        }
        fault::reach("heard ack");
        match self.shared.change(|roster| roster.acknowledge(session, parts, messages)) {
            Ok(is_news) => is_news,
            Err(why) => self.has_gone(session, why),
        }
    }

    fn is_signed(&self, session: Session, word: &[u8]) -> bool {
        let challenge = self.shared.look(|roster| roster.find(session).map(|present| present.challenge));
        let config = &self.shared.config;
        challenge.is_some_and(|challenge| Word::is_signed(word, &config.key, config.nonce, challenge))
    }

    fn has_gone(&mut self, session: Session, why: Why) -> bool {
        self.strangers.retain(|stranger| stranger.session != session);
        self.shared.change(|roster| roster.has_gone(session, why))
    }

    /// Send to each reader what it has room for, in turn.
    fn send_what_is_due(&mut self) -> zmq::Result<()> {
        let (nonce, key) = (self.shared.config.nonce, &self.shared.config.key);
        for session in self.shared.look(|roster| roster.due_to_hear_of_completeness()) {
            if !self.answer(session, Kind::Complete, &[&session])? {
                // As with parts: it is said again after its next word.
                self.shared.look(|roster| roster.has_not_heard_of_completeness(session));
            }
        }
        let mut is_full = false;
        while !is_full {
            let due = self.shared.look(|roster| roster.due());
            if due.is_empty() {
                break;
            }
            for (session, part) in due {
                let header = part.header(nonce);
                let tag = part.tag(key, header);
                if !frame::send(&self.socket, &word::topic(session), header, part.payload(), tag)? {
                    // Its next word shows whether there is room; the others get theirs all the same.
                    self.shared.look(|roster| roster.put_back(session, part.number));
                    is_full = true;
                }
                fault::reach("sent part");
            }
        }
        if is_full {
            return Ok(());
        }
        let (parts, message) = self.shared.look(|roster| (roster.backlog.parts(), roster.backlog.messages()));
        for session in self.shared.look(|roster| roster.due_to_end()) {
            if !self.say(session, Header { part: parts, message, ..Header::of(Kind::End, nonce) }, &[])? {
                self.shared.look(|roster| roster.put_back(session, parts));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use unisono_os::poll::Waker;

    use super::*;
    use crate::key::Key;
    use crate::publisher::Config;
    use crate::state::Leftovers;

    /// A publisher whose socket takes next to nothing, moved by hand, and its only reader, which has its words said.
    struct Stage {
        service: Service,
        reader: zmq::Socket,
    }

    impl Stage {
        fn new() -> Stage {
            let context = zmq::Context::new();
            let mut publishing = context.socket(zmq::XPUB).unwrap();
            manual::let_in_by_hand(&mut publishing).unwrap();
            publishing.set_sndhwm(1).unwrap();
            publishing.bind("inproc://stage").unwrap();
            let reader = context.socket(zmq::SUB).unwrap();
            reader.set_rcvhwm(1).unwrap();
            reader.connect("inproc://stage").unwrap();
            let config = Config {
                key: Key::from_bytes([1; 32]),
                nonce: [2; 16],
                rank: 0,
                readers: vec![0],
                ip: std::net::Ipv4Addr::LOCALHOST.into(),
                leftovers: Leftovers::Told,
            };
            let shared = Arc::new(Shared::new(config, Waker::new().unwrap()));
            Stage { service: Service::new(context, publishing, shared), reader }
        }

        /// The reader says a word, and the publisher hears it.
        fn say(&mut self, word: &[u8]) {
            self.reader.set_subscribe(word).unwrap();
            let heard = self.service.socket.recv_msg(0).unwrap();
            self.service.hear(heard).unwrap();
        }

        /// The kinds of all that has come.
        fn kinds(&self) -> Vec<Kind> {
            let (key, nonce) = (Key::from_bytes([1; 32]), [2; 16]);
            let next = || frame::receive(&self.reader, &key, nonce).unwrap();
            std::iter::from_fn(next).map(|frames| frames.unwrap().header.kind).collect()
        }
    }

    #[test]
    fn what_there_was_no_room_for_is_said_later() {
        let mut stage = Stage::new();
        let (session, key) = ([3; 16], Key::from_bytes([1; 32]));
        stage.say(&word::topic(session));
        let challenge = stage.service.strangers[0].challenge;
        let sign = |word: Word| word.sign(session, &key, [2; 16], challenge);
        stage.say(&sign(Word::Join { rank: 0, pid: 7 }));
        assert_eq!(stage.kinds(), [Kind::Challenge, Kind::Welcome]);
        stage.say(&sign(Word::Ack { parts: 0, messages: 0 }));
        let shared = Arc::clone(&stage.service.shared);
        // As many parts as there is room for, and then all the rest.
        shared.change(|roster| (0..5).for_each(|_| roster.send(vec![9; 10])));
        stage.service.send_what_is_due().unwrap();
        shared.change(|roster| (roster.is_complete, roster.is_closing) = (true, true));
        let mut heard = Vec::new();
        while !shared.look(|roster| roster.all_is_received()) {
            stage.service.send_what_is_due().unwrap();
            let kinds = stage.kinds();
            assert!(!kinds.is_empty(), "nothing more comes after {heard:?}");
            heard.extend(kinds);
            let parts = heard.iter().filter(|kind| [Kind::Data, Kind::End].contains(kind)).count() as u64;
            stage.say(&sign(Word::Ack { parts, messages: parts.min(5) }));
        }
        assert!(heard.contains(&Kind::Complete), "{heard:?}");
        let in_order = heard.into_iter().filter(|kind| *kind != Kind::Complete).collect::<Vec<_>>();
        assert_eq!(in_order, [Kind::Data, Kind::Data, Kind::Data, Kind::Data, Kind::Data, Kind::End]);
    }
}
