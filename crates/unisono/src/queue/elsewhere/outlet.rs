//! The writer's outlet to readers elsewhere: what a queue asks of it, in the queue's words.

use std::time::{Duration, Instant};

use unisono_remote::{
    Key, Leftovers, Presence as Is, Publisher, PublisherConfig, ReaderState, Unfinished, Why, own_ip,
};

use super::{Plan, Room, Waited};
use crate::queue::error::{Error, Presence, ReaderStatus, Result, Role};
use crate::queue::hall::WhenGone;
use crate::queue::handle::Elsewhere;

/// How long a writer that leaves waits until readers elsewhere have what was sent. They need not have read it.
const LEAVING_TAKES: Duration = Duration::from_secs(30);

/// A writer's way to readers elsewhere.
#[derive(Debug)]
pub(in crate::queue) struct Outlet {
    publisher: Publisher,
    at: Elsewhere,
    policy: WhenGone,
    room: Room,
}

impl Outlet {
    /// Listen for readers from elsewhere.
    pub(in crate::queue) fn open(plan: Plan) -> Result<Outlet> {
        let failed = |error: unisono_remote::Error| Error::Elsewhere { problem: error.to_string() };
        let key = Key::random().map_err(failed)?;
        let config = PublisherConfig {
            key: key.clone(),
            nonce: plan.nonce,
            rank: plan.writer_rank as u64,
            readers: plan.ranks.iter().map(|rank| *rank as u64).collect(),
            ip: plan.ip.unwrap_or_else(own_ip),
            leftovers: match plan.policy {
                WhenGone::Fail => Leftovers::Told,
                WhenGone::GoOn => Leftovers::Forgotten,
                WhenGone::AwaitReturn => Leftovers::Kept,
            },
        };
        let publisher = Publisher::bind(config).map_err(failed)?;
        let at = Elsewhere::new(publisher.address(), key.to_bytes(), &plan.ranks);
        Ok(Outlet { publisher, at, policy: plan.policy, room: plan.room })
    }

    /// What its readers are to know.
    pub(in crate::queue) fn at(&self) -> Elsewhere {
        self.at.clone()
    }

    pub(in crate::queue) fn listen(&self, news: impl Fn() + Send + Sync + 'static) {
        self.publisher.listen(news);
    }

    pub(in crate::queue) fn send(&self, message: Vec<u8>) {
        self.publisher.send(message);
    }

    /// Wait until a message of `bytes` bytes may be sent, for at most `limit`, or until `is_over`.
    pub(in crate::queue) fn wait_for_room(
        &self,
        bytes: u64,
        limit: Duration,
        is_over: impl Fn() -> bool,
    ) -> Waited {
        let look = |behind: Unfinished| {
            if is_over() {
                return Some(Waited::Roused);
            }
            // Before the room, which may be there because a reader is not.
            if behind.is_troubled {
                return Some(Waited::SomebodyIsGone);
            }
            self.room.is_enough(bytes, behind).then_some(Waited::ThereIsRoom)
        };
        self.publisher.wait(Some(limit), look).unwrap_or(Waited::TimeIsUp)
    }

    /// Let the writer look again, if it waits.
    pub(in crate::queue) fn rouse(&self) {
        self.publisher.rouse();
    }

    /// Whether sending fails.
    pub(in crate::queue) fn is_troubled(&self) -> bool {
        self.publisher.is_troubled()
    }

    /// Why sending fails, if it does, for the writer to be told; see [`Publisher::take_trouble`].
    pub(in crate::queue) fn take_trouble(&self) -> Option<Error> {
        error_of(&self.publisher.take_trouble()?)
    }

    /// Readers that went with messages unread, of which the writer was not told; see [`Publisher::take_untold`].
    pub(in crate::queue) fn untold(&self) -> Vec<Error> {
        self.publisher.take_untold().iter().filter_map(error_of).collect()
    }

    /// Whether everybody has come and is ready; those without whom the queue goes on aside.
    pub(in crate::queue) fn is_complete(&self) -> bool {
        let may_lack = self.policy == WhenGone::GoOn;
        self.publisher.readers().iter().all(|reader| match reader.presence {
            Is::Present { is_ready } => is_ready,
            Is::Awaited => false,
            Is::Gone { .. } => may_lack,
        })
    }

    pub(in crate::queue) fn say_complete(&self) {
        self.publisher.say_complete();
    }

    pub(in crate::queue) fn statuses(&self) -> Vec<ReaderStatus> {
        self.publisher.readers().into_iter().map(status).collect()
    }

    /// Those that a wait for everybody waits for.
    pub(in crate::queue) fn missing(&self) -> Vec<ReaderStatus> {
        let is_missing = |reader: &ReaderState| reader.presence != Is::Present { is_ready: true };
        self.publisher.readers().into_iter().filter(is_missing).map(status).collect()
    }

    /// Those that a wait for room waits for.
    pub(in crate::queue) fn behind(&self) -> Vec<ReaderStatus> {
        self.statuses().into_iter().filter(|reader| reader.lag_messages > 0).collect()
    }

    /// Say goodbye, when every reader that is there has what was sent.
    pub(in crate::queue) fn close(&self) {
        self.publisher.close(LEAVING_TAKES);
    }
}

impl Room {
    /// Whether a message of `bytes` bytes may follow what is unread; a single one always may.
    fn is_enough(&self, bytes: u64, behind: Unfinished) -> bool {
        let most = if bytes <= self.small { self.bytes } else { self.bytes_of_any };
        let fits = behind.messages == 0 || behind.bytes.saturating_add(bytes) <= most;
        // A message without bytes takes some memory, too.
        let most_messages = self.messages.map_or(self.bytes / 8, |messages| messages as u64);
        fits && behind.messages < most_messages
    }
}

fn rank_of(reader: &ReaderState) -> usize {
    usize::try_from(reader.rank).unwrap_or(usize::MAX)
}

fn status(reader: ReaderState) -> ReaderStatus {
    let presence = match reader.presence {
        Is::Awaited => Presence::Awaited,
        Is::Present { .. } => Presence::Alive,
        Is::Gone { why: Why::Left, .. } => Presence::Left,
        Is::Gone { why: Why::LinkLost, .. } => Presence::Unreachable,
        Is::Gone { why: Why::Broken, .. } => Presence::Broken,
    };
    ReaderStatus {
        rank: rank_of(&reader),
        pid: reader.at.as_ref().map(|(pid, _)| *pid),
        presence,
        lag_messages: reader.lag_messages,
        lag_bytes: reader.lag_bytes,
        last_step: reader.last_step.map(|at| Instant::now().saturating_duration_since(at)),
        address: reader.at.map(|(_, address)| address),
    }
}

/// Why a reader is gone.
fn error_of(reader: &ReaderState) -> Option<Error> {
    let Is::Gone { why, .. } = reader.presence else { return None };
    let (role, rank) = (Role::Reader, rank_of(reader));
    let (pid, address) = reader.at.clone().unwrap_or_default();
    Some(match why {
        Why::Left => Error::PeerLeft { role, rank, pid },
        Why::LinkLost => Error::LinkLost { role, rank, pid, address },
        Why::Broken => Error::PeerBroken { role, rank, pid, problem: "said that it has what was not sent" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_by_bytes_and_by_messages_and_one_always_fits() {
        let room = Room { messages: Some(3), bytes: 100, small: 25, bytes_of_any: 1000 };
        let fits = |bytes, messages, behind| {
            room.is_enough(bytes, Unfinished { messages, bytes: behind, is_troubled: false })
        };
        assert!(fits(25, 2, 75) && !fits(25, 2, 76) && !fits(1, 3, 3));
        assert!(fits(26, 2, 974) && !fits(26, 2, 975));
        assert!(fits(5000, 0, 0) && !fits(5000, 1, 0));
        let unbounded = Room { messages: None, ..room };
        assert!(unbounded.is_enough(0, Unfinished { messages: 11, bytes: 0, is_troubled: false }));
        assert!(!unbounded.is_enough(0, Unfinished { messages: 12, bytes: 0, is_troubled: false }));
    }
}
