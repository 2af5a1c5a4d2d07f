"""How objects become messages and messages objects: pickle, with large buffers beside the pickle instead of in it.

Buffers of a MiB and more lie in the message as they are, copied once on each side. CPU tensors are made buffers of, too: torch
by itself would copy them into the pickle. Unpickling runs what the message says: it is done by `dequeue` alone, on messages of
a writer of the same user on this machine, or signed with the queue's key.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections.abc import Callable
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any

from .._core import Pickled

if TYPE_CHECKING:
    import torch


class Pickler(pickle.Pickler):
    """Pickles one object after the other into `pickled`. Not to be used again after a `pickle` that failed."""

    def __init__(self) -> None:
        self.pickled = Pickled()
        super().__init__(self.pickled, protocol=5, buffer_callback=self.pickled)

    def pickle(self, obj: Any, reduce_tensor: Callable[[torch.Tensor], Any]) -> Pickled:
        """What `obj` becomes; to be sent before the next call."""
        torch = sys.modules.get("torch")
        if torch is not None:
            # What others have registered meanwhile is to hold, too.
            self.dispatch_table = {**copyreg.dispatch_table, torch.Tensor: reduce_tensor}
        self.dump(obj)
        self.clear_memo()
        return self.pickled


def reduce_tensor(tensor: torch.Tensor) -> Any:
    """A tensor as a buffer, its shape and its type; by torch's own means where its memory alone does not say all."""
    import torch

    # A quantised one's memory says nothing of its scale.
    plain = (
        tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not (tensor.requires_grad or tensor.is_quantized)
    )
    if plain:
        try:
            memory: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        except RuntimeError:
            # Such as one that is to be read conjugated.
            pass
        else:
            name = str(tensor.dtype).removeprefix("torch.")
            return rebuild_tensor, (PickleBuffer(memory), tuple(tensor.shape), name)
    any_tensor: Any = tensor
    return any_tensor.__reduce_ex__(pickle.HIGHEST_PROTOCOL)


def rebuild_tensor(memory: Any, shape: tuple[int, ...], name: str) -> torch.Tensor:
    """The tensor again, over `memory` if that is this tensor's alone and writable, else over a copy."""
    import torch

    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError(f"torch.{name} is no type of elements")
    own = memory if isinstance(memory, bytearray) else bytearray(memory)
    if not own:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(own, dtype=torch.uint8).view(dtype).view(shape)
