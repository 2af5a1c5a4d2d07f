"""A communicator whose ranks are on several nodes: shared memory on each, Gloo between them.

It has the methods of `Communicator` that torch's backend calls. An all-reduce is a reduce-scatter on each node, an exchange of
each rank's slice with the ranks of other nodes that have the same elements, and an all-gather on each node; the others are made of
the same parts (`_spans`). Nodes may have any numbers of ranks: each node cuts the data into one slice per rank of its own, and
ranks exchange where their slices overlap.

The order of a sum is that of the ranks on a node, then that of the nodes; a node's sum has the tensor's type. So all ranks
get the same bits, whatever the sizes.

Each group has a thread that makes its calls one after the other, so that Ctrl-C ends a wait on Gloo, which hears no signals. The
one invariant that matters: **whoever meets an error ends the group for all**: it writes down why, stops its node's group, and
closes its connections.
"""

from __future__ import annotations

import atexit
import copy
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from .. import (
    Aborted,
    Busy,
    Closed,
    Communicator,
    Error,
    Forked,
    Interrupted,
    InvalidArgument,
    PeerDied,
    PeerLeft,
    PeerStatus,
)
from ._between import GROUPS, Between
from ._places import Map
from ._spans import Spans

_NAP = 0.05
# A rank that waits for another node waits this much longer: if a rank is stopped, those on its own node know which. What it does
# on its node afterwards may take twice as much: the others there wait for this rank.
_GRACE = 0.5
# What is left for started operations, and for messages that nobody has taken, when this rank leaves.
_MOMENT = 2.0
_SHORT_NAP = 0.001
# Up to here a send returns at once.
_SMALL = 16 * 1024


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


class _Line:
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


class Nodes:
    """A rank's handle on a group that spans nodes; see `Communicator` for what its methods do."""

    def __init__(self, node: Communicator, between: Between, where: Map, timeout: float) -> None:
        self.where = where
        self.rank = between.rank
        self.size = self.world_size = len(where.places)
        self.timeout = timeout
        self._node = node
        self._between = between
        self._line = _Line(f"unisono-nodes-{self.rank}")
        self._pid = os.getpid()
        self._left = False
        # The handle that this one is a copy of.
        self._first: Nodes | None = None
        weak = weakref.ref(self)
        between.on_late = lambda error: _end(weak(), error)
        _all.add(self)

    def with_timeout(self, timeout: float) -> Nodes:
        other = copy.copy(self)
        other.timeout, other._first = timeout, self._first or self
        return other

    def __del__(self) -> None:
        """Who is collected leaves, as a communicator does."""
        if getattr(self, "_first", self) is None and not sys.is_finalizing():
            self.leave()

    def peers(self) -> list[PeerStatus]:
        statuses = [self._between.status(rank) for rank in range(self.size)]
        for status in self._node.peers():
            rank = self._on_node[status.rank]
            statuses[rank] = status._replace(rank=rank)
        return statuses

    @property
    def _on_node(self) -> list[int]:
        """The ranks of this node."""
        return self.where.nodes[self.where.node_of[self.rank]]

    # The operations.

    def all_reduce(self, tensor: torch.Tensor, op: str = "sum", *, out: Any = None, wait: bool = True) -> Any:
        result = tensor if out is None else out
        return self._make("all_reduce", wait, lambda spans: spans.all_reduce(tensor, op, result), result)

    def reduce(self, tensor: torch.Tensor, root: int, op: str = "sum", *, out: Any = None, wait: bool = True) -> Any:
        result = tensor if out is None else out
        return self._make("reduce", wait, lambda spans: spans.reduce(tensor, root, op, result), result)

    def broadcast(self, tensor: torch.Tensor, root: int, *, wait: bool = True) -> Any:
        return self._make("broadcast", wait, lambda spans: spans.broadcast(tensor, root), tensor)

    def barrier(self, *, wait: bool = True) -> Any:
        return self._make("barrier", wait, lambda spans: spans.barrier(), None)

    def all_gather(self, tensor: torch.Tensor, *, out: Any = None, wait: bool = True) -> Any:
        if out is None:
            shape = [self.size * tensor.shape[0], *tensor.shape[1:]] if tensor.dim() else [self.size]
            out = tensor.new_empty(shape)
        counts = [tensor.numel()] * self.size
        return self._make("all_gather", wait, lambda spans: spans.all_gather(tensor, counts, out), out)

    def all_gather_v(self, tensor: torch.Tensor, counts: list[int], *, out: Any = None, wait: bool = True) -> Any:
        if out is None:
            out = tensor.new_empty([sum(counts), *tensor.shape[1:]])
        each = tensor.shape[1:].numel()
        elements = [each * count for count in counts]
        return self._make("all_gather_v", wait, lambda spans: spans.all_gather(tensor, elements, out), out)

    def reduce_scatter(self, tensor: torch.Tensor, op: str = "sum", *, out: torch.Tensor, wait: bool = True) -> Any:
        counts = [out.numel()] * self.size
        return self._make("reduce_scatter", wait, lambda spans: spans.reduce_scatter(tensor, counts, op, out), out)

    def reduce_scatter_v(
        self, tensor: torch.Tensor, counts: list[int], op: str = "sum", *, out: torch.Tensor, wait: bool = True
    ) -> Any:
        return self._make("reduce_scatter_v", wait, lambda spans: spans.reduce_scatter(tensor, counts, op, out), out)

    def all_to_all(self, tensor: torch.Tensor, *, out: torch.Tensor, wait: bool = True) -> Any:
        if tensor.numel() != out.numel() or tensor.numel() % self.size:
            raise ValueError(f"all_to_all: {tensor.numel()} elements cannot be divided among {self.size} ranks")
        counts = [tensor.numel() // self.size] * self.size
        return self._make("all_to_all", wait, lambda spans: spans.all_to_all(tensor, counts, counts, out), out)

    def all_to_all_v(
        self, tensor: torch.Tensor, sent: list[int], received: list[int], *, out: torch.Tensor, wait: bool = True
    ) -> Any:
        return self._make("all_to_all_v", wait, lambda spans: spans.all_to_all(tensor, sent, received, out), out)

    def gather_v(
        self, tensor: torch.Tensor, root: int, counts: list[int] | None = None, *, out: Any = None, wait: bool = True
    ) -> Any:
        return self._make("gather_v", wait, lambda spans: spans.gather(tensor, root, counts, out), out)

    def scatter_v(
        self,
        tensor: torch.Tensor | None,
        root: int,
        counts: list[int] | None = None,
        *,
        out: torch.Tensor,
        wait: bool = True,
    ) -> Any:
        return self._make("scatter_v", wait, lambda spans: spans.scatter(tensor, root, counts, out), out)

    def _make(self, name: str, wait: bool, work: Callable[[Spans], None], result: Any) -> Any:
        """Have the group's thread make a call. Its time begins with its turn."""
        self._check_process(name)

        def carry_out() -> Any:
            before, after = (self._node.with_timeout(self.timeout + grace) for grace in (0, 2 * _GRACE))
            deadline = time.monotonic() + self.timeout + _GRACE
            spans = Spans(before, after, self._between, self.where, name, deadline)
            try:
                work(spans)
            except (InvalidArgument, TypeError, ValueError) as problem:
                # What makes no sense is told before anything was said to others, and harms nothing.
                if spans.has_begun:
                    self._end_with(self._own(Aborted, f"{name}: {problem!r}", by=self.rank), name)
                raise
            except Error as problem:
                raise self._end_with(problem, name)
            except BaseException as problem:
                self._end_with(self._own(Aborted, f"{name}: {problem!r}", by=self.rank), name)
                raise
            return result

        started = self._line.add(Started(name, carry_out, self.timeout))
        if not wait:
            return started
        try:
            return started.wait()
        except (KeyboardInterrupt, SystemExit):
            self._end_with(self._own(Interrupted, f"{name} was interrupted on this rank", terminal=True), name)
            raise

    def _check_process(self, name: str) -> None:
        if os.getpid() != self._pid:
            raise Forked(
                f"{name}: this process was forked from the one that made the group (pid {self._pid})",
                operation=name,
                parent=self._pid,
            )

    # How it ends.

    def _end_with(self, problem: Error, call: str) -> Error:
        """End the group for all; gives back what is to be raised here."""
        error = self._explain(problem, call) if self._line.ended is None else problem
        if self._line.end_with(error):
            self._between.tell(error)
            self._node.abort()
            self._between.close()
        ended = self._line.ended
        return ended if isinstance(ended, Error) else error

    def _explain(self, problem: Error, call: str) -> Error:
        """What the node says, in the group's ranks; if a rank there has only stopped it, what that rank has said."""
        if GROUPS.items() <= vars(problem).items():
            return problem
        by = getattr(problem, "by", None) if isinstance(problem, Aborted) else getattr(problem, "reported_by", None)
        if by is not None and by < len(self._on_node) and self._on_node[by] != self.rank:
            return self._between.reason(self._on_node[by], call) or self._renumbered(problem)
        return self._renumbered(problem)

    def _renumbered(self, problem: Error) -> Error:
        fields = dict(vars(problem))
        for name in ("rank", "by", "peer", "reported_by"):
            if isinstance(fields.get(name), int) and fields[name] < len(self._on_node):
                fields[name] = self._on_node[fields[name]]
        if isinstance(fields.get("peers"), list):
            fields["peers"] = [peer._replace(rank=self._on_node[peer.rank]) for peer in fields["peers"]]
        missing = [fields["rank"]] if isinstance(problem, (PeerDied, PeerLeft)) else [p.rank for p in fields.get("peers") or []]
        names = " or ".join(self.where.describe(rank) for rank in missing)
        about = f" about {names}" if names else ""
        fields.update(GROUPS)
        return type(problem)(f"on node {self.where.node_of[self.rank]}, whose ranks are {self._on_node},{about}: {problem}", **fields)

    def abort(self) -> None:
        self._end_with(self._own(Aborted, "abort was called on this rank", by=self.rank), "abort")

    def _own(self, kind: type[Error], text: str, **fields: Any) -> Error:
        """An error that begins on this rank."""
        return kind(text, operation="", call="", number=0, **fields, **GROUPS)

    def close(self, timeout: float = 60.0) -> None:
        """Leave together."""
        try:
            self.with_timeout(timeout).barrier()
        finally:
            self.leave()

    def leave(self) -> None:
        """This rank needs the others no more. What it has started is finished first, or has two seconds for it."""
        if self._left:
            return
        self._left = True
        if os.getpid() == self._pid:
            self._finish()
            if self._line.ended is None:
                text = f"{self.where.describe(self.rank)} has left"
                self._between.tell(self._own(PeerLeft, text, rank=self.rank, pid=self._pid, terminal=True))
        self._node.leave()
        self._between.close()

    def _finish(self) -> None:
        """Let what was started come to its end, if it does so soon."""
        if not self._line.close(_MOMENT):
            self.abort()

    # Send and recv.

    def transfers(self) -> FarTransfers:
        return FarTransfers(self)


_all: weakref.WeakSet[Nodes] = weakref.WeakSet()


def _end(nodes: Nodes | None, error: Error) -> None:
    if nodes is not None:
        nodes._end_with(error, "")


def _at_exit() -> None:
    """No thread may be inside of Gloo, or of the library, when the interpreter ends."""
    for nodes in list(_all):
        if os.getpid() == nodes._pid:
            nodes._finish()


atexit.register(_at_exit)


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
            time.sleep(_SHORT_NAP)


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


__all__ = ["FarTransfers", "Nodes"]
