"""SGLang's own modules from its unpacked wheel, for a test, without what they need: that is stood in for by empty classes.

Real are the modules with the gate and with what sets up the groups, and everything of SGLang's that they import, but for the
parts of it that describe models and kernels.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What takes part in nothing here, and much else with it.
_STOOD_IN_FOR = tuple(
    f"sglang.srt.{part}"
    for part in ("configs", "layers", "server_args", "distributed.device_communicators", "managers", "model_executor")
)


class _Anything(type):
    """A class of which every attribute is another one; used as a decorator it changes nothing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)

    def __getitem__(cls, index: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        return cls

    __ror__ = __or__

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else type.__call__(cls)


def _anything(name: str) -> Any:
    def attribute(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) else self

    body = {
        "__init__": lambda self, *args, **kwargs: None,
        "__init_subclass__": classmethod(lambda cls, **kwargs: None),
        "__getattr__": attribute,
        "__call__": call,
    }
    return _Anything(name, (), body)


class _StandIn(types.ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, _anything(name))
        return getattr(self, name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name.startswith(_STOOD_IN_FOR):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        for finder in sys.meta_path:
            if finder is not self and finder.find_spec(name, path, target):
                return None
        parent = sys.modules.get(name.rpartition(".")[0])
        if isinstance(parent, _StandIn) or _is_asked_by_sglang():
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _is_asked_by_sglang() -> bool:
    frame: Any = sys._getframe(1)
    while frame and ("importlib" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return bool(frame) and "/sglang/" in frame.f_code.co_filename


def bring_in(folder: Path) -> None:
    """From now on `sglang` is what lies in this folder."""
    package = types.ModuleType("sglang")
    package.__path__ = [str(folder / "sglang")]
    sys.modules["sglang"] = package
    sys.meta_path.insert(0, _Finder())
