//! How a subscriber comes in: it says hello, signs what the publisher answers, and is welcome or not.
//!
//! ```text
//!   subscriber                              publisher
//!     hello                                   ──►
//!                                             ◄──  challenge      signed: a publisher with another key is told from this
//!     join {rank, pid}, signed                ──►
//!                                             ◄──  welcome {part, message}   or   refused {why}
//!     ack {parts, messages}, signed           ──►  … it is ready, and parts come
//! ```
//!
//! A rank that is taken is asked for again until its reader would be missed, if it could not be reached any more.
//!
//! A publisher that cannot be sure of a hello's sender does not answer, so it is said again. The one invariant that
//! matters: **nothing is believed that was not signed for this session**, which was drawn here.

use std::time::{Duration, Instant};

use unisono_os::fault;

use crate::error::{Error, Result};
use crate::frame::{self, Doubt, Fields, FrameSet, Kind};
use crate::key::{Key, random};
use crate::link;
use crate::subscriber::Config;
use crate::word::{Session, Word, topic};

/// An answer is waited for so long, one after the other, and again from the start. The short ones are for a publisher that is
/// quiet for a moment, since it was too busy to answer the first; the long ones for one that is far away.
const PATIENCE_MS: [u64; 8] = [30, 60, 90, 500, 30, 60, 90, 2000];

/// A rank may be had by a reader that cannot be reached any more, as long as that is not noticed: it is asked for again, so often and
/// for so long.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
const MAY_SEEM_TAKEN_FOR: Duration = link::LOSS_IS_NOTICED_WITHIN.saturating_add(Duration::from_millis(500));

/// The connection of a subscriber that is in.
pub(crate) struct Link {
    pub(crate) socket: zmq::Socket,
    pub(crate) fate: zmq::Socket,
    pub(crate) key: Key,
    pub(crate) nonce: [u8; 16],
    pub(crate) session: Session,
    pub(crate) challenge: [u8; 16],
}

/// What a subscriber was told when it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    pub(crate) rank: u64,
    pub(crate) pid: u32,
    /// The numbers of the part and of the message that come first.
    pub(crate) part: u64,
    pub(crate) message: u64,
}

impl Link {
    pub(crate) fn say(&self, word: Word) -> zmq::Result<Vec<u8>> {
        let word = word.sign(self.session, &self.key, self.nonce, self.challenge);
        self.socket.set_subscribe(&word)?;
        Ok(word)
    }
}

/// Connect and come in.
pub(crate) fn come_in(
    context: &zmq::Context,
    config: &Config,
    deadline: Option<Instant>,
) -> Result<(Link, Admitted)> {
    let (socket, fate) = link::connecting(context, config.address)?;
    fault::reach("connecting");
    let (key, nonce) = (config.key.clone(), config.nonce);
    let mut link = Link { socket, fate, key, nonce, session: [0; 16], challenge: [0; 16] };
    let admitted = try_again_and_again(&mut link, config, deadline);
    if admitted.is_err() {
        // What was said to no avail is not to be waited for.
        link.socket.set_linger(0).map_err(Error::zmq("setting up a subscriber's socket"))?;
    }
    admitted.map(|admitted| (link, admitted))
}

fn try_again_and_again(link: &mut Link, config: &Config, deadline: Option<Instant>) -> Result<Admitted> {
    let start = Instant::now();
    let (mut taken, mut gives_up_at) = (None, None);
    for patience in PATIENCE_MS.into_iter().cycle().map(Duration::from_millis) {
        let until = Instant::now() + patience;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        match try_to_come_in(link, config, until) {
            Ok(Some(admitted)) => return Ok(admitted),
            Ok(None) => {}
            Err(error @ Error::Taken { .. }) => {
                taken = Some(error);
                let again_at = Instant::now() + ASK_AGAIN_AFTER;
                let gives_up_at = *gives_up_at.get_or_insert(again_at + MAY_SEEM_TAKEN_FOR);
                if again_at >= deadline.map_or(gives_up_at, |deadline| deadline.min(gives_up_at)) {
                    break;
                }
                std::thread::sleep(ASK_AGAIN_AFTER);
            }
            Err(error) => return Err(error),
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
    }
    Err(taken.unwrap_or(Error::NoAnswer { address: config.address, waited: start.elapsed() }))
}

/// One try, as a session of its own; `None` if there was no answer in time.
fn try_to_come_in(link: &mut Link, config: &Config, until: Instant) -> Result<Option<Admitted>> {
    let said = Error::zmq("speaking to a publisher");
    link.session = random()?;
    let hello = topic(link.session);
    link.socket.set_subscribe(&hello).map_err(Error::zmq("speaking to a publisher"))?;
    fault::reach("said hello");
    let give_up = |link: &Link| link.socket.set_unsubscribe(&hello).map(|()| None).map_err(said);
    let Some(answer) = answer(link, config, until)? else { return give_up(link) };
    let (Kind::Challenge, mut fields) = (answer.header.kind, fields_of(&answer, link)?) else {
        return give_up(link);
    };
    let Some(challenge) = fields.bytes() else { return give_up(link) };
    link.challenge = challenge;
    fault::reach("challenged");
    let join = Word::Join { rank: config.rank, pid: std::process::id() };
    link.say(join).map_err(Error::zmq("speaking to a publisher"))?;
    fault::reach("said join");
    let Some(answer) = self::answer(link, config, until)? else { return give_up(link) };
    let mut fields = fields_of(&answer, link)?;
    let refused =
        |problem: &str| Err(Error::Refused { address: config.address, problem: problem.to_string() });
    if fields.bytes() != Some(link.challenge) {
        return refused("it answered what was not asked");
    }
    match answer.header.kind {
        Kind::Welcome => {
            fault::reach("welcomed");
            let admitted = (|| {
                let (rank, pid) = (fields.number()?, fields.small()?);
                Some(Admitted { rank, pid, part: fields.number()?, message: fields.number()? })
            })();
            admitted.map_or_else(|| refused("its welcome is too short"), |admitted| Ok(Some(admitted)))
        }
        Kind::Refused => {
            // It may be asked for again, as another session.
            link.socket.set_unsubscribe(&hello).map_err(Error::zmq("speaking to a publisher"))?;
            let (code, pid) = (fields.small(), fields.small().unwrap_or(0));
            let text = String::from_utf8_lossy(fields.0).into_owned();
            match code {
                Some(1) => Err(Error::Taken { rank: config.rank, pid, at: text }),
                _ => refused(&text),
            }
        }
        _ => refused("it answered what was not asked"),
    }
}

/// What an answer has to say after the session, which must be this one.
fn fields_of<'a>(answer: &'a FrameSet, link: &Link) -> Result<Fields<'a>> {
    let mut fields = Fields(&answer.payload);
    // Only this session's topic is subscribed to, so anything else is the mistake of somebody who has the key.
    match fields.bytes() == Some(link.session) {
        true => Ok(fields),
        false => {
            Err(Error::System { doing: "coming in", problem: "an answer to somebody else came".to_string() })
        }
    }
}

/// The next believable frame set, if it comes in time.
fn answer(link: &Link, config: &Config, until: Instant) -> Result<Option<FrameSet>> {
    loop {
        let failed = Error::zmq("hearing a publisher");
        match frame::receive(&link.socket, &link.key, link.nonce).map_err(failed)? {
            Some(Ok(answer)) => return Ok(Some(answer)),
            Some(Err(Doubt::Key)) => return Err(Error::WrongKey { address: config.address }),
            Some(Err(Doubt::Shape)) => {
                let problem = "it is no queue's writer, or of another version".to_string();
                return Err(Error::Refused { address: config.address, problem });
            }
            None => {}
        }
        if link::has_ended(&link.fate) {
            let problem = link::why_unreachable(config.address);
            return Err(Error::Unreachable { address: config.address, problem });
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        link::wait(&[&link.socket, &link.fate], None, Some(until))
            .map_err(Error::zmq("hearing a publisher"))?;
    }
}
