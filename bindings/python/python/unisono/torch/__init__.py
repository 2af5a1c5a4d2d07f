"""unisono as a backend of `torch.distributed`; importing this registers it.

    import torch.distributed as dist
    import unisono.torch

    dist.init_process_group("unisono")

All that torch offers on CPU tensors works as with Gloo: sub-groups, asynchronous operations, send and recv with tags, object
collectives, DeviceMesh, DTensor, functional collectives, DistributedDataParallel, torch.compile. Where the ranks of a group are
on several machines, Gloo carries what goes between them. `install()` makes it the default for CPU tensors.

On torch 2.14 and newer it may be one of several backends of a group (`"cpu:unisono,cuda:nccl"`). Before, torch lets a backend
in Python stand for a whole group only, and would forget the others without a word: the mixed form is refused there.
Tests run on torch 2.13 and 2.15.
From 2.14 on, torch forwards only `wait()` and `get_future()` of a handle on a started operation: `is_completed()` stays false
there, and a `recv` from anybody cannot say whom it was from.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d as _c10d

from .. import Communicator
from ._collectives import Collectives
from ._meeting import connect

_NAME = "unisono"
_IS_WHOLE_GROUP = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 14)


if _IS_WHOLE_GROUP:

    class ProcessGroup(Collectives, dist.ProcessGroup):  # type: ignore[misc]  # torch types its methods by overloads
        """A group of torch's over a communicator."""

        def __init__(self, store: _c10d.Store, rank: int, size: int, timeout: timedelta) -> None:
            dist.ProcessGroup.__init__(self, rank, size)  # type: ignore[call-arg]
            self._prepare(connect(store, rank, size, timeout), timeout)

        def shutdown(self) -> None:
            self._leave()

        # torch keeps a group's name with its backends, of which this one has none.

        _name = ""
        _description = ""

        def setGroupName(self, name: str) -> None:
            self._name = name

        def getGroupName(self) -> str:
            return self._name

        def setGroupDesc(self, description: str) -> None:
            self._description = description

        def getGroupDesc(self) -> str:
            return self._description

    _make: Any = ProcessGroup

else:

    # With TORCH_DISTRIBUTED_DEBUG=DETAIL torch wraps a backend in one of its own, which keeps no Python object alive.
    _backends: set[Any] = set()

    class Backend(Collectives, _c10d.Backend):
        """A backend for a group's CPU tensors, over a communicator."""

        supports_splitting = False
        supports_coalescing = False
        supports_shrinking = False
        supports_reconfigure = False
        supports_window = False
        supports_time_estimate = False
        _supports_time_estimate = False

        def __init__(self, store: _c10d.Store, rank: int, size: int, timeout: timedelta) -> None:
            _c10d.Backend.__init__(self, rank, size)
            self._prepare(connect(store, rank, size, timeout), timeout)
            _backends.add(self)
            self._options = _c10d.Backend.Options(_NAME, timeout)

        @property
        def options(self) -> Any:
            return self._options

        # What torch's own checks compare between ranks; the library compares the calls themselves.

        def _set_sequence_number_for_group(self) -> None:
            pass

        def _get_sequence_number_for_group(self) -> int:
            return 0

        def shutdown(self) -> None:
            _backends.discard(self)
            self._leave()

    _make = Backend


def _refuse_mixed_groups() -> None:
    """Before torch 2.14: say so where a group is to have another backend beside this one."""
    check = dist.distributed_c10d.BackendConfig.__init__

    @functools.wraps(check)
    def checked(self: Any, backend: Any) -> None:
        check(self, backend)
        others = {name for name in self.get_device_backend_map().values() if name != _NAME}
        if _NAME in self.get_device_backend_map().values() and others:
            raise ValueError(
                f"{str(backend)!r}: on torch {torch.__version__} a group that unisono is part of can have no other "
                f"backend, and torch would forget {sorted(others)} without a word. Use torch 2.14 or newer, or two groups"
            )

    dist.distributed_c10d.BackendConfig.__init__ = checked  # type: ignore[method-assign]


def install() -> None:
    """Let CPU tensors use unisono where no backend is named: `dist.init_process_group()`."""
    dist.Backend.default_device_backend_map["cpu"] = _NAME


if _NAME.upper() not in dist.Backend._plugins:
    dist.Backend.register_backend(_NAME, _make, devices=["cpu"])
    if _IS_WHOLE_GROUP:
        _refuse_mixed_groups()

__all__ = ["Collectives", "Communicator", "connect", "install"]
