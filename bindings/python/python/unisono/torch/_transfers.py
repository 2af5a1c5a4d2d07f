"""Send and recv as torch has them: started, with tags that may be taken in any order, and from any source.

The library's messages between two ranks come in the order in which they were sent, and the receiver says beforehand how many
elements it expects. So each of torch's messages is two: a header (tag and size), and the bytes. For each peer that is
received from there is a thread, started when it is first needed, which takes headers while somebody wants a message and
gives each message to the first that wants one like it; what nobody wants yet is kept. For each peer that is sent to there
is one that sends what could not be sent at once.

A rank that leaves is missed by those who wait for it alone: its thread here ends, and who takes from anybody goes on waiting for
the others. Threads wait in short slices, and not at all while nobody wants anything.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from .. import Busy, Closed, Communicator, Error, PeerLeft, TimeoutError

_HEADER = 2
# Up to here a message is sent by the caller itself, if there is room for it. It goes as a whole or not at all, as long as it
# fills less than a quarter of the window, with its line of a header.
_SMALL = 16 * 1024
_LINE = 64
_AT_ONCE = 1e-6
_NAP = 0.05
# How long a thread may take to notice that it is to end.
_SOON = 1.0


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


class Transfer:
    """A send or recv that was started."""

    def __init__(
        self,
        tensor: torch.Tensor,
        tag: int,
        source: int | None,
        timeout: float,
        give_up: Callable[[Transfer, float], None],
    ) -> None:
        self.tensor = tensor
        self.tag = tag
        self.source = source
        self._timeout = timeout
        self._give_up = give_up
        self._over = threading.Event()
        self._problem: BaseException | None = None

    def finish(self, problem: BaseException | None = None) -> None:
        self._problem = problem
        self._over.set()

    def done(self) -> bool:
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> torch.Tensor:
        patience = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + patience
        # A thread that sleeps on a lock lets no signal's handler raise before it wakes: so it naps.
        while not self._over.wait(_nap_until(deadline)):
            if time.monotonic() >= deadline:
                self._give_up(self, patience)
        if self._problem is not None:
            raise self._problem
        return self.tensor


class Transfers:
    """All sends and receives of a rank."""

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm
        # What a thread waits for may come late; who wanted it has a deadline of its own.
        self._patient = comm.with_timeout(float("inf"))
        self._slice = comm.with_timeout(_NAP)
        self._hasty = comm.with_timeout(_AT_ONCE)
        self._small = min(_SMALL, comm.window_bytes // 4 - _LINE)
        self._outboxes: dict[int, _Outbox] = {}
        self._inboxes: dict[int, _Inbox] = {}
        self.changed = threading.Condition()
        self.wanted: list[Transfer] = []
        self.ends = False

    def send(self, tensor: torch.Tensor, to: int, tag: int, timeout: float) -> Transfer:
        transfer = Transfer(tensor, tag, None, timeout, self._say_late)
        with self.changed:
            outbox = self._outbox(to)
        outbox.send(transfer)
        return transfer

    def recv(self, tensor: torch.Tensor, source: int | None, tag: int, timeout: float) -> Transfer:
        """From `source`, or, if it is `None`, from whoever sends first."""
        transfer = Transfer(tensor, tag, source, timeout, self._withdraw)
        sources = self._sources(source)
        with self.changed:
            if any(self._inbox(rank).give_kept(transfer) for rank in sources):
                return transfer
            problem = _closed() if self.ends else self._problem_of(sources)
            if problem is not None:
                transfer.finish(problem)
                return transfer
            self.wanted.append(transfer)
            for rank in sources:
                self._inbox(rank).listen()
            self.changed.notify_all()
        return transfer

    def end(self) -> None:
        """This rank leaves: let threads end."""
        with self.changed:
            self.ends = True
            self.changed.notify_all()
        for outbox in list(self._outboxes.values()):
            outbox.notice_end()
        deadline = time.monotonic() + _SOON
        for inbox in list(self._inboxes.values()):
            inbox.join(deadline - time.monotonic())
        with self.changed:
            for transfer in self.wanted:
                transfer.finish(_closed())
            self.wanted.clear()

    def lose(self, inbox: _Inbox, problem: BaseException) -> None:
        """Nothing more comes from there: who waits for it, or, without anybody else left, for anybody, is told."""
        with self.changed:
            inbox.problem = problem
            for transfer in list(self.wanted):
                hopeless = self._problem_of(self._sources(transfer.source))
                if hopeless is not None:
                    self.wanted.remove(transfer)
                    transfer.finish(hopeless)

    def _problem_of(self, sources: list[int]) -> BaseException | None:
        """Why nothing can come from any of these, if so. A rank may leave; whatever else happens to one happens to all."""
        problems = [self._inbox(rank).problem for rank in sources]
        serious = [problem for problem in problems if problem is not None and not _has_only_left(problem)]
        if serious:
            return serious[0]
        return problems[0] if problems and None not in problems else None

    def _sources(self, source: int | None) -> list[int]:
        return [source] if source is not None else [r for r in range(self.comm.size) if r != self.comm.rank]

    def _inbox(self, rank: int) -> _Inbox:
        return self._inboxes.get(rank) or self._inboxes.setdefault(rank, _Inbox(self, rank))

    def _outbox(self, rank: int) -> _Outbox:
        return self._outboxes.get(rank) or self._outboxes.setdefault(rank, _Outbox(self, rank))

    def _withdraw(self, transfer: Transfer, waited: float) -> None:
        """A recv whose time is up wants nothing any more, unless its message is on its way already."""
        with self.changed:
            if transfer in self.wanted:
                self.wanted.remove(transfer)
                transfer.finish(self._late("recv", "nobody sent it", transfer, waited))

    def _say_late(self, transfer: Transfer, waited: float) -> None:
        """A send whose time is up goes on: part of it may have been sent."""
        raise self._late("send", "nobody takes it; it goes on", transfer, waited)

    def _late(self, operation: str, problem: str, transfer: Transfer, waited: float) -> TimeoutError:
        awaited = [peer for peer in self.comm.peers() if operation == "recv" and transfer.source in (peer.rank, None)]
        return TimeoutError(
            f"{operation} of tag {transfer.tag}: not over after {waited} s: {problem}",
            operation=operation,
            call=f"{operation} of tag {transfer.tag}",
            number=0,
            waited=waited,
            peers=[peer for peer in awaited if peer.rank != self.comm.rank],
            reported_by=None,
            terminal=False,
        )

    def take_wanted(self, source: int, tag: int) -> Transfer | None:
        """The first that wants a message of this tag from this source; it is wanted no more."""
        for transfer in self.wanted:
            if transfer.tag == tag and transfer.source in (source, None):
                self.wanted.remove(transfer)
                return transfer
        return None

    def wants_from(self, source: int) -> bool:
        return any(transfer.source in (source, None) for transfer in self.wanted)


class _Outbox:
    """What is sent to one rank, in order."""

    def __init__(self, transfers: Transfers, to: int) -> None:
        self._transfers = transfers
        self._to = to
        self._waiting: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def send(self, transfer: Transfer) -> None:
        data = _bytes(transfer.tensor)
        header = torch.tensor([transfer.tag, data.numel()])
        with self._changed:
            parts = [header, data] if data.numel() else [header]
            if not self._waiting and data.numel() <= self._transfers._small:
                try:
                    parts = self._send_now(parts)
                except Error as problem:
                    transfer.finish(problem)
                    return
            if not parts:
                transfer.finish()
                return
            self._waiting.append(lambda: self._send_patiently(parts, transfer))
            if self._thread is None:
                name = f"unisono-send-{self._to}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def _send_now(self, parts: list[torch.Tensor]) -> list[torch.Tensor]:
        """Send what there is room for; gives back the rest."""
        for sent, part in enumerate(parts):
            try:
                self._transfers._hasty.send(part, self._to)
            except (TimeoutError, Busy) as late:
                if getattr(late, "terminal", False):
                    raise
                return parts[sent:]
        return []

    def _send_patiently(self, parts: list[torch.Tensor], transfer: Transfer) -> None:
        try:
            for part in parts:
                self._transfers._patient.send(part, self._to)
            transfer.finish()
        except BaseException as problem:
            transfer.finish(problem)

    def notice_end(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._transfers.ends:
                        return
                    self._changed.wait()
                send = self._waiting[0]
            send()
            with self._changed:
                # Only now: nobody may send at once while this one is on its way.
                self._waiting.popleft()
            del send


class _Inbox:
    """What comes from one rank."""

    def __init__(self, transfers: Transfers, source: int) -> None:
        self._transfers = transfers
        self.source = source
        # Why nothing more comes.
        self.problem: BaseException | None = None
        self._kept: list[tuple[int, torch.Tensor]] = []
        self._thread: threading.Thread | None = None

    def listen(self) -> None:
        """See that a thread takes what comes. The lock is held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"unisono-recv-{self.source}", daemon=True)
            self._thread.start()

    def join(self, patience: float) -> None:
        if self._thread is not None:
            self._thread.join(max(patience, 0))

    def give_kept(self, transfer: Transfer) -> bool:
        """Give a message that came before it was wanted. The lock is held."""
        for at, (tag, message) in enumerate(self._kept):
            if tag == transfer.tag:
                del self._kept[at]
                transfer.source = self.source
                transfer.finish(_fill(transfer.tensor, message))
                return True
        return False

    def _run(self) -> None:
        transfers = self._transfers
        try:
            while self.problem is None:
                with transfers.changed:
                    while not transfers.wants_from(self.source) and not transfers.ends:
                        transfers.changed.wait()
                    if transfers.ends:
                        return
                self._take_one()
        except BaseException as problem:
            transfers.lose(self, problem)

    def _take_one(self) -> None:
        """Take a message, if one comes soon."""
        transfers = self._transfers
        header = torch.empty(_HEADER, dtype=torch.int64)
        try:
            transfers._slice.recv(header, self.source)
        except (TimeoutError, Busy) as late:
            if getattr(late, "terminal", False):
                raise
            return
        tag, size = header.tolist()
        with transfers.changed:
            transfer = transfers.take_wanted(self.source, tag)
        if transfer is not None:
            transfer.source = self.source
            data = _bytes(transfer.tensor)
            if data.numel() == size:
                self._receive(data, transfer)
                return
        message = torch.empty(size, dtype=torch.uint8)
        self._receive(message, None)
        if transfer is None:
            with transfers.changed:
                # Somebody may have come to want it meanwhile.
                transfer = transfers.take_wanted(self.source, tag)
                if transfer is None:
                    self._kept.append((tag, message))
                    return
        transfer.source = self.source
        transfer.finish(_fill(transfer.tensor, message))

    def _receive(self, data: torch.Tensor, transfer: Transfer | None) -> None:
        try:
            if data.numel():
                self._transfers._patient.recv(data, self.source)
        except BaseException as problem:
            if transfer is not None:
                transfer.finish(problem)
            raise
        if transfer is not None:
            transfer.finish()


def _has_only_left(problem: BaseException) -> bool:
    """Whether it is of one rank alone, so that the others go on."""
    return isinstance(problem, PeerLeft) and not problem.terminal


def _closed() -> Closed:
    return Closed("recv: this rank has left", operation="recv")


def _nap_until(deadline: float) -> float:
    """How long to sleep at once. Past the deadline there is something left to wait for, which comes soon."""
    left = deadline - time.monotonic()
    return min(left, _NAP) if left > 0 else _NAP


def _fill(tensor: torch.Tensor, message: torch.Tensor) -> Error | None:
    """Put a message into the tensor that it is for; an error if it does not fit."""
    data = _bytes(tensor)
    if data.numel() != message.numel():
        return Error(f"a message of {message.numel()} bytes came for a tensor of {data.numel()}")
    data.copy_(message)
    return None


__all__: list[Any] = ["Transfer", "Transfers"]
