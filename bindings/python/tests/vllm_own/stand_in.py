"""A pytest plug-in: vLLM's tests run on unisono's message queue.

`import vllm.distributed.device_communicators.shm_broadcast` gives `unisono.vllm.shm_broadcast`, in this process and in those that
the tests start; everything else of vLLM is its own. `caplog_vllm` is here because the tests run without vLLM's conftest, which needs the engine.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

NAME = "vllm.distributed.device_communicators.shm_broadcast"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name == NAME else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        import unisono.vllm.shm_broadcast as ours

        return ours

    def exec_module(self, module: ModuleType) -> None:
        pass


sys.meta_path.insert(0, _Finder())


@pytest.fixture
def caplog_vllm(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO):
        yield caplog
