"""What can go wrong with a message queue, as exceptions. Each has the fields of the library's error, whose text it carries.

A time-out, a cancelled wait and an argument error change nothing: the next call goes on.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from . import _errors
from ._errors import Busy, Error, Forked, InvalidArgument, PeerDied, PeerLeft

Role = Literal["writer", "reader"]
Presence = Literal["awaited", "alive", "left", "dead", "broken", "unreachable", "unknown"]


class ReaderStatus(NamedTuple):
    """One reader, as its writer sees it."""

    rank: int
    pid: int | None
    """Its process, once one has claimed the rank."""
    presence: Presence
    lag_messages: int
    """Messages that it has not finished with."""
    lag_bytes: int
    """Bytes of the ring that it keeps occupied."""
    last_step: float | None
    """How many seconds ago it finished a message or came in."""
    address: str | None
    """Where it is, if it is elsewhere."""


class WriterStatus(NamedTuple):
    """The writer, as one that is waited for."""

    rank: int
    pid: int
    messages: int
    """How many it has written; of one elsewhere, how many of them have arrived."""
    address: str | None
    last_step: float | None


class QueueError(Error):
    """Everything that a queue can say."""


class QueueInvalidArgument(QueueError, InvalidArgument):
    """An argument makes no sense."""


class QueueTimeout(QueueError, _errors.TimeoutError):
    """The time passed. A writer's names every reader that is too far behind, a reader's its writer."""

    readers: list[ReaderStatus]
    writer: WriterStatus | None


class QueuePeerDied(QueueError, PeerDied):
    """The other side's process died. What it had written before was read first."""

    role: Role


class QueuePeerLeft(QueueError, PeerLeft):
    """The other side said goodbye. What it had written before was read first."""

    role: Role


class QueuePeerBroken(QueueError):
    """The other side wrote what it never may, and is listened to no more."""

    role: Role
    rank: int
    pid: int
    problem: str


class QueueLinkLost(QueueError):
    """The other side, on another machine, cannot be reached any more."""

    role: Role
    rank: int
    pid: int
    address: str


class QueueLost(QueueError):
    """A message from another machine is missing."""

    expected: int
    found: int
    parts: tuple[int, int]


class QueueMalformed(QueueError, ValueError):
    """A message is not what `enqueue` makes. It was taken."""

    number: int


class QueueRankTaken(QueueError):
    """Another process reads under this rank."""

    rank: int
    pid: int


class QueueUnknownRank(QueueError, ValueError):
    """The handle has no such rank."""

    rank: int
    ranks: list[int]


class QueueMeeting(QueueError):
    """The writer that the handle speaks of could not be met."""

    queue: str
    problem: str


class QueueHandleError(QueueError, ValueError):
    """The handle is of another version, or damaged."""

    problem: str


class QueueElsewhere(QueueError):
    """Readers elsewhere cannot be served, or reached."""

    problem: str


class QueueUndelivered(QueueError):
    """The memory of a large message did not reach this process."""

    operation: str
    problem: str


class QueueCancelled(QueueError):
    """The wait was cancelled from another thread. The next call goes on."""

    operation: str


class QueueShutDown(QueueError):
    """This side was shut down, here."""

    operation: str


class QueueForked(QueueError, Forked):
    """This process is a forked child of the one that has the queue, which does not survive fork."""


class QueueClosed(QueueError):
    """This side was closed, here."""

    operation: str


class QueueHeld(QueueError):
    """The last message or slot of this side is still held."""

    operation: str


class QueueBusy(QueueError, Busy):
    """Another thread's call took as long as this one may wait."""
