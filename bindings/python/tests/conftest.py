"""Ranks for tests: as threads of this process, and as processes of their own, with what they return or raise."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import unisono

PATIENCE = 60.0


def in_threads(world: int, work: Callable[[unisono.Communicator], Any]) -> list[Any]:
    """What `work` returns for each of `world` ranks that are threads."""
    results: list[Any] = [None] * world
    problems: list[BaseException] = []

    def run(comm: unisono.Communicator) -> None:
        try:
            results[comm.rank] = work(comm)
        except BaseException as problem:
            problems.append(problem)
            comm.abort()

    threads = [threading.Thread(target=run, args=(comm,)) for comm in unisono.in_process(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a rank hangs"
    if problems:
        raise problems[0]
    return results


class Ranks:
    """Processes, each a rank, that run `work(comm, *arguments)`."""

    def __init__(self, world: int, work: Callable[..., Any], *arguments: Any, method: str = "spawn") -> None:
        context = multiprocessing.get_context(method)
        run_id = uuid.uuid4().hex
        self.pipes = []
        self.processes = []
        for rank in range(world):
            ours, theirs = context.Pipe()
            process = context.Process(target=_rank, args=(theirs, rank, world, run_id, work, arguments))
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def result(self, rank: int) -> Any:
        """What the rank returned; what it raised is raised here, with where it was."""
        assert self.pipes[rank].poll(PATIENCE), f"rank {rank} says nothing"
        kind, value = self.pipes[rank].recv()
        if kind == "raised":
            raise AssertionError(f"rank {rank} raised:\n{value}")
        return value

    def results(self) -> list[Any]:
        return [self.result(rank) for rank in range(len(self.processes))]

    def end(self) -> None:
        for process in self.processes:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


def _rank(pipe: Any, rank: int, world: int, run_id: str, work: Callable[..., Any], arguments: Any) -> None:
    try:
        comm = unisono.init(rank=rank, world_size=world, run_id=run_id, timeout=PATIENCE)
        pipe.send(("returned", work(comm, *arguments)))
    except BaseException:
        pipe.send(("raised", traceback.format_exc()))
        os._exit(1)


@pytest.fixture
def ranks() -> Any:
    """Start ranks as processes; they are gone when the test is over."""
    started: list[Ranks] = []

    def start(world: int, work: Callable[..., Any], *arguments: Any, method: str = "spawn") -> Ranks:
        started.append(Ranks(world, work, *arguments, method=method))
        return started[-1]

    yield start
    for one in started:
        one.end()
