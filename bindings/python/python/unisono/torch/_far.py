"""Send and recv in a group that spans nodes, as torch has them: started, with tags, and from any source."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import torch

from .. import Error
from ._line import Started

if TYPE_CHECKING:
    from ._nodes import Nodes

# Up to here a send returns at once.
_SMALL = 16 * 1024
# What is left for messages that nobody has taken when this rank leaves.
_MOMENT = 2.0
_NAP = 0.001


class FarTransfers:
    """Sends and receives in a group that spans nodes: all are Gloo's, because a recv from anybody may be from any node.

    For Gloo a message has gone when its receiver wants it. Here a small one is copied, and has gone at once.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._under_way: deque[Any] = deque()

    def send(self, tensor: torch.Tensor, to: int, tag: int, timeout: float) -> FarTransfer:
        self._nodes._check_process("send")
        is_small = tensor.nbytes <= _SMALL
        work = self._nodes._between.send(tensor.clone() if is_small else tensor, to, tag)
        transfer = FarTransfer(self._nodes, work, f"send to rank {to}", [to], tensor, timeout)
        if is_small and not isinstance(work, RuntimeError):
            self._under_way.append(work)
            while self._under_way and self._under_way[0].is_completed():
                self._under_way.popleft()
            transfer.has_gone()
        return transfer

    def recv(self, tensor: torch.Tensor, source: int | None, tag: int, timeout: float) -> FarTransfer:
        self._nodes._check_process("recv")
        others = [rank for rank in range(self._nodes.size) if rank != self._nodes.rank]
        peers = others if source is None else [source]
        name = "recv from anybody" if source is None else f"recv from rank {source}"
        return FarTransfer(self._nodes, self._nodes._between.recv(tensor, source, tag), name, peers, tensor, timeout)

    def end(self) -> None:
        """Give those a moment that still have to take a message. Gloo's connections are closed with the group's."""
        deadline = time.monotonic() + _MOMENT
        while not all(work.is_completed() for work in self._under_way) and time.monotonic() < deadline:
            time.sleep(_NAP)


class FarTransfer:
    """A send or recv that was started. It has a thread of its own once it is waited for."""

    def __init__(
        self, nodes: Nodes, work: Any, name: str, peers: list[int], tensor: torch.Tensor, timeout: float
    ) -> None:
        self._nodes = nodes
        self._work = work
        self._peers = peers
        self._timeout = timeout
        self.tensor = tensor
        self._waiting = Started(name, self._wait, timeout)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def has_gone(self) -> None:
        self._waiting.finish(self.tensor, None)

    @property
    def source(self) -> int:
        return int(self._work._source_rank()) if len(self._peers) > 1 else self._peers[0]

    def done(self) -> bool:
        if self._waiting.done():
            return True
        if not isinstance(self._work, RuntimeError) and not self._work.is_completed():
            return False
        self._listen()
        return self._waiting.done()

    def wait(self, timeout: float | None = None) -> Any:
        self._listen()
        return self._waiting.wait(timeout)

    def _listen(self) -> None:
        with self._lock:
            if self._thread is None and not self._waiting.done():
                self._thread = threading.Thread(target=self._run, name="unisono-far", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        result, problem = None, None
        try:
            result = self._wait()
        except BaseException as raised:
            problem = raised
        self._waiting.finish(result, problem)

    def _wait(self) -> Any:
        try:
            self._nodes._between.wait(self._work, self._peers, self._waiting.name, time.monotonic() + self._timeout)
        except Error as problem:
            raise self._nodes._end_with(problem, self._waiting.name)
        return self.tensor


__all__ = ["FarTransfer", "FarTransfers"]
