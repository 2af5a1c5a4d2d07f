"""A communicator whose ranks are on several nodes: shared memory on each, Gloo between them.

It has the methods of `Communicator` that torch's backend calls. An all-reduce is a reduce-scatter on each node, an exchange of
each rank's slice with the ranks of other nodes that have the same elements, and an all-gather on each node; the others are made of
the same parts (`_spans`). Nodes may have any numbers of ranks: each node cuts the data into one slice per rank of its own, and
ranks exchange where their slices overlap.

The order of a sum is that of the ranks on a node, then that of the nodes; a node's sum has the tensor's type. So all ranks
get the same bits, whatever the sizes.

Each group has a thread that makes its calls one after the other, so that Ctrl-C ends a wait on Gloo, which hears no signals. The
one invariant that matters: **whoever meets an error ends the group for all**: it tells the other nodes why, stops its node's group, and
closes its connections.
"""

from __future__ import annotations

import atexit
import copy
import os
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch

from .. import (
    Aborted,
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
from ._far import FarTransfers
from ._line import Line, Started
from ._places import Map
from ._spans import Spans

# A rank that waits for another node waits this much longer: if a rank is stopped, those on its own node know which. What it does
# on its node afterwards may take twice as much: the others there wait for this rank.
_GRACE = 0.5
# What is left for started operations when this rank leaves.
_MOMENT = 2.0


class Nodes:
    """A rank's handle on a group that spans nodes; see `Communicator` for what its methods do."""

    def __init__(self, node: Communicator, between: Between, where: Map, timeout: float) -> None:
        self.where = where
        self.rank = between.rank
        self.size = self.world_size = len(where.places)
        self.timeout = timeout
        self._node = node
        self._between = between
        self._line = Line(f"unisono-nodes-{self.rank}")
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
        return self._make("all_reduce", f"{op} {tensor.dtype} {tensor.numel()}", wait, lambda spans: spans.all_reduce(tensor, op, result), result)

    def reduce(self, tensor: torch.Tensor, root: int, op: str = "sum", *, out: Any = None, wait: bool = True) -> Any:
        result = tensor if out is None else out
        return self._make("reduce", f"{root} {op} {tensor.dtype} {tensor.numel()}", wait, lambda spans: spans.reduce(tensor, root, op, result), result)

    def broadcast(self, tensor: torch.Tensor, root: int, *, wait: bool = True) -> Any:
        return self._make("broadcast", f"{root} {tensor.dtype} {tensor.numel()}", wait, lambda spans: spans.broadcast(tensor, root), tensor)

    def barrier(self, *, wait: bool = True) -> Any:
        return self._make("barrier", "", wait, lambda spans: spans.barrier(), None)

    def all_gather(self, tensor: torch.Tensor, *, out: Any = None, wait: bool = True) -> Any:
        if out is None:
            shape = [self.size * tensor.shape[0], *tensor.shape[1:]] if tensor.dim() else [self.size]
            out = tensor.new_empty(shape)
        counts = [tensor.numel()] * self.size
        return self._make("all_gather", f"{tensor.dtype} {counts}", wait, lambda spans: spans.all_gather(tensor, counts, out), out)

    def all_gather_v(self, tensor: torch.Tensor, counts: list[int], *, out: Any = None, wait: bool = True) -> Any:
        if out is None:
            out = tensor.new_empty([sum(counts), *tensor.shape[1:]])
        each = tensor.shape[1:].numel()
        elements = [each * count for count in counts]
        return self._make("all_gather_v", f"{tensor.dtype} {elements}", wait, lambda spans: spans.all_gather(tensor, elements, out), out)

    def reduce_scatter(self, tensor: torch.Tensor, op: str = "sum", *, out: torch.Tensor, wait: bool = True) -> Any:
        counts = [out.numel()] * self.size
        return self._make("reduce_scatter", f"{op} {tensor.dtype} {counts}", wait, lambda spans: spans.reduce_scatter(tensor, counts, op, out), out)

    def reduce_scatter_v(
        self, tensor: torch.Tensor, counts: list[int], op: str = "sum", *, out: torch.Tensor, wait: bool = True
    ) -> Any:
        return self._make("reduce_scatter_v", f"{op} {tensor.dtype} {counts}", wait, lambda spans: spans.reduce_scatter(tensor, counts, op, out), out)

    def all_to_all(self, tensor: torch.Tensor, *, out: torch.Tensor, wait: bool = True) -> Any:
        if tensor.numel() != out.numel() or tensor.numel() % self.size:
            raise ValueError(f"all_to_all: {tensor.numel()} elements cannot be divided among {self.size} ranks")
        counts = [tensor.numel() // self.size] * self.size
        return self._make("all_to_all", str(tensor.dtype), wait, lambda spans: spans.all_to_all(tensor, counts, counts, out), out)

    def all_to_all_v(
        self, tensor: torch.Tensor, sent: list[int], received: list[int], *, out: torch.Tensor, wait: bool = True
    ) -> Any:
        return self._make("all_to_all_v", str(tensor.dtype), wait, lambda spans: spans.all_to_all(tensor, sent, received, out), out)

    def gather_v(
        self, tensor: torch.Tensor, root: int, counts: list[int] | None = None, *, out: Any = None, wait: bool = True
    ) -> Any:
        return self._make("gather_v", f"{root} {tensor.dtype}", wait, lambda spans: spans.gather(tensor, root, counts, out), out)

    def scatter_v(
        self,
        tensor: torch.Tensor | None,
        root: int,
        counts: list[int] | None = None,
        *,
        out: torch.Tensor,
        wait: bool = True,
    ) -> Any:
        return self._make("scatter_v", f"{root} {out.dtype}", wait, lambda spans: spans.scatter(tensor, root, counts, out), out)

    def _make(self, name: str, about: str, wait: bool, work: Callable[[Spans], None], result: Any) -> Any:
        """Have the group's thread make a call. Its time begins with its turn."""
        self._check_process(name)

        def carry_out() -> Any:
            before, after = (self._node.with_timeout(self.timeout + grace) for grace in (0, 2 * _GRACE))
            deadline = time.monotonic() + self.timeout + _GRACE
            spans = Spans(before, after, self._between, self.where, name, about, deadline)
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


__all__ = ["FarTransfers", "Nodes"]
