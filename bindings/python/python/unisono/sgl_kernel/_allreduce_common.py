"""What both platforms' functions have in common."""

from __future__ import annotations

import torch

from .. import NotAvailable, _core

_MSCCLPP = "the packet all-reduce (mscclpp_*)"


def meta_size() -> int:
    """Bytes of a rank's signals. Its memory for them is as much and, behind it, as much as the largest message."""
    return _core.gpu_meta_size()


def dispose(fa: int) -> None:
    """Give back what belongs to an all-reduce. All ranks' streams must be empty."""
    _core.gpu_dispose(fa)


def check(fa: int) -> None:
    """Wait for the stream, then raise `Overdue` if a kernel waited for a peer in vain. The next all-reduce raises it, too."""
    _core.gpu_check(fa)


def set_patience(fa: int, seconds: float) -> None:
    """How long kernels wait for a peer: 30 minutes unless said."""
    _core.gpu_set_patience(fa, seconds)


def mscclpp_generate_unique_id() -> torch.Tensor:
    raise NotAvailable(f"not available in this build: {_MSCCLPP}")


def mscclpp_init_context(
    unique_id: torch.Tensor,
    rank: int,
    world_size: int,
    scratch: torch.Tensor,
    put_buffer: torch.Tensor,
    nranks_per_node: int,
    rank_to_node: list[int],
    rank_to_ib: list[int],
    context_selection: int,
) -> int:
    raise NotAvailable(f"not available in this build: {_MSCCLPP}")


def mscclpp_allreduce(context: int, inp: torch.Tensor, out: torch.Tensor, nthreads: int, nblocks: int) -> None:
    raise NotAvailable(f"not available in this build: {_MSCCLPP}")
