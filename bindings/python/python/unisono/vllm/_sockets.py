"""The queue as a socket: what `local_socket` and `remote_socket` are, for whoever passes them to `MessageQueue.recv`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._core import QueueReader, QueueWriter
from .._queue_errors import QueueTimeout

_IN = 1


class QueueSocket:
    """A side of a queue with the methods of a pyzmq socket that its users call: `poll`, `recv`, `recv_multipart`, `close`."""

    def __init__(self, side: QueueWriter | QueueReader, ends_side: bool) -> None:
        self._side = side
        self._ends_side = ends_side
        self._arrived: list[Any] | None = None
        self.closed = False

    @contextmanager
    def handing_over(self, parts: list[Any]) -> Iterator[None]:
        """Let these be the parts of the next message."""
        self._arrived = parts
        try:
            yield
        finally:
            self._arrived = None

    def poll(self, timeout: float | None = None, flags: int = _IN) -> int:
        """Whether there is a message, within `timeout` milliseconds."""
        if self._arrived is not None:
            return _IN
        if not isinstance(self._side, QueueReader):
            return 0
        try:
            message = self._side.recv(None if timeout is None else timeout / 1000)
        except QueueTimeout:
            return 0
        try:
            _, main, buffers = message.parts()
            with main:
                self._arrived = [bytes(main), *buffers]
        finally:
            message.release()
        return _IN

    def recv_multipart(self, flags: int = 0, copy: bool = True, track: bool = False) -> list[Any]:
        """The parts of the next message: the pickle, and the buffers beside it."""
        if self._arrived is None and not self.poll():
            raise RuntimeError("recv: this side of the queue does not read")
        parts, self._arrived = self._arrived, None
        return parts or []

    def recv(self, flags: int = 0, copy: bool = True, track: bool = False) -> Any:
        """The pickle of the next message."""
        return self.recv_multipart()[0]

    def close(self, linger: int | None = None) -> None:
        """Say goodbye, if this is the side's only way; what was sent arrives all the same."""
        self.closed = True
        if self._ends_side:
            self._side.close()
