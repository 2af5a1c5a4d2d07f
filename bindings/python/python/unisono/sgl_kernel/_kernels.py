"""The operators in Python, for a torch without the stable C interface (before 2.7), and what all torches need in Python.

They say and refuse the same as those in Rust (`src/sgl/operators.rs`), at about a microsecond more per call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import _groups

# As torch.distributed.ReduceOp numbers them.
_OPS = ("sum", "average", "product", "min", "max", "and", "or", "xor")


def _shm_allreduce(data: torch.Tensor, reduce_op: int, handle: int = 0) -> None:
    _groups.communicator(handle).all_reduce(data, _named(reduce_op))


def _shm_allgather(data: torch.Tensor, dim: int, handle: int = 0) -> torch.Tensor:
    result: torch.Tensor = _groups.communicator(handle).all_gather(data, dim=dim)
    return result


def _shm_allgather_into_tensor(out: torch.Tensor, data: torch.Tensor, handle: int = 0) -> None:
    _groups.communicator(handle).all_gather(data, out=out)


def _shm_reduce_scatter_tensor(out: torch.Tensor, data: torch.Tensor, op: int, handle: int = 0) -> None:
    _groups.communicator(handle).reduce_scatter(data, _named(op), out=out)


def _shm_alltoall(out: torch.Tensor, data: torch.Tensor, handle: int = 0) -> None:
    _groups.communicator(handle).all_to_all(data, out=out)


def _shm_group_allreduce(handle: int, data: torch.Tensor) -> None:
    _shm_allreduce(data, 0, handle)


def _shm_group_allgather(handle: int, out: torch.Tensor, data: torch.Tensor) -> None:
    _shm_allgather_into_tensor(out, data, handle)


def _shm_group_alltoall(handle: int, out: torch.Tensor, data: torch.Tensor) -> None:
    _shm_alltoall(out, data, handle)


def _named(op: int) -> str:
    if not 0 <= op < len(_OPS):
        raise ValueError(f"no reduce operation has number {op}: they are those of torch.distributed.ReduceOp, 0 (sum) to 7")
    return _OPS[op]


def _explained(name: str, handle_at: int, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel, whose errors say which operator it was and on which rank."""

    def explained(*args: Any) -> Any:
        try:
            return kernel(*args)
        except Exception as error:
            handle = args[handle_at] if handle_at < len(args) else 0
            place = ""
            if _groups.is_initialized(handle):
                comm = _groups.communicator(handle)
                place = f" on rank {comm.rank} of {comm.world_size}"
            error.args = (f"{name}{place}: {error}",)
            raise

    return explained


IN_PYTHON: dict[str, Callable[..., Any]] = {
    "shm_allreduce": _explained("shm_allreduce", 2, _shm_allreduce),
    "shm_allgather": _explained("shm_allgather", 2, _shm_allgather),
    "shm_allgather_into_tensor": _explained("shm_allgather_into_tensor", 2, _shm_allgather_into_tensor),
    "shm_reduce_scatter_tensor": _explained("shm_reduce_scatter_tensor", 3, _shm_reduce_scatter_tensor),
    "shm_alltoall": _explained("shm_alltoall", 2, _shm_alltoall),
    "shm_group_allreduce": _explained("shm_group_allreduce", 0, _shm_group_allreduce),
    "shm_group_allgather": _explained("shm_group_allgather", 0, _shm_group_allgather),
    "shm_group_alltoall": _explained("shm_group_alltoall", 0, _shm_group_alltoall),
}
"""What Rust has too, by name."""

SETTING_UP: dict[str, tuple[str, Callable[..., Any]]] = {
    "initialize": ("(int size, int rank) -> ()", _groups.initialize),
    "shm_group_initialize": ("(str name, int size, int rank) -> int", _groups.shm_group_initialize),
}
"""What is called once: schema and kernel."""


def _nothing(*args: Any) -> None:
    """What an operator in place does to a tensor without memory."""


def _gathered(data: torch.Tensor, dim: int, handle: int = 0) -> torch.Tensor:
    shape = list(data.shape) or [1]
    shape[dim] = shape[dim] * _groups.communicator(handle).world_size
    return data.new_empty(shape)


FAKE: dict[str, Callable[..., Any]] = {name: _nothing for name in IN_PYTHON} | {"shm_allgather": _gathered}
"""What torch.compile asks instead: shapes only."""
