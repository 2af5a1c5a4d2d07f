"""Tensors with names from one rank to another, as a pipeline's stages hand them on.

First the length of a description, then the description (JSON: names, types and shapes), then the bytes of each tensor, whatever its
type. What comes from the other rank is checked before memory is made for it, and nothing of it is run. The invariant that matters:
**a tensor that cannot be sent is found before anything is**, so that the other rank does not wait for what never comes.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import torch

from .. import Communicator, Error

# No stage hands on so many tensors that their names take more.
_LONGEST = 1 << 20


def send(comm: Communicator, tensors: dict[str, torch.Tensor], to: int) -> None:
    """Returns once they are on their way; a tensor that is larger than the window, once it was received."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"send_tensor_dict: {name!r} is a {type(tensor).__name__}, and only tensors can be sent")
        if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_quantized:
            kind = f"{tensor.dtype} on {tensor.device}, {tensor.layout}"
            raise TypeError(f"send_tensor_dict: {name!r} is {kind}, and only plain tensors of the CPU's memory can be sent")
    contents = [_bytes_of(name, tensor.resolve_conj().resolve_neg().contiguous()) for name, tensor in tensors.items()]
    description = json.dumps(
        [[name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in tensors.items()]
    ).encode()
    if len(description) > _LONGEST:
        raise ValueError(f"send_tensor_dict: names and shapes take {len(description)} bytes, {_LONGEST} is the most")
    comm.send(torch.tensor([len(description)]), to)
    comm.send(torch.frombuffer(bytearray(description), dtype=torch.uint8), to)
    for content in contents:
        if content.numel():
            comm.send(content, to)


def _bytes_of(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The memory of a contiguous tensor: the library moves bytes, and so needs to know no type of torch's."""
    try:
        return tensor.detach().reshape(-1).view(torch.uint8)
    except RuntimeError as problem:
        raise TypeError(f"send_tensor_dict: {name!r} has elements of {tensor.dtype}, which have no bytes: {problem}") from problem


def recv(comm: Communicator, source: int) -> dict[str, torch.Tensor]:
    """What the other rank sent last."""
    length = int(comm.recv(torch.empty(1, dtype=torch.int64), source))
    if not 0 <= length <= _LONGEST:
        raise Error(f"recv_tensor_dict: rank {source} announced a description of {length} bytes")
    description = comm.recv(torch.empty(length, dtype=torch.uint8), source)
    entries = _understood(bytes(description.numpy()), source)
    try:
        received = [(name, torch.empty(shape, dtype=dtype)) for name, dtype, shape in entries]
        contents = [_bytes_of(name, tensor) for name, tensor in received]
    except (RuntimeError, TypeError) as problem:
        raise Error(f"recv_tensor_dict: there is no memory for what rank {source} announced: {problem}") from problem
    for content in contents:
        if content.numel():
            comm.recv(content, source)
    return dict(received)


def _understood(description: bytes, source: int) -> list[tuple[str, torch.dtype, list[int]]]:
    try:
        entries: list[Any] = json.loads(description)
        found = [(str(name), getattr(torch, str(dtype)), [int(extent) for extent in shape]) for name, dtype, shape in entries]
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as problem:
        raise Error(f"recv_tensor_dict: what rank {source} says of its tensors is not understood: {problem}") from problem
    for name, dtype, shape in found:
        is_shape = all(0 <= extent <= sys.maxsize for extent in shape)
        if not isinstance(dtype, torch.dtype) or not is_shape or math.prod(shape) * dtype.itemsize > sys.maxsize:
            raise Error(f"recv_tensor_dict: rank {source} announced {name!r} with type {dtype} and shape {shape}")
    return found
