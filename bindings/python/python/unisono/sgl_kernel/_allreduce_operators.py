"""The functions as operators of torch's: `torch.ops.unisono.*`, and under `torch.ops.sgl_kernel` on request.

Schemas are upstream's, per platform. An operator that is there already, of another package, stays as it is.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

_COMMON = {
    "meta_size": "() -> int",
    "dispose": "(int fa) -> ()",
    "mscclpp_generate_unique_id": "() -> Tensor",
    "mscclpp_init_context": "(Tensor unique_id, int rank, int world_size, Tensor scratch, Tensor put_buffer, "
    "int nranks_per_node, int[] rank_to_node, int[] rank_to_ib, int context_selection) -> int",
    "mscclpp_allreduce": "(int context, Tensor inp, Tensor(a!) out, int nthreads, int nblocks) -> ()",
}

CUDA = {
    **_COMMON,
    "init_custom_ar": "(int[] ipc_tensors, Tensor rank_data, int rank, bool full_nvlink) -> int",
    "all_reduce": "(int fa, Tensor inp, Tensor(a!) out, int reg_buffer, int reg_buffer_sz_bytes) -> ()",
    "register_buffer": "(int fa, int[] fake_ipc_ptrs) -> ()",
    "get_graph_buffer_ipc_meta": "(int fa) -> (int[], int[])",
    "register_graph_buffers": "(int fa, int[][] handles, int[][] offsets) -> ()",
}

ROCM = {
    **_COMMON,
    "init_custom_ar": "(Tensor meta, Tensor rank_data, str[] handles, int[] offsets, int rank, bool full_nvlink) -> int",
    "all_reduce_reg": "(int fa, Tensor inp, Tensor(a!) out) -> ()",
    "all_reduce_unreg": "(int fa, Tensor inp, Tensor reg_buffer, Tensor(a!) out) -> ()",
    "deterministic_all_reduce_reg": "(int fa, Tensor inp, Tensor(a!) out) -> ()",
    "deterministic_all_reduce_unreg": "(int fa, Tensor inp, Tensor reg_buffer, Tensor(a!) out) -> ()",
    "register_buffer": "(int fa, Tensor t, str[] handles, int[] offsets) -> ()",
    "get_graph_buffer_ipc_meta": "(int fa) -> (Tensor, int[])",
    "register_graph_buffers": "(int fa, str[] handles, int[][] offsets) -> ()",
    "allocate_meta_buffer": "(int size) -> Tensor",
    "get_meta_buffer_ipc_handle": "(Tensor inp) -> Tensor",
    "init_custom_qr": "(int rank, int world_size, int? qr_max_size=None) -> int",
    "qr_get_handle": "(int fa) -> Tensor",
    "qr_open_handles": "(int fa, Tensor[] handles) -> ()",
    "qr_all_reduce": "(int fa, Tensor inp, Tensor(a!) out, int quant_level, bool cast_bf2half=False) -> ()",
    "qr_destroy": "(int fa) -> ()",
    "qr_max_size": "() -> int",
}



def _nothing(*arguments: Any, **named: Any) -> None:
    """Of an operator that only writes into what it is given."""


def _bytes(count: int, dtype: torch.dtype = torch.uint8) -> Any:
    return lambda *arguments, **named: torch.empty(count, dtype=dtype)


FAKE: dict[str, Any] = {
    **{
        name: _nothing
        for name, schema in (CUDA | ROCM).items()
        if schema.endswith("-> ()") and "Tensor(a!)" in schema
    },
    "mscclpp_generate_unique_id": _bytes(128),
    "get_meta_buffer_ipc_handle": _bytes(64),
    "qr_get_handle": _bytes(64),
    "allocate_meta_buffer": lambda size: torch.empty(size, dtype=torch.int8),
}
"""What torch.compile asks instead of running an operator: shapes only. Those that are not here begin or end something, and are not
for what is compiled."""

# What was registered stays as long as the object that did it.
_libraries: list[Any] = []


def register(library: str, schemas: dict[str, str], functions: ModuleType) -> list[str]:
    """Put the functions into a library of torch's; returns the names of those that were not there before."""
    # Without types in torch.
    libraries: Any = torch.library
    fragment = libraries.Library(library, "FRAGMENT")
    _libraries.append(fragment)
    added = [name for name in schemas if not torch._C._dispatch_has_kernel(f"{library}::{name}")]
    for name in added:
        fragment.define(name + schemas[name])
        # Some have no tensor by which torch could choose a kernel, and all mean the same on any device.
        fragment.impl(name, getattr(functions, name), "CompositeExplicitAutograd")
        if name in FAKE:
            libraries.register_fake(f"{library}::{name}", FAKE[name])
        if "str[]" in schemas[name]:
            _take_bytes(getattr(getattr(torch.ops, library), name))
    return added


def _as_text(argument: Any) -> Any:
    """Handles are bytes, and schemas say text: torch gives a kernel in Python no bytes that are not UTF-8."""
    if isinstance(argument, (list, tuple)):
        return [one.decode("latin-1") if isinstance(one, bytes) else one for one in argument]
    return argument


class _Packet(OpOverloadPacket):
    """An operator that takes handles as bytes, too."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._op(*map(_as_text, args), **{name: _as_text(value) for name, value in kwargs.items()})


class _Overload(OpOverload):
    """As `_Packet`, of what is called as `torch.ops.sgl_kernel.init_custom_ar.default`."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._op(*map(_as_text, args), **{name: _as_text(value) for name, value in kwargs.items()})


def _take_bytes(packet: Any) -> None:
    packet.__class__ = _Packet
    for overload in packet.overloads():
        getattr(packet, overload).__class__ = _Overload
