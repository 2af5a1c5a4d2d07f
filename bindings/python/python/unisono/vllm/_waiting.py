"""Long waits of a queue: they are told in the log, with whom they are for, and may be ended by an event.

What waits is the library; this divides its wait into stretches. The one invariant that matters: **a time-out counts once**, over all
stretches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

from .._queue_errors import QueueShutDown, QueueTimeout

T = TypeVar("T")

LOOK_EVERY = 0.01
"""How often an event is looked at, in seconds."""
_SHORTEST = 0.001


def go_on(
    attempt: Callable[[float | None], T],
    problem: QueueTimeout | QueueShutDown,
    timeout: float | None,
    interval: float | None,
    warn: Callable[[QueueTimeout], None],
    cancel: Event | None,
) -> T:
    """What `attempt(seconds)` gives, after a first attempt that ended in `problem`.

    `warn` is called every `interval` seconds, with what the wait is for.
    """
    if isinstance(problem, QueueShutDown):
        raise _cancelled(problem) from problem
    begun = time.monotonic() - problem.waited
    warned = 1
    while True:
        waited = time.monotonic() - begun
        if cancel is not None and cancel.is_set():
            raise RuntimeError("cancelled")
        if interval is not None and waited >= interval * warned:
            warn(problem)
            warned += 1
        if timeout is not None and waited >= timeout:
            raise problem
        stretches = [] if timeout is None else [timeout - waited]
        if cancel is not None:
            stretches.append(LOOK_EVERY)
        if interval is not None:
            stretches.append(max(interval * warned - waited, _SHORTEST))
        try:
            return attempt(min(stretches, default=None))
        except QueueShutDown as end:
            raise _cancelled(end) from end
        except QueueTimeout as later:
            problem = _in_all(later, time.monotonic() - begun)


def _in_all(problem: QueueTimeout, waited: float) -> QueueTimeout:
    """As the library would have said it of the whole wait instead of its last stretch."""
    _, _, whom = str(problem).partition(" waiting for ")
    problem.waited = waited
    problem.args = (f"{problem.operation} timed out after {waited:.1f}s waiting for {whom}",)
    return problem


def _cancelled(end: QueueShutDown) -> QueueShutDown:
    return QueueShutDown("cancelled", operation=end.operation)


@contextmanager
def as_cancelled() -> Iterator[None]:
    """Say `cancelled` where this side was shut down."""
    try:
        yield
    except QueueShutDown as end:
        raise _cancelled(end) from end
