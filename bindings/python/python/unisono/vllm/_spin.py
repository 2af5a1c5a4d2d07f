"""`SpinCondition`: a bell over a zmq socket, which one writer rings and its readers sleep at once they have been idle for a while.

vLLM's queue wakes its readers with it. Ours does not need it, and offers it to who built on the name. Readers that read often never
go to the socket: `wait` only gives the core away.

The one invariant that matters: **a bell that was rung is heard by the next wait that sleeps**, and so is `cancel`. Only the last ring
is kept.
"""

from __future__ import annotations

import importlib
import itertools
import os
import time
from typing import Any

_numbers = itertools.count()
_RING = b"\0"


class SpinCondition:
    """One side of the bell at `notify_address`: the writer binds it, readers connect to it. `context` is a `zmq.Context`."""

    def __init__(self, is_reader: bool, context: Any, notify_address: str, busy_loop_s: float = 1) -> None:
        # Without types, and needed here only.
        zmq: Any = importlib.import_module("zmq")

        self.is_reader = is_reader
        self.last_read = time.monotonic() if is_reader else 0.0
        self.busy_loop_s = busy_loop_s if is_reader else 0.0
        self.local_notify_socket: Any = context.socket(zmq.SUB if is_reader else zmq.PUB)
        self.read_cancel_socket: Any = None
        self.write_cancel_socket: Any = None
        self.poller: Any = None
        if not is_reader:
            self.local_notify_socket.setsockopt(zmq.SNDHWM, 1)
            self.local_notify_socket.bind(notify_address)
            return
        self.local_notify_socket.setsockopt(zmq.CONFLATE, 1)
        self.local_notify_socket.setsockopt(zmq.SUBSCRIBE, b"")
        self.local_notify_socket.connect(notify_address)
        # Within the process: another thread ends a wait by it.
        inside = f"inproc://unisono-spin-{os.getpid()}-{next(_numbers)}"
        self.write_cancel_socket, self.read_cancel_socket = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        self.write_cancel_socket.bind(inside)
        self.read_cancel_socket.connect(inside)
        self.poller = zmq.Poller()
        for socket in (self.read_cancel_socket, self.local_notify_socket):
            self.poller.register(socket, zmq.POLLIN)

    def record_read(self) -> None:
        """Something was read: `wait` does not sleep for the next `busy_loop_s` seconds."""
        self.last_read = time.monotonic()

    def cancel(self) -> None:
        """End the wait of this reader, now and from now on, from another thread."""
        if self.is_reader:
            self.write_cancel_socket.send(_RING)

    def wait(self, timeout_ms: int | None = None) -> None:
        """Return at once after giving the core away, if something was read lately; else once the bell is rung, or after the time."""
        if not self.is_reader:
            raise AssertionError("only readers wait")
        if time.monotonic() - self.last_read <= self.busy_loop_s:
            os.sched_yield()
            return
        rung = dict(self.poller.poll(timeout_ms))
        # A cancellation stays where it is: it holds for every later wait.
        if self.local_notify_socket in rung and self.read_cancel_socket not in rung:
            self.local_notify_socket.recv()

    def notify(self) -> None:
        """Ring: every reader that sleeps wakes."""
        if self.is_reader:
            raise AssertionError("only writers notify")
        self.local_notify_socket.send(_RING)
