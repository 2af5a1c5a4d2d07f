"""`sgl_kernel.allreduce` as it is on AMD's platform: peers' memory by handle and offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import NotAvailable, _core
from ._allreduce_common import (
    check,
    dispose,
    meta_size,
    mscclpp_allreduce,
    mscclpp_generate_unique_id,
    mscclpp_init_context,
    set_patience,
)
from ._gpu import as_bytes, described, device_of, memory_as_tensor, stream_of

_QUICK = "the quick all-reduce (qr_*)"


def init_custom_ar(
    meta: torch.Tensor,
    rank_data: torch.Tensor,
    handles: Sequence[Any],
    offsets: list[int],
    rank: int,
    full_nvlink: bool,
) -> int:
    """Begin an all-reduce; what is returned stands for it in all other functions.

    `meta`: this rank's memory for signals and scratch, of `allocate_meta_buffer`; `handles` (64 bytes each) and `offsets` say where
    every rank's is. `rank_data`: bytes on the device for a table of registered buffers, 64 for each.
    """
    opened = [as_bytes(handle) for handle in handles]
    described_meta, table = described(meta), described(rank_data)
    return _core.gpu_init_custom_ar_rocm(
        device_of(meta), described_meta, table, opened, list(offsets), rank, full_nvlink
    )


def all_reduce_reg(fa: int, inp: torch.Tensor, out: torch.Tensor) -> None:
    """Sum the ranks' inputs into `out`; the input is registered, or a graph is being captured."""
    _core.gpu_all_reduce(fa, described(inp), described(out), 0, 0, stream_of(inp))


def all_reduce_unreg(fa: int, inp: torch.Tensor, reg_buffer: torch.Tensor, out: torch.Tensor) -> None:
    """The same of any input, by way of a registered buffer that is at least as large."""
    _core.gpu_all_reduce_unreg(fa, described(inp), described(reg_buffer), described(out), stream_of(inp))


def deterministic_all_reduce_reg(fa: int, inp: torch.Tensor, out: torch.Tensor) -> None:
    """`all_reduce_reg`, whose bits depend on neither length nor algorithm: they never do here."""
    all_reduce_reg(fa, inp, out)


def deterministic_all_reduce_unreg(fa: int, inp: torch.Tensor, reg_buffer: torch.Tensor, out: torch.Tensor) -> None:
    """`all_reduce_unreg`, whose bits depend on neither length nor algorithm: they never do here."""
    all_reduce_unreg(fa, inp, reg_buffer, out)


def register_buffer(fa: int, t: torch.Tensor, handles: Sequence[Any], offsets: list[int]) -> None:
    """Make a buffer known to all: the own one, and by handles and offsets everybody's."""
    _core.gpu_register_buffer_rocm(fa, described(t), [as_bytes(handle) for handle in handles], list(offsets))


def get_graph_buffer_ipc_meta(fa: int) -> tuple[torch.Tensor, list[int]]:
    """Of each input that was captured: the 64 bytes of its allocation's handle, in a tensor of bytes, and its offset there."""
    handles, offsets = _core.gpu_get_graph_buffer_ipc_meta(fa)
    return torch.tensor(list(handles), dtype=torch.uint8), offsets


def register_graph_buffers(fa: int, handles: Sequence[Any], offsets: list[list[int]]) -> None:
    """Of each rank, what its `get_graph_buffer_ipc_meta` returned. Then the graphs may be replayed."""
    _core.gpu_register_graph_buffers(fa, [as_bytes(one) for one in handles], [list(one) for one in offsets])


def allocate_meta_buffer(size: int) -> torch.Tensor:
    """New zeroed device memory of the kind that signals need; also while a graph is being captured."""
    return memory_as_tensor(torch.cuda.current_device() if torch.cuda.is_available() else 0, size)


def get_meta_buffer_ipc_handle(inp: torch.Tensor) -> torch.Tensor:
    """The 64 bytes by which others open the allocation that begins where the tensor does."""
    handle = _core.gpu_export(device_of(inp), inp.data_ptr())
    return torch.tensor(list(handle), dtype=torch.uint8)


def init_custom_qr(rank: int, world_size: int, qr_max_size: int | None = None) -> int:
    raise NotAvailable(f"not available in this build: {_QUICK}")


def qr_get_handle(fa: int) -> torch.Tensor:
    raise NotAvailable(f"not available in this build: {_QUICK}")


def qr_open_handles(fa: int, handles: list[torch.Tensor]) -> None:
    raise NotAvailable(f"not available in this build: {_QUICK}")


def qr_all_reduce(fa: int, inp: torch.Tensor, out: torch.Tensor, quant_level: int, cast_bf2half: bool = False) -> None:
    raise NotAvailable(f"not available in this build: {_QUICK}")


def qr_destroy(fa: int) -> None:
    raise NotAvailable(f"not available in this build: {_QUICK}")


def qr_max_size() -> int:
    raise NotAvailable(f"not available in this build: {_QUICK}")


__all__ = [
    "all_reduce_reg",
    "all_reduce_unreg",
    "allocate_meta_buffer",
    "check",
    "deterministic_all_reduce_reg",
    "deterministic_all_reduce_unreg",
    "dispose",
    "get_graph_buffer_ipc_meta",
    "get_meta_buffer_ipc_handle",
    "init_custom_ar",
    "init_custom_qr",
    "meta_size",
    "mscclpp_allreduce",
    "mscclpp_generate_unique_id",
    "mscclpp_init_context",
    "qr_all_reduce",
    "qr_destroy",
    "qr_get_handle",
    "qr_max_size",
    "qr_open_handles",
    "register_buffer",
    "register_graph_buffers",
    "set_patience",
]
