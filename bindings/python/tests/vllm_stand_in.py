"""As much of vLLM as the plug-in touches, for tests without it. The real one runs in `cargo xtask demo --python --vllm`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

COMMUNICATORS = "vllm.distributed.device_communicators.cpu_communicator"
QUEUES = "vllm.distributed.device_communicators.shm_broadcast"
EXECUTOR = "vllm.v1.executor.multiproc_executor"


class CpuPlatform:
    device_name = "cpu"

    def is_cpu(self) -> bool:
        return True

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return f"{COMMUNICATORS}.CpuCommunicator"


class CpuCommunicator:
    """What vLLM's sets up, and its all-reduce: through torch."""

    def __init__(
        self,
        cpu_group: Any,
        device: Any = None,
        device_group: Any = None,
        unique_name: str = "",
        use_all2all: bool = False,
    ) -> None:
        self.has_memory_of_its_own = unique_name.startswith(("tp", "pp"))
        self.cpu_group, self.device_group, self.unique_name = cpu_group, device_group, unique_name
        self.rank_in_group, self.world_size = cpu_group.rank(), cpu_group.size()
        self.supports_tensor_dict = self.has_memory_of_its_own

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(input_, group=self.cpu_group)
        return input_

    def destroy(self) -> None:
        pass


class Handle:
    """The handle of vLLM's own queue."""


class MessageQueue:
    """vLLM's own queue."""

    def __init__(self, n_reader: int, n_local_reader: int) -> None:
        self.made_with = (n_reader, n_local_reader)

    @staticmethod
    def create_from_handle(handle: Any, rank: int) -> str:
        return f"vLLM's reader {rank}"


@contextmanager
def installed(*, is_cpu: bool = True) -> Iterator[SimpleNamespace]:
    """A `vllm` that can be imported; gives its modules. What was imported on top of it is forgotten at the end."""
    kept = {name: module for name, module in sys.modules.items() if _is_touched(name)}
    for name in kept:
        del sys.modules[name]
    modules = {name: ModuleType(name) for name in _packages(COMMUNICATORS, QUEUES, EXECUTOR, "vllm.platforms.cpu")}
    for name, module in modules.items():
        module.__path__ = []
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    contents: dict[str, dict[str, Any]] = {
        "vllm.platforms": {
            "cpu_platform_plugin": lambda: "vllm.platforms.cpu.CpuPlatform" if is_cpu else None,
            "current_platform": CpuPlatform() if is_cpu else SimpleNamespace(is_cpu=lambda: False, device_name="tpu"),
        },
        "vllm.platforms.cpu": {"CpuPlatform": CpuPlatform},
        COMMUNICATORS: {"CpuCommunicator": CpuCommunicator},
        QUEUES: {"MessageQueue": MessageQueue, "Handle": Handle},
        EXECUTOR: {"MessageQueue": MessageQueue},
    }
    for name, content in contents.items():
        modules[name].__dict__.update(content)
    sys.modules.update(modules)
    try:
        yield SimpleNamespace(
            platforms=modules["vllm.platforms"],
            communicators=modules[COMMUNICATORS],
            queues=modules[QUEUES],
            executor=modules[EXECUTOR],
        )
    finally:
        for name in [name for name in sys.modules if _is_touched(name)]:
            del sys.modules[name]
        sys.modules.update(kept)


def _is_touched(name: str) -> bool:
    ours = ("unisono.vllm._platform", "unisono.vllm._communicator", "unisono.vllm._queue")
    return name.split(".")[0] == "vllm" or name in ours


def _packages(*names: str) -> list[str]:
    """The names and those of the packages that they lie in, outermost first."""
    found = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
    return sorted(found)
