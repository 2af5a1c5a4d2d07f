"""Device memory that ranks share by handles: what an engine needs around the all-reduce, on any driver.

    own = memory.allocate(size)
    handles = ...                            # everybody's memory.export(own), exchanged by whatever the engine has
    pointers = [own if peer == rank else memory.open(handles[peer]) for peer in range(world)]

`UNISONO_GPU_DRIVER` says on what: `cuda`, `hip`, or `sim`, which needs no GPU: the shipped kernels are executed on the CPU, very
slowly, each process a device of its own. Tests use it. Without it, NVIDIA's driver is looked for, then AMD's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from .. import _core

if TYPE_CHECKING:
    from collections.abc import Iterator


def platform(device: int = 0) -> str:
    """`"cuda"`, `"hip"` or `"sim"`. Raises `DeviceError`, with all that was looked for, if there is none."""
    return _core.gpu_platform(device)


def allocate(size: int, device: int = 0) -> int:
    """New zeroed device memory; its address. `free` gives it back."""
    return _core.gpu_allocate(device, size, False)


def free(address: int, device: int = 0) -> None:
    _core.gpu_free(device, address)


def export(address: int, device: int = 0) -> bytes:
    """The 64 bytes by which another process opens the allocation that begins at the address."""
    return bytes(_core.gpu_export(device, address))


def open(handle: bytes, device: int = 0) -> int:
    """Map another process's allocation; its address here. `close` takes it back."""
    return _core.gpu_open(device, handle)


def close(address: int, device: int = 0) -> None:
    _core.gpu_close(device, address)


def view(address: int, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Simulated device memory as a tensor. It must not be used once the memory has been given back."""
    if platform() != "sim":
        raise ValueError("only simulated memory is the host's; torch has tensors on real devices")
    count = 1
    for extent in shape:
        count *= extent
    if count == 0:
        return torch.empty(tuple(shape), dtype=dtype)
    buffer = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
    return torch.frombuffer(buffer, dtype=dtype).reshape(tuple(shape))


def identity(device: int = 0) -> str:
    """By what all processes of the machine know the device."""
    return _core.gpu_identity(device)


def reaches_all_directly(identities: Sequence[str], device: int = 0) -> bool:
    """Whether the device reaches all others over links of their own: NVLink, XGMI. All ranks must say so for `full_nvlink`."""
    return _core.gpu_is_direct(device, list(identities))


class Graph:
    """What was put on a simulated device's stream while it was captured."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._recorded: _core.GpuGraph | None = None

    def replay(self) -> None:
        """Run it again, to its end."""
        if self._recorded is None:
            raise ValueError("it is being captured")
        _core.gpu_replay(self._device, self._recorded)


@contextmanager
def capture(device: int = 0) -> Iterator[Graph]:
    """Record what is put on a simulated device's stream instead of running it, as `torch.cuda.graph` does on real ones."""
    graph = Graph(device)
    _core.gpu_begin_capture(device)
    try:
        yield graph
    finally:
        graph._recorded = _core.gpu_end_capture(device)
