"""The operations of a group that spans nodes, carried out one after the other by a thread of the group's."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .. import Busy, Closed

_NAP = 0.05


class Started:
    """An operation that the group's thread carries out in its turn."""

    def __init__(self, name: str, work: Callable[[], Any], late: float) -> None:
        self.name = name
        self.carry_out = work
        self.late = late
        self._over = threading.Event()
        self._result: Any = None
        self._problem: BaseException | None = None

    def finish(self, result: Any, problem: BaseException | None) -> None:
        """The first end counts: a group that is ended does not wait for what is under way."""
        if not self._over.is_set():
            self._result, self._problem = result, problem
            self.carry_out = _nothing
            self._over.set()

    def done(self) -> bool:
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._over.wait(_NAP if deadline is None else max(min(_NAP, deadline - time.monotonic()), 0)):
            if deadline is not None and time.monotonic() >= deadline:
                raise Busy(f"{self.name} is not over after {timeout} s; it goes on", operation=self.name, waited=timeout)
        if self._problem is not None:
            raise self._problem
        return self._result


def _nothing() -> None:
    pass


class Line:
    """The operations of a group, and the thread that carries them out in order."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[Started] = deque()
        self._under_way: Started | None = None
        self._thread: threading.Thread | None = None
        self._ends = False
        self.ended: BaseException | None = None

    def add(self, started: Started) -> Started:
        with self._changed:
            if self._ends or self.ended is not None:
                started.finish(None, self.ended or Closed(f"{started.name}: this rank has left", operation=started.name))
                return started
            self._waiting.append(started)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()
        return started

    def end_with(self, problem: BaseException) -> bool:
        """Nothing more is carried out, and nobody waits any more. Only the first reason counts: whether this is it."""
        with self._changed:
            if self.ended is not None:
                return False
            self.ended = problem
            waiting = [*self._waiting, *([self._under_way] if self._under_way else [])]
            self._waiting.clear()
            self._changed.notify()
        for started in waiting:
            started.finish(None, problem)
        return True

    def close(self, patience: float) -> bool:
        """Let the thread end when what was added is done; whether it is."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(patience)
            return not self._thread.is_alive()
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._ends or self.ended is not None:
                        return
                    self._changed.wait()
                started = self._under_way = self._waiting.popleft()
            result, problem = None, None
            try:
                result = started.carry_out()
            except BaseException as raised:
                problem = raised
            with self._changed:
                self._under_way = None
            started.finish(result, problem)
            del started, result, problem


__all__ = ["Line", "Started"]
