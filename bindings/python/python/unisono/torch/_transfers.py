"""Send and recv as torch has them: started, with tags that may be taken in any order, and from any source.

The library's messages between two ranks come in the order in which they were sent, and the receiver says beforehand how many
elements it expects. So each of torch's messages is two: a header (tag and size), and the bytes. For each peer that is
received from there is a thread, started when it is first needed, which takes headers while somebody wants a message and
gives each message to the first that wants one like it; what nobody wants yet is kept. For each peer that is sent to there
is one that sends what could not be sent at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from .. import Busy, Communicator, Error, TimeoutError

_HEADER = 2
# Up to here a message is sent by the caller itself, if there is room for it. It goes as a whole or not at all, as long as it
# fills less than a quarter of the window, with its line of a header.
_SMALL = 16 * 1024
_LINE = 64
_AT_ONCE = 1e-6
_NAP = 0.05


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


class Transfer:
    """A send or recv that was started."""

    def __init__(self, tensor: torch.Tensor, tag: int, source: int | None, timeout: float) -> None:
        self.tensor = tensor
        self.tag = tag
        self.source = source
        self._timeout = timeout
        self._over = threading.Event()
        self._problem: BaseException | None = None

    def finish(self, problem: BaseException | None = None) -> None:
        self._problem = problem
        self._over.set()

    def done(self) -> bool:
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> torch.Tensor:
        left = self._timeout if timeout is None else timeout
        # A thread that sleeps on a lock lets no signal's handler raise before it wakes: so it naps.
        while not self._over.wait(min(left, _NAP)):
            left -= _NAP
            if left <= 0:
                raise Busy(f"a transfer of tag {self.tag} is not over yet: nobody sent it, or nobody takes it")
        if self._problem is not None:
            raise self._problem
        return self.tensor


class Transfers:
    """All sends and receives of a rank."""

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm
        # What a thread waits for may come late; who wanted it has a deadline of its own.
        self._patient = comm.with_timeout(float("inf"))
        self._hasty = comm.with_timeout(_AT_ONCE)
        self._small = min(_SMALL, comm.window_bytes // 4 - _LINE)
        self._outboxes: dict[int, _Outbox] = {}
        self._inboxes: dict[int, _Inbox] = {}
        self.changed = threading.Condition()
        self.wanted: list[Transfer] = []
        self.ends = False

    def send(self, tensor: torch.Tensor, to: int, tag: int, timeout: float) -> Transfer:
        with self.changed:
            outbox = self._outboxes.get(to) or self._outboxes.setdefault(to, _Outbox(self, to))
        return outbox.send(tensor, tag, timeout)

    def recv(self, tensor: torch.Tensor, source: int | None, tag: int, timeout: float) -> Transfer:
        """From `source`, or, if it is `None`, from whoever sends first."""
        transfer = Transfer(tensor, tag, source, timeout)
        sources = [source] if source is not None else [r for r in range(self.comm.size) if r != self.comm.rank]
        with self.changed:
            for rank in sources:
                inbox = self._inboxes.get(rank)
                if inbox is not None and inbox.give_kept(transfer):
                    return transfer
            self.wanted.append(transfer)
            for rank in sources:
                if rank not in self._inboxes:
                    self._inboxes[rank] = _Inbox(self, rank)
            self.changed.notify_all()
        return transfer

    def end(self) -> None:
        """Let threads that have nothing to do end."""
        with self.changed:
            self.ends = True
            self.changed.notify_all()
        for outbox in list(self._outboxes.values()):
            outbox.notice_end()

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

    def send(self, tensor: torch.Tensor, tag: int, timeout: float) -> Transfer:
        transfer = Transfer(tensor, tag, None, timeout)
        data = _bytes(tensor)
        header = torch.tensor([tag, data.numel()])
        with self._changed:
            parts = [header, data] if data.numel() else [header]
            if not self._waiting and data.numel() <= self._transfers._small:
                parts = self._send_now(parts)
            if not parts:
                transfer.finish()
                return transfer
            self._waiting.append(lambda: self._send_patiently(parts, transfer))
            if self._thread is None:
                name = f"unisono-send-{self._to}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._changed.notify()
        return transfer

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
        self._source = source
        self._kept: list[tuple[int, torch.Tensor]] = []
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"unisono-recv-{source}", daemon=True)
        self._thread.start()

    def give_kept(self, transfer: Transfer) -> bool:
        """Give a message that came before it was wanted. The lock is held."""
        for at, (tag, message) in enumerate(self._kept):
            if tag == transfer.tag:
                del self._kept[at]
                transfer.source = self._source
                transfer.finish(_fill(transfer.tensor, message))
                return True
        if self._problem is not None and transfer.source == self._source:
            transfer.finish(self._problem)
            return True
        return False

    def _run(self) -> None:
        transfers = self._transfers
        try:
            while True:
                with transfers.changed:
                    while not transfers.wants_from(self._source):
                        if transfers.ends:
                            return
                        transfers.changed.wait()
                self._take_one()
        except BaseException as problem:
            with transfers.changed:
                self._problem = problem
                for transfer in [t for t in transfers.wanted if t.source in (self._source, None)]:
                    transfers.wanted.remove(transfer)
                    transfer.finish(problem)

    def _take_one(self) -> None:
        transfers = self._transfers
        header = torch.empty(_HEADER, dtype=torch.int64)
        transfers._patient.recv(header, self._source)
        tag, size = header.tolist()
        with transfers.changed:
            transfer = transfers.take_wanted(self._source, tag)
        if transfer is not None:
            transfer.source = self._source
            data = _bytes(transfer.tensor)
            if data.numel() == size:
                self._receive(data, transfer)
                return
        message = torch.empty(size, dtype=torch.uint8)
        self._receive(message, None)
        if transfer is not None:
            transfer.finish(_fill(transfer.tensor, message))
            return
        with transfers.changed:
            # Somebody may have come to want it meanwhile.
            transfer = transfers.take_wanted(self._source, tag)
            if transfer is None:
                self._kept.append((tag, message))
                return
        transfer.source = self._source
        transfer.finish(_fill(transfer.tensor, message))

    def _receive(self, data: torch.Tensor, transfer: Transfer | None) -> None:
        try:
            if data.numel():
                self._transfers._patient.recv(data, self._source)
        except BaseException as problem:
            if transfer is not None:
                transfer.finish(problem)
            raise
        if transfer is not None:
            transfer.finish()


def _fill(tensor: torch.Tensor, message: torch.Tensor) -> Error | None:
    """Put a message into the tensor that it is for; an error if it does not fit."""
    data = _bytes(tensor)
    if data.numel() != message.numel():
        return Error(f"a message of {message.numel()} bytes came for a tensor of {data.numel()}")
    data.copy_(message)
    return None


__all__: list[Any] = ["Transfer", "Transfers"]
