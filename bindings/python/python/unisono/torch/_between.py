"""What nodes say to one another: messages between ranks, over Gloo, and why the group has ended.

Gloo reports a lost connection or a time-out with the address of a socket, and is unusable afterwards. Here each becomes an
error of the library's that names the rank. The first rank that knows why the group ends writes it down in torch's store; who
then only finds a connection closed, or its node's group stopped, looks there for the reason.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d as _c10d

from .. import Aborted, Error, Interrupted, Mismatch, PeerDied, PeerLeft, TimeoutError
from ._places import Map

Message = tuple[torch.Tensor, int]

# How long to look for the reason that another rank has, which may still be on its way.
_REASON_TAKES = 1.0
_NAP = 0.01
_LONGEST = 365 * 24 * 3600.0
_COLLECTIVES, _TRANSFERS = 0, 1


def _limit(seconds: float) -> timedelta:
    return timedelta(seconds=min(max(seconds, 0.001), _LONGEST))


def _device(store: _c10d.Store) -> Any:
    """The network that the store is reached through, unless GLOO_SOCKET_IFNAME names one; else what Gloo finds."""
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    make = dist.ProcessGroupGloo
    if isinstance(store, dist.TCPStore) and not os.environ.get("GLOO_SOCKET_IFNAME"):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(store.host, store.port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # sends nothing
                here = probe.getsockname()[0]
            if not here.startswith("127.") and here != "::1":
                return make.create_device(hostname=here)
        except OSError:
            pass  # Gloo may know better.
    return make.create_default_device()


class Between:
    """This rank's connections to the ranks of a group that has several nodes."""

    def __init__(self, store: _c10d.Store, name: str, rank: int, where: Map, seconds: float) -> None:
        self.rank = rank
        self.where = where
        self._store = store
        self._reason_key = f"{name}/reason"
        options = dist.ProcessGroupGloo._Options()
        options._devices = [_device(store)]
        options._timeout = _limit(seconds)
        self._gloo: Any = dist.ProcessGroupGloo(
            _c10d.PrefixStore(f"{name}/gloo", store), rank, len(where.places), options
        )
        self._pid = os.getpid()

    def exchange(self, sends: Sequence[Message], recvs: Sequence[Message], call: str, deadline: float) -> None:
        """Send and receive at once. Messages between two ranks come in the order in which they were sent."""
        waits = [(self._post_recv(tensor, source, _COLLECTIVES), source) for tensor, source in recvs if tensor.numel()]
        waits += [(self._post_send(tensor, to, _COLLECTIVES), to) for tensor, to in sends if tensor.numel()]
        began = time.monotonic()
        for work, peer in waits:
            self.wait(work, [peer], call, began, deadline)

    def send(self, tensor: torch.Tensor, to: int, tag: int) -> Any:
        return self._post_send(tensor, to, _TRANSFERS + tag)

    def recv(self, tensor: torch.Tensor, source: int | None, tag: int) -> Any:
        if source is not None:
            return self._post_recv(tensor, source, _TRANSFERS + tag)
        return self._open().recv_anysource([_bytes(tensor)], _TRANSFERS + tag)

    def _post_send(self, tensor: torch.Tensor, to: int, tag: int) -> Any:
        try:
            return self._open().send([_bytes(tensor)], to, tag)
        except RuntimeError as problem:
            return problem

    def _post_recv(self, tensor: torch.Tensor, source: int, tag: int) -> Any:
        try:
            return self._open().recv([_bytes(tensor)], source, tag)
        except RuntimeError as problem:
            return problem

    def _open(self) -> Any:
        if self._gloo is None:
            raise RuntimeError("the connections to other nodes are closed")
        return self._gloo

    def wait(self, work: Any, peers: list[int], call: str, began: float, deadline: float) -> None:
        """Until a message has gone or come."""
        try:
            if isinstance(work, RuntimeError):
                raise work
            work.wait(_limit(deadline - time.monotonic()))
        except RuntimeError as problem:
            if "Timed out" in str(problem) or "Application timeout" in str(problem):
                raise self._late(peers, call, time.monotonic() - began) from problem
            raise self._lost(peers, call) from problem

    def _late(self, peers: list[int], call: str, waited: float) -> Error:
        return TimeoutError(
            f"{call}: not over after {waited:.1f} s: waiting for {self._names(peers)}",
            operation=call,
            call=call,
            number=0,
            waited=waited,
            peers=[self.status(peer) for peer in peers],
            reported_by=None,
            terminal=True,
        )

    def _lost(self, peers: list[int], call: str) -> Error:
        """A connection is closed: because the group has ended for a reason that somebody knows, else because a rank died."""
        reason = self.reason(call, _REASON_TAKES)
        if reason is not None:
            return reason
        return PeerDied(
            f"{call}: the connection to {self._names(peers)} is lost: its process has died, or its node cannot be reached",
            rank=peers[0],
            pid=self.where.places[peers[0]].pid,
            last=None,
            operation=call,
            call=call,
            number=0,
            reported_by=None,
        )

    def _names(self, ranks: list[int]) -> str:
        return " or ".join(self.where.describe(rank) for rank in ranks)

    def status(self, rank: int) -> Any:
        from .. import PeerStatus

        return PeerStatus(rank, self.where.places[rank].pid, True, None)

    # Why the group ended.

    def tell(self, error: Error) -> None:
        """Write down why, unless somebody has."""
        fields = {name: value for name, value in vars(error).items() if isinstance(value, (int, float, str))}
        fields["peers"] = [peer.rank for peer in getattr(error, "peers", [])]
        said = json.dumps({"by": self.rank, "kind": type(error).__name__, "text": str(error), "fields": fields})
        try:
            self._store.compare_set(self._reason_key, "", said)
        except RuntimeError:
            pass  # The store lives in another process, which may be the one that died.

    def reason(self, call: str, patience: float) -> Error | None:
        """What another rank has written down, in the words of this one."""
        deadline = time.monotonic() + patience
        try:
            while not self._store.check([self._reason_key]):
                if time.monotonic() >= deadline:
                    return None
                time.sleep(_NAP)
            said = json.loads(self._store.get(self._reason_key))
        except (RuntimeError, ValueError):
            return None
        kinds = {kind.__name__: kind for kind in (Aborted, Interrupted, Mismatch, PeerDied, PeerLeft, TimeoutError)}
        fields, by = dict(said["fields"]), int(said["by"])
        fields["peers"] = [self.status(int(rank)) for rank in fields["peers"]]
        fields.update(operation=call, call=call, reported_by=by)
        fields.pop("by", None)
        if said["kind"] in ("Interrupted", "Aborted"):
            return Aborted(f"{call}: {self.where.describe(by)} stopped the group", by=by, **fields)
        kind = kinds.get(said["kind"], Error)
        if kind is PeerDied:
            fields["last"] = None
        return kind(f"{call}: {self.where.describe(by)} says: {said['text']}", **fields)

    def close(self) -> None:
        """Close all connections: whoever waits for this rank is told. A forked child has not the threads that this needs."""
        gloo, self._gloo = self._gloo, None
        if gloo is not None and os.getpid() != self._pid:
            _inherited.append(gloo)
        elif gloo is not None:
            gloo.abort()


_inherited: list[Any] = []


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """What goes over the wire. For Gloo nothing is no message: an empty tensor is one byte."""
    return tensor.reshape(-1).view(torch.uint8) if tensor.numel() else torch.zeros(1, dtype=torch.uint8)


__all__ = ["Between", "Message"]
