"""What can go wrong, as exceptions. Each has the fields of the library's error, whose text it carries."""

from __future__ import annotations

import builtins
from typing import Any, NamedTuple


class LastOperation(NamedTuple):
    """What a rank did last, as the others can see it."""

    number: int
    """The number of the call, counted from 1 per communicator."""
    call: str
    """The call, with its type, count and root."""
    finished: bool
    """Whether the rank came out of it again."""


class PeerStatus(NamedTuple):
    """What is known of a rank."""

    rank: int
    pid: int
    alive: bool
    last: LastOperation | None


class Error(RuntimeError):
    """Everything that the library can say. Its classes name the fields that they have."""

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.__dict__.update(fields)


class InvalidArgument(Error, ValueError):
    """An argument makes no sense. Nothing was published; the communicator is as it was."""

    operation: str


class TimeoutError(Error, builtins.TimeoutError):
    """The deadline passed while ranks were missing: they are stopped, endlessly busy, or never made the call."""

    operation: str
    call: str
    number: int
    waited: float
    peers: list[PeerStatus]
    reported_by: int | None
    terminal: bool


class PeerDied(Error):
    """A rank's process died."""

    rank: int
    pid: int
    last: LastOperation | None
    operation: str
    call: str
    number: int
    reported_by: int | None


class PeerLeft(Error):
    """A rank that is still needed has left the communicator. If a send or recv of which nothing had moved needed it, nobody else
    is stopped by it (`terminal` is false)."""

    rank: int
    pid: int
    operation: str
    call: str
    number: int
    terminal: bool


class Mismatch(Error):
    """Ranks made different calls."""

    rank: int
    peer: int
    theirs: str
    operation: str
    call: str
    number: int


class Aborted(Error):
    """Somebody called `abort`, or was interrupted."""

    by: int | None
    operation: str
    call: str
    number: int


class Interrupted(Error):
    """A signal's handler raised during the wait; the cause of what it raised, and what later calls raise."""

    operation: str
    terminal: bool


class Busy(Error, builtins.TimeoutError):
    """Another thread, or an operation that was started before, took as long as this call may wait."""

    operation: str
    waited: float


class Closed(Error):
    """The communicator was closed on this rank."""

    operation: str


class Forked(Error):
    """This process is a forked child of the one that made the communicator, which does not survive fork."""

    operation: str
    parent: int


class RendezvousError(Error):
    """The ranks could not find one another."""

    group: str
    problem: str
    missing: list[int]


class SettingError(Error, ValueError):
    """A setting or environment variable makes no sense, or does not fit the others."""

    name: str
    value: str
    problem: str


class OutOfMemory(Error, MemoryError):
    """More memory is needed than may still be had. Both in bytes."""

    needed: int
    available: int
    limited_by: str


class DeviceError(Error):
    """A GPU's driver refused, or is not there. `call` is what was asked of it, if it was asked."""

    call: str


class Overdue(DeviceError, builtins.TimeoutError):
    """A kernel waited for a peer for longer than it was told to. What it and its peers computed is worth nothing."""

    rank: int
    """Who waited."""
    peer: int
    """For whom."""
    block: int
    flag: int
    """The index of the word that it waited for."""
    expected: int
    found: int
    waited: float


class NotAvailable(DeviceError, NotImplementedError):
    """This build does not have it."""
