"""vLLM's own CPU platform, but for the class of its communicators. Imported by vLLM, by name, once `_plugin.platform` gave it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# The one that vLLM would have chosen: it has several.
_module, _, _name = import_module("vllm.platforms").cpu_platform_plugin().rpartition(".")
_Base: Any = getattr(import_module(_module), _name)


class Platform(_Base):  # type: ignore[misc]  # vLLM is not typed
    """CPUs, whose ranks meet over unisono."""

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        """Ours, if it goes with this vLLM; if not, `activate` says why."""
        ours = "unisono.vllm._communicator"
        try:
            import_module(ours)
        except Exception:
            return str(super().get_device_communicator_cls())
        return f"{ours}.Communicator"
