"""`sgl_kernel.allreduce` as it is on NVIDIA's platform: peers' memory by address."""

from __future__ import annotations

import torch

from .. import _core
from ._allreduce_common import (
    check,
    dispose,
    mscclpp_allreduce,
    mscclpp_check,
    mscclpp_dispose,
    mscclpp_generate_unique_id,
    mscclpp_init_context,
    set_patience,
)
from ._gpu import described, device_of, stream_of


def meta_size() -> int:
    """Bytes of a rank's signals. Its memory for them is as much and, behind it, as much as the largest message."""
    return _core.gpu_meta_size()


def init_custom_ar(ipc_tensors: list[int], rank_data: torch.Tensor, rank: int, full_nvlink: bool) -> int:
    """Begin an all-reduce; what is returned stands for it in all other functions.

    `ipc_tensors`: every rank's memory for signals and scratch, as addresses here, `meta_size()` bytes and the largest message.
    `rank_data`: bytes on the device for a table of registered buffers, 64 for each. 2 to 8 ranks, odd numbers included; more
    than two must be fully connected.
    """
    return _core.gpu_init_custom_ar(device_of(rank_data), list(ipc_tensors), described(rank_data), rank, full_nvlink)


def all_reduce(fa: int, inp: torch.Tensor, out: torch.Tensor, reg_buffer: int, reg_buffer_sz_bytes: int) -> None:
    """Sum the ranks' inputs into `out`. With `reg_buffer`, the address of a registered buffer, by way of it; with 0 the input is
    registered itself, or a graph is being captured. The same bits on every rank, whatever the length."""
    _core.gpu_all_reduce(fa, described(inp), described(out), reg_buffer, reg_buffer_sz_bytes, stream_of(inp))


def register_buffer(fa: int, fake_ipc_ptrs: list[int]) -> None:
    """Make a buffer known to all, by its address on each rank as seen here."""
    _core.gpu_register_buffer(fa, list(fake_ipc_ptrs))


def get_graph_buffer_ipc_meta(fa: int) -> tuple[list[int], list[int]]:
    """Of each input that was captured: the 64 bytes of its allocation's handle, one integer each, and its offset there."""
    handles, offsets = _core.gpu_get_graph_buffer_ipc_meta(fa)
    return list(handles), offsets


def register_graph_buffers(fa: int, handles: list[list[int]], offsets: list[list[int]]) -> None:
    """Of each rank, what its `get_graph_buffer_ipc_meta` returned. Then the graphs may be replayed."""
    _core.gpu_register_graph_buffers(fa, [bytes(one) for one in handles], [list(one) for one in offsets])


__all__ = [
    "all_reduce",
    "check",
    "dispose",
    "get_graph_buffer_ipc_meta",
    "init_custom_ar",
    "meta_size",
    "mscclpp_allreduce",
    "mscclpp_check",
    "mscclpp_dispose",
    "mscclpp_generate_unique_id",
    "mscclpp_init_context",
    "register_buffer",
    "register_graph_buffers",
    "set_patience",
]
