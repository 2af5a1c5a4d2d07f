"""Making tensors: like another one, or over registered memory. torch and numpy are imported only if they are used."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from ._core import Communicator, RegisteredBuffer


def new_like(tensor: Any, shape: Sequence[int]) -> Any:
    """A tensor of the same kind and type as `tensor`, of this shape, with room for a result."""
    if hasattr(tensor, "new_empty"):  # torch
        return tensor.new_empty(shape)
    import numpy

    if isinstance(tensor, numpy.ndarray):
        return numpy.empty(shape, tensor.dtype)
    try:
        dtype = numpy.asarray(tensor).dtype
    except (TypeError, ValueError, BufferError):
        dtype = numpy.from_dlpack(tensor).dtype
    return numpy.empty(shape, dtype)


def empty(comm: Communicator, shape: int | Sequence[int], dtype: Any) -> Any:
    """A tensor over registered memory: torch's for a `torch.dtype`, else numpy's. See `Communicator.empty`."""
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    count = math.prod(extents)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(dtype, torch.dtype):
        buffer = comm.allocate(count, str(dtype).removeprefix("torch."))
        if count == 0:
            return torch.empty(extents, dtype=dtype)
        return torch.frombuffer(buffer, dtype=dtype).reshape(extents)
    import numpy

    numpy_dtype = numpy.dtype(_numpy_name(dtype))
    memory: Any = comm.allocate(count, numpy_dtype.name)
    return numpy.frombuffer(memory, numpy_dtype).reshape(extents)


_SHORT_NAMES = {"f": "float", "i": "int", "u": "uint"}


def _numpy_name(dtype: Any) -> Any:
    """`f32` as `float32`: the library's names for numpy's types; `bf16` needs the package ml_dtypes."""
    if not isinstance(dtype, str):
        return dtype
    if dtype in ("bf16", "bfloat16"):
        import ml_dtypes

        return ml_dtypes.bfloat16
    kind, bits = dtype[:1], dtype[1:]
    # numpy's own short names count bytes: f4, i8. The library's count bits.
    if kind in _SHORT_NAMES and bits in ("16", "32", "64") or dtype in ("i8", "u8"):
        return f"{_SHORT_NAMES[kind]}{bits}"
    return dtype


__all__ = ["RegisteredBuffer", "empty", "new_like"]
