"""The library's log events in Python's `logging`, under the logger `unisono`.

The library's threads put what they have to say into a queue in Rust and never wait for Python. One daemon thread of Python
takes it out. When the interpreter ends the thread is told to, and is not waited for longer than a moment."""

from __future__ import annotations

import atexit
import logging
import os
import threading

from . import _core

logger = logging.getLogger("unisono")

_NAP = 3600.0
_started = False
_ends = False


def start() -> None:
    """Collect log events from now on; the first communicator of a process does it."""
    global _started
    if _started:
        return
    _started = True
    _core.collect_records()
    threading.Thread(target=_forward, name="unisono-logging", daemon=True).start()


def flush() -> None:
    """Hand over what is there."""
    while (record := _core.next_record(0.0)) is not None:
        _emit(record)


def _forward() -> None:
    while not _ends:
        record = _core.next_record(_NAP)
        if record is not None:
            _emit(record)


def _emit(record: tuple[int, str]) -> None:
    level, text = record
    if logger.isEnabledFor(level):
        logger.log(level, "%s", text)


def _at_exit() -> None:
    global _ends
    _ends = True
    flush()


def _in_child() -> None:
    global _started
    _started = False


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
