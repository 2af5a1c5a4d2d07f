"""What vLLM loads by the wheel's entry points: with `UNISONO_VLLM=1` its ranks on CPUs use unisono.

vLLM asks `vllm.platform_plugins` once per process which platform it runs on, and loads `vllm.general_plugins` in the engine and in
every worker. The platform answers for the collectives, which is the way vLLM offers; where it takes no platform from outside
(`VLLM_TARGET_DEVICE=cpu`, or another one is installed), the class that it would make is replaced instead. The queue has no such
way, so its name is replaced wherever vLLM has it.

The one invariant that matters: **nothing here ends vLLM.** Whatever goes wrong is one line in vLLM's log, and vLLM's own path.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

SWITCH = "UNISONO_VLLM"
NAME = "unisono"
PLATFORMS = "vllm.platform_plugins"

COMMUNICATORS = "vllm.distributed.device_communicators.cpu_communicator"
QUEUES = "vllm.distributed.device_communicators.shm_broadcast"
# They import the queue by name, perhaps before plug-ins are loaded.
_EXECUTORS = ("vllm.v1.executor.multiproc_executor", "vllm.v1.executor.ray_executor_v2")

# Under vLLM's own logger, so that it is seen where vLLM's lines are.
log = logging.getLogger("vllm.unisono")


def is_wanted() -> bool:
    """Whether the user has asked for it."""
    return os.environ.get(SWITCH, "").strip().lower() in ("1", "true", "yes", "on")


def platform() -> str | None:
    """The platform's class by name; `None` if it is not ours to say. vLLM takes at most one from outside."""
    if not is_wanted() or any(found.name != NAME for found in entry_points(group=PLATFORMS)):
        return None
    try:
        if import_module("vllm.platforms").cpu_platform_plugin() is None:
            return None
        ours = "unisono.vllm._platform"
        import_module(ours)
        return f"{ours}.Platform"
    except Exception as problem:
        log.warning("unisono: no platform of its own, because %s", _said(problem))
        return None


def activate() -> None:
    """Called once in each process of vLLM's. Doing it again changes nothing."""
    if not is_wanted():
        return
    try:
        current_platform = import_module("vllm.platforms").current_platform
        if not current_platform.is_cpu():
            log.warning(
                "unisono: %s=1 is for CPUs, and this is %s: vLLM's own collectives and queue are used",
                SWITCH,
                current_platform.device_name,
            )
            return
        _use_collectives(current_platform)
        _use_queue()
    except Exception as problem:
        log.warning("unisono: vLLM's own path is used where nothing else was said, because %s", _said(problem))


def _use_collectives(current_platform: Any) -> None:
    """See that vLLM makes our communicators, if the platform has not said so already."""
    own = f"{COMMUNICATORS}.CpuCommunicator"
    if current_platform.get_device_communicator_cls() == own:
        # vLLM looks the class up by this name whenever it makes one.
        ours: Any = import_module("unisono.vllm._communicator").Communicator
        theirs: Any = import_module(COMMUNICATORS)
        theirs.CpuCommunicator = ours


def _use_queue() -> None:
    """Put our queue where vLLM has its own."""
    try:
        ours = import_module("unisono.vllm._queue").MessageQueue
    except (ImportError, AttributeError) as problem:
        log.info("unisono: vLLM's own queue is used, because %s", _said(problem))
        return
    theirs = import_module(QUEUES).MessageQueue
    for name in (QUEUES, *_EXECUTORS):
        module: Any = sys.modules.get(name)
        if getattr(module, "MessageQueue", None) is theirs:
            module.MessageQueue = ours


def _said(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"
