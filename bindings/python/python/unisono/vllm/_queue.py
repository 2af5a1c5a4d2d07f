"""What stands where vLLM has its `MessageQueue`: ours, or vLLM's own where ours cannot be made.

The writer's side decides. Its handle says to readers which of the two it is, so no reader has to guess.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ._plugin import QUEUES, log

_theirs: Any = import_module(QUEUES)
# By the time they are used, vLLM's name stands for the class below.
_Theirs: Any = _theirs.MessageQueue
_Ours: Any = import_module("unisono.vllm").MessageQueue


class MessageQueue(_Ours):  # type: ignore[misc]  # two that are not known here, one for the other
    """Its constructor gives one or the other, and logs why if it is vLLM's."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        try:
            return _Ours(*arguments, **named)
        except AssertionError:
            raise
        except Exception as problem:
            log.warning("unisono: a queue is vLLM's own, because %s: %s", type(problem).__name__, problem)
            return _Theirs(*arguments, **named)

    @staticmethod
    def create_from_handle(handle: Any, rank: int) -> Any:
        return (_Theirs if type(handle) is _theirs.Handle else _Ours).create_from_handle(handle, rank)
