"""Collectives between the ranks of a machine over shared memory.

    comm = unisono.init()          # under torchrun or `unisono run`; or init(rank=0, world_size=2, ...)
    comm.all_reduce(tensor)        # in place, on a torch tensor, a numpy array, or anything with the buffer protocol

Tensors must be contiguous and on the host; others are refused, and nothing is copied behind the caller's back. The
interpreter's lock is released while a call waits, and Ctrl-C ends any wait. `unisono.torch` is the backend of
`torch.distributed`.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable, Sequence
from enum import Enum

if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError("unisono does not support free-threaded Python: run a build with the global interpreter lock")

from . import _core, _logging
from ._core import Communicator, RegisteredBuffer, Work, __version__
from ._errors import (
    Aborted,
    Busy,
    Closed,
    DeviceError,
    Error,
    Forked,
    Interrupted,
    InvalidArgument,
    LastOperation,
    Mismatch,
    NotAvailable,
    OutOfMemory,
    Overdue,
    PeerDied,
    PeerLeft,
    PeerStatus,
    RendezvousError,
    SettingError,
    TimeoutError,
)

# What is left for started operations once the program has ended.
_MOMENT = 2.0
atexit.register(_core.end_started, _MOMENT)


class ReduceOp(str, Enum):
    """How values are folded into one. Every method takes the name as well: `"sum"`."""

    SUM = "sum"
    PRODUCT = "product"
    MIN = "min"
    MAX = "max"
    AVERAGE = "average"
    AND = "and"
    OR = "or"
    XOR = "xor"


def init(
    *,
    rank: int | None = None,
    world_size: int | None = None,
    address: str | None = None,
    port: int | None = None,
    group: str | None = None,
    run_id: str | None = None,
    timeout: float | None = None,
    rendezvous_timeout: float | None = None,
    threads: int | None = None,
    exchange: Callable[[bytes], Sequence[bytes]] | None = None,
) -> Communicator:
    """Meet the other ranks of this machine; returns once all have come.

    Without `rank` and `world_size` the environment says who this rank is, as torchrun and `unisono run` set it.

    - `address`, `port`, `group`, `run_id`: all ranks give the same; they are a name, and nothing is opened.
    - `timeout`: how long an operation may wait, in seconds; 30 minutes by default, `float("inf")` for ever.
    - `rendezvous_timeout`: how long to wait for all ranks to come; 5 minutes by default.
    - `threads`: how many threads share the copying and reducing of this rank's collectives.
    - `exchange`: meet through a function that gives every rank the bytes of all, in rank order, instead of by name.

    Raises `SettingError`, `RendezvousError` that says who did not come, or what `exchange` raised.
    """
    _logging.start()
    return _core.init(
        rank=rank,
        world_size=world_size,
        address=address,
        port=port,
        group=group,
        run_id=run_id,
        timeout=timeout,
        rendezvous_timeout=rendezvous_timeout,
        threads=threads,
        exchange=exchange,
    )


def in_process(world_size: int) -> list[Communicator]:
    """`world_size` ranks that are threads of this process: hand one to each thread."""
    _logging.start()
    return _core.in_process(world_size)


__all__ = [
    "Aborted",
    "Busy",
    "Closed",
    "Communicator",
    "DeviceError",
    "Error",
    "Forked",
    "Interrupted",
    "InvalidArgument",
    "LastOperation",
    "Mismatch",
    "NotAvailable",
    "OutOfMemory",
    "Overdue",
    "PeerDied",
    "PeerLeft",
    "PeerStatus",
    "ReduceOp",
    "RegisteredBuffer",
    "RendezvousError",
    "SettingError",
    "TimeoutError",
    "Work",
    "__version__",
    "in_process",
    "init",
]
