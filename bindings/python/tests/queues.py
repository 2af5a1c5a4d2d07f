"""Queues for tests: their two sides in one process, and readers and writers that are processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import re
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from unisono.vllm import Handle, MessageQueue

PATIENCE = 60.0


def pair(**options: Any) -> tuple[MessageQueue, MessageQueue]:
    """A writer and its one reader, ready."""
    writer = MessageQueue(1, 1, **options)
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    writer.wait_until_ready(PATIENCE)
    reader.wait_until_ready(PATIENCE)
    return writer, reader


def remote_pair(ip: str = "127.0.0.1", rank: int = -1) -> tuple[MessageQueue, MessageQueue]:
    writer = MessageQueue(1, 0, connect_ip=ip)
    reader = MessageQueue.create_from_handle(writer.export_handle(), rank)
    writer.wait_until_ready(PATIENCE)
    reader.wait_until_ready(PATIENCE)
    return writer, reader


SIDES = pytest.mark.parametrize("sides", [pair, remote_pair], ids=["here", "elsewhere"])

OBJECTS = [
    None, 12345, "text", b"bytes", [1, [2, {"three": (4,)}]], b"x" * 70_000, "y" * 3_000_000, re.compile("a+b"), list(range(100_000)),
]  # fmt: skip



class Child:
    """A process that runs `work(*arguments, pipe)`; the other end of the pipe is `self.pipe`."""

    def __init__(self, work: Callable[..., Any], *arguments: Any, method: str = "spawn") -> None:
        context: Any = multiprocessing.get_context(method)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_run, args=(work, arguments, theirs))
        self.process.start()
        theirs.close()

    def says(self) -> Any:
        """What it sent; what it raised is raised here."""
        assert self.pipe.poll(PATIENCE), "the child says nothing"
        value = self.pipe.recv()
        if isinstance(value, tuple) and value[:1] == ("raised",):
            raise AssertionError(f"the child raised:\n{value[1]}")
        return value

    def tell(self, value: Any) -> None:
        self.pipe.send(value)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(PATIENCE)

    def end(self) -> None:
        self.process.join(PATIENCE)
        assert self.process.exitcode == 0, self.process.exitcode

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _run(work: Callable[..., Any], arguments: tuple[Any, ...], pipe: Any) -> None:
    try:
        work(*arguments, pipe)
    except BaseException:
        pipe.send(("raised", traceback.format_exc()))
        os._exit(1)


def reads(handle: Handle, rank: int, pipe: Any) -> None:
    """A reader that receives as often as it is told to, and sends what it got."""
    queue = MessageQueue.create_from_handle(handle, rank)
    queue.wait_until_ready(PATIENCE)
    pipe.send("ready")
    while (count := pipe.recv()) is not None:
        pipe.send([queue.dequeue(PATIENCE) for _ in range(count)])
