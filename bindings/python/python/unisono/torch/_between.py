"""What nodes say to one another: messages between ranks, over Gloo, and why the group has ended.

Gloo reports a lost connection with the address of a socket, does not let a wait be given up, and is unusable after a time-out.
So its own waits are endless here, and a thread looks at the deadlines. Whoever ends the group says why to every other rank, as the
last message of each connection, and then makes Gloo close all of them, which ends this rank's waits, too. Who finds a connection
closed has heard the reason by then; one without a reason is that of a process that died.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch._C import _distributed_c10d as _c10d

from .. import Aborted, Error, Interrupted, Mismatch, PeerDied, PeerLeft, PeerStatus, TimeoutError
from ._places import Map

Message = tuple[torch.Tensor, int]

# Gloo's tags: of a rank's last word, of what nobody sends, and from where on those of transfers and of collectives lie.
_REASON, _NEVER, _TRANSFERS, _COLLECTIVES = 0, 1, 1 << 29, 1 << 30
_TAGS = 1 << 29
# Odd, so that tags differ where sizes are the same.
_SCATTER = 0x2545F491
_REASON_BYTES = 1024
# How long a reason may be on its way that must have been sent.
_REASON_TAKES = 1.0
_AT_ONCE = timedelta(milliseconds=1)
_ENDLESS = timedelta(days=365)
# torch's stubs know half of it.
_Gloo: Any = _c10d.ProcessGroupGloo
_KINDS: tuple[type[Error], ...] = (Mismatch, PeerDied, PeerLeft, TimeoutError)
# A field of errors whose ranks are the group's, not a node's.
GROUPS = {"_ranks_are_the_groups": True}


def _device(store: _c10d.Store) -> Any:
    """The network that the store is reached through, unless GLOO_SOCKET_IFNAME names one; else what Gloo finds."""
    inner: Any = store
    while hasattr(inner, "underlying_store"):
        inner = inner.underlying_store
    if isinstance(inner, _c10d.TCPStore) and not os.environ.get("GLOO_SOCKET_IFNAME"):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(inner.host, inner.port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # sends nothing
                here = probe.getsockname()[0]
            if not here.startswith("127.") and here != "::1":
                return _Gloo.create_device(hostname=here)
        except OSError:
            pass  # Gloo may know better.
    return _Gloo.create_default_device()


class Between:
    """This rank's connections to the ranks of a group that has several nodes."""

    def __init__(self, store: _c10d.Store, rank: int, where: Map) -> None:
        self.rank = rank
        self.where = where
        # What to do with the error of a wait whose time is up.
        self.on_late: Callable[[Error], object] = lambda error: None
        self._pid = os.getpid()
        self._others = [other for other in range(len(where.places)) if other != rank]
        options = _Gloo._Options()
        options._devices = [_device(store)]
        options._timeout = _ENDLESS
        self._gloo: Any = _Gloo(store, rank, len(where.places), options)
        self._reasons = {other: torch.zeros(_REASON_BYTES, dtype=torch.uint8) for other in self._others}
        self._told = {other: self._gloo.recv([room], other, _REASON) for other, room in self._reasons.items()}

    def exchange(
        self, sends: Sequence[Message], recvs: Sequence[Message], call: str, about: str, deadline: float
    ) -> None:
        """Send and receive at once. Messages between two ranks come in the order in which they were sent.

        `about` is what ranks must agree on beside the call: those that do not never meet.
        """
        number = zlib.crc32(f"{call} {about}".encode())

        def tag(tensor: torch.Tensor) -> int:
            return _COLLECTIVES + _mixed(number, tensor)

        works = [(self._post_recv(tensor, source, tag(tensor)), source) for tensor, source in recvs if tensor.numel()]
        works += [(self._post_send(tensor, to, tag(tensor)), to) for tensor, to in sends if tensor.numel()]
        for work, peer in works:
            self.wait(work, [peer], call, deadline)

    def send(self, tensor: torch.Tensor, to: int, tag: int) -> Any:
        return self._post_send(tensor, to, _TRANSFERS + _mixed(tag, tensor))

    def recv(self, tensor: torch.Tensor, source: int | None, tag: int) -> Any:
        return self._post_recv(tensor, source, _TRANSFERS + _mixed(tag, tensor))

    def _post_send(self, tensor: torch.Tensor, to: int, tag: int) -> Any:
        """A work of Gloo's, or why there is none."""
        try:
            return self._open().send([_bytes(tensor)], to, tag)
        except RuntimeError as problem:
            return problem

    def _post_recv(self, tensor: torch.Tensor, source: int | None, tag: int) -> Any:
        try:
            gloo = self._open()
            return gloo.recv_anysource([_bytes(tensor)], tag) if source is None else gloo.recv([_bytes(tensor)], source, tag)
        except RuntimeError as problem:
            return problem

    def _open(self) -> Any:
        if self._gloo is None:
            raise RuntimeError("the connections to other nodes are closed")
        return self._gloo

    def wait(self, work: Any, peers: list[int], call: str, deadline: float) -> None:
        """Until a message has gone or come."""
        began = time.monotonic()
        watched = _watch.begin(deadline, lambda: self.on_late(self._late(peers, call, time.monotonic() - began)))
        try:
            if isinstance(work, RuntimeError):
                raise work
            work.wait(_ENDLESS)
        except RuntimeError as problem:
            raise self._lost(peers, call) from problem
        finally:
            _watch.end(watched)

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
            **GROUPS,
        )

    def _lost(self, peers: list[int], call: str) -> Error:
        """A connection is closed: because its rank ended the group, and has said why, or has died."""
        for peer in peers:
            reason = self.reason(peer, call, _AT_ONCE)
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
            **GROUPS,
        )

    def _names(self, ranks: list[int]) -> str:
        return " or ".join(self.where.describe(rank) for rank in ranks)

    def status(self, rank: int) -> PeerStatus:
        return PeerStatus(rank, self.where.places[rank].pid, True, None)

    # Why the group ended.

    def tell(self, error: Error) -> None:
        """Say why to all that can be reached."""
        plain = (int, float, str)
        fields: dict[str, Any] = {
            name: value for name, value in vars(error).items() if isinstance(value, plain) and name not in GROUPS
        }
        fields["peers"] = [peer.rank for peer in getattr(error, "peers", None) or []]
        for length in (400, 0):
            said = json.dumps({"kind": type(error).__name__, "text": str(error)[:length], "fields": fields}).encode()
            if len(said) <= _REASON_BYTES:
                break
            fields = {name: value for name, value in fields.items() if not isinstance(value, str)}
        words = torch.zeros(_REASON_BYTES, dtype=torch.uint8)
        words[: len(said)] = torch.frombuffer(bytearray(said), dtype=torch.uint8)
        for other in self._others:
            self._post_send(words, other, _REASON)  # They wait for it from the beginning: it goes at once.

    def reason(self, by: int, call: str, patience: timedelta = timedelta(seconds=_REASON_TAKES)) -> Error | None:
        """What a rank has said that ended the group, in the words of this one. Gloo is of no more use after this."""
        try:
            self._told[by].wait(patience)
            said = json.loads(bytes(self._reasons[by].tolist()).rstrip(b"\0"))
            fields = dict(said["fields"], operation=call, call=call, reported_by=by, **GROUPS)
            peers = [self.status(int(rank)) for rank in fields.pop("peers") if 0 <= int(rank) < len(self.where.places)]
            kind = str(said["kind"])
        except (RuntimeError, ValueError, KeyError, TypeError):
            return None
        who, text = self.where.describe(by), str(said.get("text", ""))
        if kind in (Interrupted.__name__, Aborted.__name__):
            return Aborted(f"{call}: {who} stopped the group: {text}", **{**fields, "by": fields.get("by", by)})
        if kind == TimeoutError.__name__:
            fields["peers"] = peers
        elif kind == PeerDied.__name__:
            fields["last"] = None
        known = next((known for known in _KINDS if known.__name__ == kind), Error)
        return known(f"{call}: {who} says: {text}", **fields)

    def close(self) -> None:
        """Close all connections, and end this rank's waits. A forked child has not the threads that this needs."""
        gloo, self._gloo = self._gloo, None
        if gloo is None:
            return
        if os.getpid() != self._pid:
            _inherited.append((gloo, self._told))
            return
        try:
            # Nothing else makes Gloo do it: a wait that takes too long.
            gloo.recv([torch.zeros(1, dtype=torch.uint8)], self._others[0], _NEVER).wait(_AT_ONCE)
        except RuntimeError:
            pass


_inherited: list[Any] = []


class _Watch:
    """The deadlines of all waits on Gloo, and the thread that looks at them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waits: dict[int, tuple[float, Callable[[], object]]] = {}
        self._last = 0
        self._next_look = float("inf")
        self._thread: threading.Thread | None = None

    def begin(self, deadline: float, late: Callable[[], object]) -> int:
        with self._changed:
            self._last += 1
            self._waits[self._last] = (deadline, late)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="unisono-deadlines", daemon=True)
                self._thread.start()
            elif deadline < self._next_look:
                self._changed.notify()
            return self._last

    def end(self, number: int) -> None:
        with self._changed:
            self._waits.pop(number, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                late = [number for number, (deadline, _) in self._waits.items() if deadline <= now]
                calls = [self._waits.pop(number)[1] for number in late]
                if not calls:
                    self._next_look = min((deadline for deadline, _ in self._waits.values()), default=float("inf"))
                    self._changed.wait(min(self._next_look - now, threading.TIMEOUT_MAX))
            for call in calls:
                call()


_watch = _Watch()


def _in_child() -> None:
    """A forked child has none of its parent's threads."""
    global _watch
    _watch = _Watch()


os.register_at_fork(after_in_child=_in_child)


def _mixed(number: int, tensor: torch.Tensor) -> int:
    """A message that is longer than is expected makes Gloo end the process: so sizes are part of tags, and it is not taken."""
    return (number + _SCATTER * tensor.nbytes) % _TAGS


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """What goes over the wire. For Gloo nothing is no message: an empty tensor is one byte."""
    return tensor.reshape(-1).view(torch.uint8) if tensor.numel() else torch.zeros(1, dtype=torch.uint8)


__all__ = ["GROUPS", "Between", "Message"]
