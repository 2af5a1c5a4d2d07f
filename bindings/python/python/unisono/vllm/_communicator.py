"""vLLM's communicator of the ranks of a CPU group, over unisono's.

vLLM makes one per group. If the ranks cannot meet, all of them get vLLM's own, and rank 0 says why.

The one invariant that matters: **all ranks of a group have the same kind.** So they tell one another how it went, over the group
that torch has made of them already, before any of them goes on (`_meeting`).
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import torch

from .. import Communicator as Ranks
from . import _operators, _tensor_dict
from ._meeting import meet
from ._plugin import COMMUNICATORS

_CpuCommunicator: Any = import_module(COMMUNICATORS).CpuCommunicator

# vLLM makes shared memory of its own for groups whose names begin with these.
_WITH_MEMORY = ("tp", "pp")


class Communicator(_CpuCommunicator):  # type: ignore[misc]  # vLLM is not typed
    """A group's collectives. Reductions are in place, as those of vLLM on CPUs are."""

    _comm: Ranks

    def __new__(cls, cpu_group: Any, *arguments: Any, **named: Any) -> Any:
        name = named.get("unique_name") or (arguments[2] if len(arguments) > 2 else "")
        comm = meet(cpu_group, name)
        if comm is None:
            return _CpuCommunicator(cpu_group, *arguments, **named)
        made = super().__new__(cls)
        made._comm = comm
        return made

    def __init__(
        self,
        cpu_group: Any,
        device: torch.device | None = None,
        device_group: Any = None,
        unique_name: str = "",
        **named: Any,
    ) -> None:
        # Under another name vLLM makes no memory that nobody would use.
        other = f"unisono:{unique_name}" if unique_name.startswith(_WITH_MEMORY) else unique_name
        super().__init__(cpu_group, device, device_group, other, **named)
        self.unique_name = unique_name
        self.supports_tensor_dict = True
        self._group = _operators.known(self._comm)
        self._all_reduce = self._comm.all_reduce

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            torch.ops.unisono_vllm.all_reduce_(input_, self._group)
        elif input_.is_contiguous():
            self._all_reduce(input_)
        else:
            input_.copy_(self._all_reduce(input_.contiguous()))
        return input_

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        dim %= max(input_.dim(), 1)
        if torch.compiler.is_compiling():
            gathered: torch.Tensor = torch.ops.unisono_vllm.all_gather(input_, dim, self.world_size, self._group)
        else:
            gathered = self._comm.all_gather(input_.contiguous(), dim=dim)
        return gathered

    def reduce_scatter(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        dim %= input_.dim()
        rows = input_.movedim(dim, 0).contiguous()
        if torch.compiler.is_compiling():
            mine: torch.Tensor = torch.ops.unisono_vllm.reduce_scatter(rows, self.world_size, self._group)
        else:
            mine = self._comm.reduce_scatter(rows)
        return mine.movedim(0, dim).contiguous()

    def gather(self, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> torch.Tensor | None:
        dim %= input_.dim()
        rows = input_.contiguous()
        if self.rank_in_group != dst:
            self._comm.gather(rows, dst)
            return None
        blocks = rows.new_empty((self.world_size, *rows.shape))
        self._comm.gather(rows, dst, out=blocks)
        if math.prod(rows.shape[:dim]) == 1:
            # The blocks lie as they are wanted.
            return blocks.view(*rows.shape[:dim], -1, *rows.shape[dim + 1 :])
        return torch.cat(blocks.unbind(), dim=dim)

    def broadcast(self, tensor: torch.Tensor, src: int = 0) -> torch.Tensor:
        if tensor.is_contiguous():
            self._comm.broadcast(tensor, src)
        else:
            tensor.copy_(self._comm.broadcast(tensor.contiguous(), src))
        return tensor

    def send(self, tensor: torch.Tensor, dst: int | None = None) -> None:
        self._comm.send(tensor.contiguous(), self._next(1) if dst is None else dst)

    def recv(self, size: torch.Size, dtype: torch.dtype, src: int | None = None) -> torch.Tensor:
        tensor = torch.empty(size, dtype=dtype)
        return self._comm.recv(tensor, self._next(-1) if src is None else src)

    def send_tensor_dict(self, tensor_dict: dict[str, torch.Tensor], dst: int) -> None:
        _tensor_dict.send(self._comm, tensor_dict, dst)

    def recv_tensor_dict(self, src: int) -> dict[str, torch.Tensor]:
        return _tensor_dict.recv(self._comm, src)

    def destroy(self) -> None:
        super().destroy()
        self._comm.leave()

    def _next(self, step: int) -> int:
        return int((self.rank_in_group + step) % self.world_size)
