"""The collectives as operators of torch's, for what `torch.compile` makes: it sees through no other call.

A group is a number there, as operators take no objects. Called eagerly they would only cost more than the communicator's methods.
"""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary

import torch

from .. import Communicator

_groups: WeakValueDictionary[int, Communicator] = WeakValueDictionary()
_numbers = itertools.count()


def known(comm: Communicator) -> int:
    """The communicator's number, for as long as it lives."""
    number = next(_numbers)
    _groups[number] = comm
    return number


def _all_reduce(tensor: torch.Tensor, group: int) -> None:
    if tensor.is_contiguous():
        _groups[group].all_reduce(tensor)
    else:
        tensor.copy_(_groups[group].all_reduce(tensor.contiguous()))


def _all_gather(tensor: torch.Tensor, dim: int, ranks: int, group: int) -> torch.Tensor:
    return _groups[group].all_gather(tensor.contiguous(), dim=dim)


def _all_gather_shape(tensor: torch.Tensor, dim: int, ranks: int, group: int) -> torch.Tensor:
    shape = list(tensor.shape)
    shape[dim] *= ranks
    return tensor.new_empty(shape)


def _reduce_scatter(rows: torch.Tensor, ranks: int, group: int) -> torch.Tensor:
    return _groups[group].reduce_scatter(rows.contiguous())


def _reduce_scatter_shape(rows: torch.Tensor, ranks: int, group: int) -> torch.Tensor:
    return rows.new_empty((rows.shape[0] // ranks, *rows.shape[1:]))


# As long as this lives, so do they. torch does not type it.
_Library: Any = torch.library.Library
_library = _Library("unisono_vllm", "DEF")
_library.define("all_reduce_(Tensor(a!) tensor, int group) -> ()")
_library.define("all_gather(Tensor tensor, int dim, int ranks, int group) -> Tensor")
_library.define("reduce_scatter(Tensor rows, int ranks, int group) -> Tensor")
for _name, _kernel, _shape in (
    ("all_reduce_", _all_reduce, lambda tensor, group: None),
    ("all_gather", _all_gather, _all_gather_shape),
    ("reduce_scatter", _reduce_scatter, _reduce_scatter_shape),
):
    _library.impl(_name, _kernel, "CPU")
    torch.library.register_fake(f"unisono_vllm::{_name}", _shape, lib=_library)
