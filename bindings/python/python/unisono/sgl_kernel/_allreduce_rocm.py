"""`sgl_kernel.allreduce` as it is on AMD's platform: peers' memory by handle and offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from ._gpu import as_bytes, current_device, described, device_of, memory_as_tensor, stream_of


def meta_size() -> int:
    """Bytes of a rank's signals. Its memory for them is as much and, behind it, as much as the largest message."""
    return _core.gpu_meta_size(rocm=True)


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
    return memory_as_tensor(current_device(), size)


def get_meta_buffer_ipc_handle(inp: torch.Tensor) -> torch.Tensor:
    """The 64 bytes by which others open the allocation that begins where the tensor does."""
    handle = _core.gpu_export(device_of(inp), inp.data_ptr())
    return torch.tensor(list(handle), dtype=torch.uint8)


def init_custom_qr(rank: int, world_size: int, qr_max_size: int | None = None) -> int:
    """Begin a quick all-reduce: values travel quantised. `qr_max_size`: bytes of the largest message, 2 GiB unless said."""
    return _core.gpu_init_custom_qr(current_device(), rank, world_size, qr_max_size)


def qr_get_handle(fa: int) -> torch.Tensor:
    """The 64 bytes by which the peers open this rank's memory."""
    return torch.tensor(list(_core.gpu_qr_get_handle(fa)), dtype=torch.uint8)


def qr_open_handles(fa: int, handles: Sequence[Any]) -> None:
    """Of each rank, what its `qr_get_handle` returned."""
    _core.gpu_qr_open_handles(fa, [as_bytes(handle) for handle in handles])


def qr_all_reduce(fa: int, *arguments: Any, cast_bf2half: bool = False, **named: Any) -> None:
    """`qr_all_reduce(fa, inp, out, quant_level, cast_bf2half=False)`: sum the ranks' inputs into `out`, quantised on the way.

    `quant_level`: 0 none, 1 INT8, 2 INT6, 3 INT4. f16 and bf16; with `cast_bf2half`, bf16 travels as f16. The operator's order of
    arguments; SGLang's wrapper names another one, `(fa, quant_level, inp, out)`, which is understood as well.
    """
    positional = list(arguments)
    if positional and not isinstance(positional[0], torch.Tensor):
        # The level first.
        positional = positional[1:3] + positional[:1] + positional[3:]
    names = ["inp", "out", "quant_level", "cast_bf2half"]
    found: dict[str, Any] = {"cast_bf2half": cast_bf2half, **dict(zip(names, positional)), **named}
    if unknown := sorted(found.keys() - set(names)) or positional[len(names) :]:
        raise TypeError(f"qr_all_reduce takes fa, inp, out, quant_level and cast_bf2half; {unknown} as well")
    if missing := [name for name in names if name not in found]:
        raise TypeError(f"qr_all_reduce lacks {', '.join(missing)}")
    inp, out = found["inp"], found["out"]
    _core.gpu_qr_all_reduce(
        fa, described(inp), described(out), found["quant_level"], bool(found["cast_bf2half"]), stream_of(inp)
    )


def qr_check(fa: int) -> None:
    """Wait for the stream, then raise `Overdue` if a kernel waited for a peer in vain."""
    _core.gpu_qr_check(fa)


def qr_destroy(fa: int) -> None:
    """Give back what belongs to a quick all-reduce. All ranks' streams must be empty."""
    _core.gpu_qr_destroy(fa)


def qr_max_size() -> int:
    """Bytes of the largest message unless said otherwise."""
    return _core.gpu_qr_max_size()


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
    "mscclpp_check",
    "mscclpp_dispose",
    "mscclpp_generate_unique_id",
    "mscclpp_init_context",
    "qr_all_reduce",
    "qr_check",
    "qr_destroy",
    "qr_get_handle",
    "qr_max_size",
    "qr_open_handles",
    "register_buffer",
    "register_graph_buffers",
    "set_patience",
]
