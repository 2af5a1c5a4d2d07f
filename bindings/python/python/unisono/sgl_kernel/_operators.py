"""The operators in a library of torch's: `torch.ops.unisono.*`, and others on request."""

from __future__ import annotations

import inspect
import logging
import os
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload, OpOverloadPacket

from .. import SettingError, _core
from ._kernels import FAKE, IN_PYTHON, SETTING_UP

SCHEMAS: dict[str, str] = {
    **{name: name + schema for name, (schema, _) in SETTING_UP.items()},
    **dict(_core.shm_schemas()),
}
"""Every operator's schema, by its name."""

_log = logging.getLogger("unisono")

_SETTING = "UNISONO_TORCH_INTERFACE"

# What was registered stays as long as the object that did it.
_libraries: list[Any] = []


class Registered(NamedTuple):
    """What `register` did in a library of torch's."""

    library: str
    interface: str
    """`"stable"`: the kernels are Rust's, by torch's stable C interface; `"python"`: they are Python's."""
    added: list[str]
    """Operators that were not there before."""
    replaced: list[str]
    """Operators that were there, and now run here."""
    kept: list[str]
    """Operators that were there and are as they were."""


def register(library: str, *, replace: bool = False, fakes: bool = True, interface: str | None = None) -> Registered:
    """Put the operators into a library of torch's, as `torch.ops.<library>.<name>`.

    An operator of that name that is there already stays as it is, unless it is to be replaced: then tensors on the CPU come here,
    under the schema that is there; one with other arguments or results than ours stays, since a compiled kernel takes them by
    their places alone. Doing it twice changes nothing.

    - `fakes`: also what torch.compile needs; without it, somebody else says that.
    - `interface`: `"stable"` or `"python"`; else UNISONO_TORCH_INTERFACE says, else it is stable if this torch has it.

    Raises `RuntimeError` if torch refuses.
    """
    there = [name for name in SCHEMAS if _is_defined(library, name)]
    ours = [name for name in there if (library, name) in _ours]
    foreign = [name for name in there if name not in ours]
    added = [name for name in SCHEMAS if name not in there]
    replaced = [name for name in foreign if replace and _fits(library, name)]
    kept = [name for name in foreign if name not in replaced]
    interface = _register_kernels(library, added, replaced, interface or os.environ.get(_SETTING) or "auto")
    for name in added + replaced:
        _ours.add((library, name))
        _tell_what_failed(library, name)
    if fakes:
        for name in added:
            if name in FAKE:
                torch.library.register_fake(f"{library}::{name}", FAKE[name])
    return Registered(library, interface, added, replaced, kept)


_ours: set[tuple[str, str]] = set()


def _register_kernels(library: str, added: list[str], replaced: list[str], interface: str) -> str:
    if interface not in ("auto", "stable", "python"):
        problem = "expected auto, stable, or python"
        raise SettingError(f"{_SETTING}={interface!r}: {problem}", name=_SETTING, value=interface, problem=problem)
    fragment: Any = torch.library.Library  # which torch has not typed
    in_python = fragment(library, "FRAGMENT")
    _libraries.append(in_python)
    for name, (schema, kernel) in SETTING_UP.items():
        if name in added:
            in_python.define(name + schema)
        if name in added or name in replaced:
            # They have no tensor by which torch could choose a kernel.
            _implement(in_python, name, kernel, "CompositeExplicitAutograd", name in replaced)
    rest = [name for name in added if name in IN_PYTHON]
    working = rest + [name for name in replaced if name in IN_PYTHON]
    if interface != "python":
        try:
            _core.shm_register(library, rest, working)
            return "stable"
        except RuntimeError as missing:
            if interface == "stable":
                raise
            _log.info("the operators of torch.ops.%s have kernels in Python: %s", library, missing)
    for name in rest:
        if not _is_defined(library, name):
            in_python.define(SCHEMAS[name])
    for name in working:
        _implement(in_python, name, IN_PYTHON[name], "CPU", name in replaced)
    return "python"


def _implement(registered: Any, name: str, kernel: Any, key: str, replaces: bool) -> None:
    # Torches that do not know the word allow it.
    if replaces and "allow_override" in inspect.signature(registered.impl).parameters:
        registered.impl(name, kernel, key, allow_override=True)
    else:
        registered.impl(name, kernel, key)


def _is_defined(library: str, name: str) -> bool:
    return hasattr(getattr(torch.ops, library), name)


def _fits(library: str, name: str) -> bool:
    """Whether a kernel for our schema can stand under the one that is there."""
    packet = getattr(getattr(torch.ops, library), name)
    ours: Any = torch._C.parse_schema(SCHEMAS[name])
    theirs: Any = packet.default._schema if "default" in packet.overloads() else None
    if theirs is not None:
        taken, given = ([str(argument.type) for argument in schema.arguments] for schema in (ours, theirs))
        is_same = [str(result.type) for result in ours.returns] == [str(result.type) for result in theirs.returns]
        needed = sum(not argument.has_default_value() for argument in ours.arguments)
        if is_same and len(given) >= needed and given == taken[: len(given)]:
            return True
    _log.warning("%s::%s stays as it was: it is %s, and not %s", library, name, theirs, SCHEMAS[name])
    return False


def _tell_what_failed(library: str, name: str) -> None:
    """torch makes a plain `RuntimeError` of whatever a compiled kernel says: its objects for the operator are taught better.

    Only how they are called changes, and not that they are torch's: compiled code holds the same objects.
    """
    packet = getattr(getattr(torch.ops, library), name)
    _teach(packet, OpOverloadPacket)
    for overload in packet.overloads():
        _teach(getattr(packet, overload), OpOverload)


def _teach(operator: Any, kind: type) -> None:
    call = _core.caller(operator._op)
    if type(operator) is kind:
        operator.__class__ = type(kind.__name__, (kind,), {"__call__": call})
