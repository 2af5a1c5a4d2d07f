"""SGLang's shared-memory collectives for CPU tensors, under their names and schemas, over unisono.

    import unisono.sgl_kernel as shm

    shm.initialize(world_size, rank)                   # MASTER_ADDR and MASTER_PORT name the engine
    torch.ops.unisono.shm_allreduce(tensor, 0)         # in place, sum; or shm.shm_allreduce(tensor)
    everything = torch.ops.unisono.shm_allgather(tensor, -1)

`install()` puts the same operators under `torch.ops.sgl_kernel` and opens SGLang's gate, so that an x86 machine without AMX
uses them instead of Gloo. Tensors are contiguous and on the CPU; others are refused. While an operator waits, other threads of
Python run, and Ctrl-C ends the wait. What fails raises this package's exceptions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torch

from ._groups import close, communicator, initialize, is_initialized, shm_group_initialize
from ._operators import Registered, register
from ._sglang import Installed, install, plugin

# Here, and not when somebody asks for it: whoever imports this has the operators.
_REGISTERED = register("unisono")


def shm_allreduce(data: torch.Tensor, reduce_op: int = 0, handle: int = 0) -> None:
    """Fold the tensors of all ranks into one, in place; `reduce_op` as `torch.distributed.ReduceOp` numbers them, 0 is sum."""
    torch.ops.unisono.shm_allreduce(data, reduce_op, handle)


def shm_allgather(data: torch.Tensor, dim: int, handle: int = 0) -> torch.Tensor:
    """The tensors of all ranks, one after the other along dimension `dim`, which may count from the end."""
    result: torch.Tensor = torch.ops.unisono.shm_allgather(data, dim, handle)
    return result


def shm_allgather_into_tensor(out: torch.Tensor, data: torch.Tensor, handle: int = 0) -> None:
    """The same along the first dimension, into `out`."""
    torch.ops.unisono.shm_allgather_into_tensor(out, data, handle)


def shm_reduce_scatter_tensor(out: torch.Tensor, data: torch.Tensor, op: int = 0, handle: int = 0) -> None:
    """Fold the tensors of all ranks; each keeps its part of the first dimension in `out`."""
    torch.ops.unisono.shm_reduce_scatter_tensor(out, data, op, handle)


def shm_alltoall(out: torch.Tensor, data: torch.Tensor, handle: int = 0) -> None:
    """Part `r` of `data` goes to rank `r`, where it is part number of-this-rank of `out`."""
    torch.ops.unisono.shm_alltoall(out, data, handle)


def shm_group_allreduce(handle: int, data: torch.Tensor) -> None:
    """`shm_allreduce` by sum, the group first."""
    torch.ops.unisono.shm_group_allreduce(handle, data)


def shm_group_allgather(handle: int, out: torch.Tensor, data: torch.Tensor) -> None:
    """`shm_allgather_into_tensor`, the group first."""
    torch.ops.unisono.shm_group_allgather(handle, out, data)


def shm_group_alltoall(handle: int, out: torch.Tensor, data: torch.Tensor) -> None:
    """`shm_alltoall`, the group first."""
    torch.ops.unisono.shm_group_alltoall(handle, out, data)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """What else SGLang's package of this name has: the all-reduce between GPUs, imported when it is asked for."""
        # A submodule that is being looked for is not to be looked for in itself.
        if not name.startswith("_") and name != "allreduce":
            try:
                allreduce = importlib.import_module(".allreduce", __name__)
            except ModuleNotFoundError as missing:
                if missing.name != f"{__name__}.allreduce":
                    raise
            else:
                if name in getattr(allreduce, "__all__", ()):
                    return getattr(allreduce, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Installed",
    "Registered",
    "close",
    "communicator",
    "initialize",
    "install",
    "is_initialized",
    "plugin",
    "register",
    "shm_allgather",
    "shm_allgather_into_tensor",
    "shm_allreduce",
    "shm_alltoall",
    "shm_group_allgather",
    "shm_group_allreduce",
    "shm_group_alltoall",
    "shm_group_initialize",
    "shm_reduce_scatter_tensor",
]
