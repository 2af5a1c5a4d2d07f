"""What both platforms' functions have in common."""

from __future__ import annotations

import torch

from .. import _core
from ._gpu import as_bytes, described, device_of, stream_of


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
    """128 bytes by which ranks find one another, drawn by the process that is to be rank 0. They are a secret.

    Until the ranks have gathered, a port of this machine is open to other machines: at the address that UNISONO_GPU_ADDRESS says,
    else at the one from which this machine would send. 127.0.0.1 keeps it local.
    """
    return torch.tensor(list(_core.gpu_mscclpp_generate_unique_id()), dtype=torch.uint8)


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
    """Begin an all-reduce by packets; all ranks call it at once.

    `scratch`: device memory, 8 times the longest message. `context_selection`: 1, the ranks of one node; 2, those of two nodes, of
    which `nranks_per_node` are on each, one after the other. What goes to the other node goes over tcp, by way of pinned memory of
    the host's: about twice as many bytes as `put_buffer` has. UNISONO_GPU_ADDRESS says at which of its addresses the others reach
    this machine. `rank_to_ib` does not matter.
    """
    return _core.gpu_mscclpp_init_context(
        device_of(scratch),
        as_bytes(unique_id),
        rank,
        world_size,
        described(scratch),
        described(put_buffer),
        nranks_per_node,
        list(rank_to_node),
        context_selection,
    )


def mscclpp_allreduce(context: int, inp: torch.Tensor, out: torch.Tensor, nthreads: int, nblocks: int) -> None:
    """Sum the ranks' inputs into `out`, by packets. Any buffers do."""
    _core.gpu_mscclpp_allreduce(context, described(inp), described(out), nthreads, nblocks, stream_of(inp))


def mscclpp_dispose(context: int) -> None:
    """Give back what belongs to a context. All ranks' streams must be empty."""
    _core.gpu_mscclpp_dispose(context)


def mscclpp_check(context: int) -> None:
    """Wait for the stream, then raise `Overdue` if a kernel waited for a peer in vain."""
    _core.gpu_mscclpp_check(context)
