"""Tensors as the compiled part wants them described, and device memory as tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

import torch

from .. import _core

Described = tuple[int, int, int, str, bool, int]


def described(tensor: torch.Tensor) -> Described:
    """Address, elements, bytes of each, the name of their type, whether contiguous, bytes to the end of the storage."""
    each = tensor.element_size()
    rest = tensor.untyped_storage().nbytes() - int(tensor.storage_offset()) * each
    name = str(tensor.dtype).removeprefix("torch.")
    return tensor.data_ptr(), tensor.numel(), each, name, tensor.is_contiguous(), int(rest)


def device_of(tensor: torch.Tensor) -> int:
    """The number of the device that a tensor lies on; a simulated one is 0."""
    return tensor.device.index or 0


def current_device() -> int:
    """The number of the device that torch uses unless told otherwise; a simulated one is 0."""
    return torch.cuda.current_device() if torch.cuda.is_available() else 0


def stream_of(tensor: torch.Tensor) -> int:
    """The stream on which torch works with the tensor's device now."""
    if tensor.is_cuda:
        return int(torch.cuda.current_stream(tensor.device).cuda_stream)
    return 0


def as_bytes(handle: Any) -> bytes:
    """A handle as bytes, text of one character per byte, a tensor of bytes, or integers."""
    if isinstance(handle, (bytes, bytearray)):
        return bytes(handle)
    if isinstance(handle, str):
        return handle.encode("latin-1")
    if isinstance(handle, torch.Tensor):
        return bytes(handle.contiguous().view(torch.uint8).tolist())
    if isinstance(handle, Iterable):
        return bytes(handle)
    raise TypeError(f"a handle is bytes, text, a tensor of bytes or integers, not {type(handle).__name__}")


class _Memory:
    """Device memory that is given back when the last tensor over it has gone."""

    def __init__(self, device: int, size: int) -> None:
        self.device = device
        self.address = _core.gpu_allocate(device, size, True)
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|i1",
            "data": (self.address, False),
            "version": 3,
        }

    def __del__(self) -> None:
        if hasattr(self, "address"):
            _core.gpu_free(self.device, self.address)


def memory_as_tensor(device: int, size: int) -> torch.Tensor:
    """New zeroed device memory of the kind that signals need, as a tensor of `int8`."""
    memory = _Memory(device, size)
    if _core.gpu_platform(device) != "sim":
        return torch.as_tensor(memory, device=f"cuda:{device}")
    kind: Any = type("Buffer", (ctypes.c_int8 * size,), {})
    buffer = kind.from_address(memory.address)
    # The tensor keeps the buffer, and the buffer the memory.
    buffer.memory = memory
    return torch.frombuffer(buffer, dtype=torch.int8)
