"""Handles on operations, as torch wants them: what was started, what is left to do when it is over, and a future of it."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist


class Handle(Protocol):
    """Something that is waited for: the library's `Work`, or a transfer's."""

    def wait(self, timeout: float | None = None) -> Any: ...

    def done(self) -> bool: ...


class Work(dist.Work):
    """Operations that were started together.

    `finish` is what is left to do with their results, such as copying them to tensors that are not contiguous; whoever
    waits first does it.
    """

    def __init__(
        self,
        handles: Sequence[Handle],
        tensors: list[torch.Tensor],
        finish: Callable[[], None] | None = None,
        source: Callable[[], int] | None = None,
    ) -> None:
        super().__init__()
        self._handles = handles
        self._tensors = tensors
        self._finish = finish
        self._source = source
        self._lock = threading.Lock()
        self._problem: BaseException | None = None
        self._future: torch.futures.Future[list[torch.Tensor]] | None = None

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Returns once the results are there. Raises what went wrong."""
        seconds = timeout.total_seconds() if timeout is not None else 0.0
        try:
            for handle in self._handles:
                # torch's own default, no time at all, means the operation's.
                handle.wait(seconds if seconds > 0 else None)
        except BaseException as problem:
            # Who lost patience, or was interrupted, may wait again.
            if self.is_completed():
                self._problem = problem
            raise
        with self._lock:
            finish, self._finish = self._finish, None
            if finish is not None:
                finish()
        return True

    def is_completed(self) -> bool:
        return all(handle.done() for handle in self._handles)

    def is_success(self) -> bool:
        return self.is_completed() and self.exception() is None

    def exception(self) -> BaseException | None:
        if self._problem is None and self.is_completed():
            try:
                self.wait()
            except Exception as problem:
                return problem
        return self._problem

    def result(self) -> list[torch.Tensor]:
        self.wait()
        return self._tensors

    def synchronize(self) -> None:
        self.wait()

    def source_rank(self) -> int:
        return self._source_rank()

    def _source_rank(self) -> int:
        self.wait()
        return -1 if self._source is None else self._source()

    def get_future(self) -> torch.futures.Future[list[torch.Tensor]]:
        """A future of the tensors, completed by a thread that waits for this operation alone."""
        with self._lock:
            if self._future is None:
                self._future = torch.futures.Future()
                _waiters.complete_later(self, self._future)
            return self._future


def complete(future: torch.futures.Future[Any], work: Work) -> None:
    """Give the future what the operation comes to."""
    try:
        future.set_result(work.result())
    except Exception as problem:
        future.set_exception(problem)


_Promise = tuple[Work, "torch.futures.Future[Any]"]
# A thread without anything to do ends after this long.
_IDLE = 10.0


class _Waiters:
    """Threads that wait for operations, each for one.

    What is to happen when a future is completed happens on the thread that completes it, and may wait for a future in its turn:
    so no future waits for a thread. There are as many as there are futures to wait for, and they are used again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._promises: deque[_Promise] = deque()
        self._idle = 0

    def complete_later(self, work: Work, future: torch.futures.Future[Any]) -> None:
        with self._changed:
            self._promises.append((work, future))
            if self._idle >= len(self._promises):
                self._changed.notify()
                return
        threading.Thread(target=self._run, name="unisono-future", daemon=True).start()

    def _run(self) -> None:
        while (promise := self._next()) is not None:
            work, future = promise
            complete(future, work)
            del promise, work, future

    def _next(self) -> _Promise | None:
        with self._changed:
            self._idle += 1
            try:
                self._changed.wait_for(lambda: self._promises, _IDLE)
                return self._promises.popleft() if self._promises else None
            finally:
                self._idle -= 1


_waiters = _Waiters()


def _in_child() -> None:
    """A forked child has none of its parent's threads."""
    global _waiters
    _waiters = _Waiters()


os.register_at_fork(after_in_child=_in_child)
