"""The groups of ranks that the operators run on, by their handles.

0 is the group of `initialize`, one per process as engines expect it; `shm_group_initialize` makes any number of others. A
group is a `unisono.Communicator`, so everything that is promised of those holds.
"""

from __future__ import annotations

import atexit
import os
import threading

from .. import Communicator, SettingError, _core, init

# What the group of `initialize` is called, and what the names of others begin with.
_NAME = "sgl_kernel"

_groups: dict[int, Communicator] = {}
_handles: dict[str, int] = {}
# Threads may wait for the ranks of different groups at the same time.
_locks: dict[str, threading.Lock] = {}


def initialize(size: int, rank: int) -> None:
    """Meet the other ranks: the group that operators run on unless they are told another.

    All ranks have the same MASTER_ADDR and MASTER_PORT, which together are the engine's name on this machine: nothing is sent
    there. Returns once all have come. A second call with the same numbers changes nothing.

    Raises `RendezvousError` that says who did not come, or `SettingError`.
    """
    with _meeting(_NAME):
        there = _groups.get(0)
        if there is not None:
            _see_that_same("initialize", there, size, rank)
            return
        _adopt(_meet(_NAME, size, rank), default=True)


def shm_group_initialize(name: str, size: int, rank: int) -> int:
    """Meet the other ranks of the group with this name; gives its handle, which is this process's own.

    A second call with the same name gives the same handle.
    """
    with _meeting(f"{_NAME}/{name}"):
        handle = _handles.get(name)
        if handle is not None:
            _see_that_same(f"shm_group_initialize({name!r})", _groups[handle], size, rank)
            return handle
        handle = _adopt(_meet(f"{_NAME}/{name}", size, rank), default=False)
        _handles[name] = handle
        return handle


def communicator(handle: int = 0) -> Communicator:
    """The communicator of a group: for what the operators do not offer, such as `abort`, `peers` and registered tensors."""
    comm = _groups.get(handle)
    if comm is None:
        what = "call initialize(size, rank) first" if handle == 0 else "pass what shm_group_initialize returned"
        raise ValueError(f"no group has handle {handle}: {what}")
    return comm


def is_initialized(handle: int = 0) -> bool:
    """Whether there is a group with this handle."""
    return handle in _groups


def any_initialized() -> bool:
    """Whether there is any group."""
    return bool(_groups)


def close(handle: int | None = None) -> None:
    """Leave a group, or all, at once and alone: a rank that still needs this one gets `PeerLeft`. Handles are not given again.

    At the end of the program this is done by itself.
    """
    for one in list(_groups) if handle is None else [handle]:
        comm = _groups.pop(one, None)
        if comm is None:
            raise ValueError(f"no group has handle {one}")
        for name in [name for name, known in list(_handles.items()) if known == one]:
            del _handles[name]
        _core.shm_release(one)
        comm.leave()


atexit.register(close)


def _meeting(group: str) -> threading.Lock:
    """Held while this process meets the ranks of a group: once, whoever asks."""
    return _locks.setdefault(group, threading.Lock())


def _meet(group: str, size: int, rank: int) -> Communicator:
    port = os.environ.get("MASTER_PORT", "")
    if port and not port.isdecimal():
        raise SettingError(
            f"MASTER_PORT={port!r}: expected a whole number", name="MASTER_PORT", value=port, problem="no number"
        )
    return init(
        rank=rank,
        world_size=size,
        address=os.environ.get("MASTER_ADDR") or None,
        port=int(port) if port else None,
        group=group,
    )


def _adopt(comm: Communicator, *, default: bool) -> int:
    handle = _core.shm_adopt(comm, default)
    _groups[handle] = comm
    return handle


def _see_that_same(call: str, comm: Communicator, size: int, rank: int) -> None:
    if (comm.world_size, comm.rank) != (size, rank):
        raise ValueError(
            f"{call}: this process is rank {comm.rank} of {comm.world_size} there already, and cannot become rank {rank} of "
            f"{size}: close() it first"
        )
