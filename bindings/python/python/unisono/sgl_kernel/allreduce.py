"""SGLang's all-reduce between GPUs, under its names: `sgl_kernel.allreduce`.

    from unisono.sgl_kernel.allreduce import init_custom_ar, all_reduce, dispose

On AMD's platform (`torch.version.hip`) the functions are those that take handles, elsewhere those that take addresses;
`UNISONO_GPU_SURFACE=cuda` or `rocm` says it otherwise. They are operators of torch's as well, `torch.ops.unisono.*`;
`register_operators("sgl_kernel")` puts them where SGLang looks.

What upstream passes over in silence is an error here, or works: more than two ranks that are not fully connected, odd numbers of
ranks, lengths that are no multiple of 16 bytes. A kernel that waits for a peer in vain ends, and the next call raises
`unisono.Overdue` with rank, peer, block and flag.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from .. import SettingError
from . import _allreduce_cuda, _allreduce_operators, _allreduce_rocm

_SETTING = "UNISONO_GPU_SURFACE"


def _is_rocm() -> bool:
    said = os.environ.get(_SETTING) or ("cuda" if torch.version.hip is None else "rocm")
    if said not in ("cuda", "rocm"):
        problem = "expected cuda or rocm"
        raise SettingError(f"{_SETTING}={said!r}: {problem}", name=_SETTING, value=said, problem=problem)
    return said == "rocm"


IS_ROCM = _is_rocm()
"""Whether these are the functions of AMD's platform."""

if TYPE_CHECKING or not IS_ROCM:
    from ._allreduce_cuda import *  # noqa: F403
    from ._allreduce_cuda import __all__ as _names
else:
    from ._allreduce_rocm import *  # noqa: F403
    from ._allreduce_rocm import __all__ as _names


def register_operators(library: str = "sgl_kernel") -> list[str]:
    """Put the functions into a library of torch's, as `torch.ops.<library>.<name>`. What is there already stays as it is; the
    names that were not there before are returned."""
    if IS_ROCM:
        return _allreduce_operators.register(library, _allreduce_operators.ROCM, _allreduce_rocm)
    return _allreduce_operators.register(library, _allreduce_operators.CUDA, _allreduce_cuda)


register_operators("unisono")

__all__ = [*_names, "register_operators"]
