"""Putting the operators where SGLang looks for them, and opening the gate before them.

SGLang asks `is_shm_available()` before each collective on a CPU tensor, and says no on x86 processors without AMX; there it never
calls `initialize` either. Both are replaced: the first by a check of what the operators need, the second by one that
goes on where SGLang's stops. SGLang reads both names when it calls, so it does not matter which of its modules were imported.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .. import Error
from . import _groups
from ._operators import Registered, register

_log = logging.getLogger("unisono")

_LIBRARY = "sgl_kernel"
_SWITCH = "UNISONO_SGLANG"
_GATE = ("sglang.srt.utils.common", "is_shm_available")
_SETUP = ("sglang.srt.distributed.bootstrap", "_init_cpu_threads_env")

# What the operators add up; SGLang's gate is one for all operators.
_TYPES = frozenset(
    [torch.float32, torch.bfloat16, torch.float16, torch.float64]
    + [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
)


class Installed(NamedTuple):
    """What `install` did."""

    operators: Registered
    gate: list[str]
    """Where SGLang's gate was opened, as `module.name`; nowhere if SGLang is not there."""
    problems: list[str]
    """What was not done, and why."""

    def __str__(self) -> str:
        operators = self.operators
        said = [f"torch.ops.{operators.library}: {len(operators.added)} operators added"]
        if operators.replaced:
            said.append(f"{', '.join(operators.replaced)} replaced")
        if operators.kept:
            said.append(f"{', '.join(operators.kept)} left as they were, replace=True has them run here")
        said.append(f"gate opened in {', '.join(self.gate)}" if self.gate else "no gate opened")
        return "; ".join(said + self.problems)


def install(*, replace: bool = False) -> Installed:
    """Make SGLang use unisono's collectives for CPU tensors; call it before SGLang's runtime starts, in every worker.

    The operators go under `torch.ops.sgl_kernel`. Those that are there already, on a machine for which SGLang has its own, stay,
    unless they are to be replaced. Where there is no SGLang only the operators are registered. Gives what was done, which
    is logged, too. Doing it twice changes nothing.
    """
    problems = []
    gate: list[str] = []
    is_there = _is_there()
    # SGLang says itself what torch.compile needs, and torch lets it be said once.
    operators = register(_LIBRARY, replace=replace, fakes=not is_there)
    if is_there:
        for open_one, (module, name) in ((_open_gate, _GATE), (_open_setup, _SETUP)):
            try:
                gate += open_one(importlib.import_module(module), name)
            except (ImportError, AttributeError) as error:
                problems.append(f"{module}.{name} was not opened: {error}")
    else:
        problems.append("SGLang is not installed: nothing of it was changed")
    done = Installed(operators, gate, problems)
    _log.log(logging.WARNING if is_there and problems else logging.INFO, "install: %s", done)
    return done


def plugin() -> None:
    """SGLang's entry point for plugins, in every process of an engine: installs if UNISONO_SGLANG is 1."""
    if os.environ.get(_SWITCH, "0") == "1":
        install()


def _is_there() -> bool:
    return "sglang" in sys.modules or importlib.util.find_spec("sglang") is not None


def _is_shm_available(dtype: torch.dtype, world_size: int, local_size: int) -> bool:
    """Whether the operators take such a tensor in a group of this size, all of it on this machine, and have a group."""
    return 1 <= world_size == local_size and dtype in _TYPES and _groups.any_initialized()


def _open_gate(home: Any, name: str) -> list[str]:
    """Everywhere: modules that were imported have a name of their own for it."""
    original = getattr(home, name)
    if original is _is_shm_available:
        return []
    opened = []
    for module_name, module in sorted(sys.modules.items()):
        if module_name.split(".", 1)[0] == "sglang" and vars(module).get(name) is original:
            setattr(module, name, _is_shm_available)
            opened.append(f"{module_name}.{name}")
    return opened


def _open_setup(home: Any, name: str) -> list[str]:
    original: Callable[..., None] = getattr(home, name)
    if hasattr(original, "_unisono"):
        return []

    @functools.wraps(original)
    def set_up(*, local_omp_cpuid: Any, dist_init_method: str | None = None) -> None:
        if home._is_cpu_amx_available or home._is_cpu_arm64:
            original(local_omp_cpuid=local_omp_cpuid, dist_init_method=dist_init_method)
            return
        parallel = home.get_parallel()
        home._set_shm_master_env(dist_init_method)
        try:
            torch.ops.sgl_kernel.initialize(parallel.tp_size, parallel.tp_rank)
        except Error as error:
            _log.warning("SGLang goes on without unisono: %s", error)
            return
        # What SGLang takes for the number of ranks on this machine.
        os.environ["LOCAL_SIZE"] = str(parallel.tp_size)

    set_up._unisono = True  # type: ignore[attr-defined]
    setattr(home, name, set_up)
    return [f"{home.__name__}.{name}"]
