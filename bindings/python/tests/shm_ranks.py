"""Ranks for the tests of the shared-memory operators: forked processes that have met by `initialize`."""

from __future__ import annotations

import os
import traceback
import uuid
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo  # once, before ranks are forked
import torch.multiprocessing as mp
import unisono.sgl_kernel as shm

PATIENCE = 60

# The same operators with kernels in Python, as on a torch without the stable interface.
IN_PYTHON = shm.register("unisono_in_python", interface="python").library


class Ranks:
    """`world` processes, each of which runs `work(rank, *arguments)` in an environment."""

    def __init__(self, world: int, work: Callable[..., Any], *arguments: Any, meet: bool = True, **environment: str) -> None:
        context = mp.get_context("fork")
        environment = {"UNISONO_RUN_ID": uuid.uuid4().hex, "UNISONO_TIMEOUT": str(PATIENCE)} | environment
        self.pipes, self.processes = [], []
        for rank in range(world):
            ours, theirs = context.Pipe()
            process = context.Process(target=_rank, args=(theirs, rank, world if meet else 0, environment, work, arguments))
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def result(self, rank: int) -> Any:
        assert self.pipes[rank].poll(PATIENCE), f"rank {rank} says nothing"
        kind, value = self.pipes[rank].recv()
        assert kind == "returned", f"rank {rank} raised:\n{value}"
        return value

    def results(self) -> list[Any]:
        try:
            results = [self.result(rank) for rank in range(len(self.processes))]
            for process in self.processes:
                process.join(PATIENCE)
                assert process.exitcode == 0
            return results
        finally:
            self.kill()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def run(world: int, work: Callable[..., Any], *arguments: Any, **environment: str) -> list[Any]:
    """What `work(rank, *arguments)` returns on each rank."""
    return Ranks(world, work, *arguments, **environment).results()


def _rank(pipe: Any, rank: int, world: int, environment: dict[str, str], work: Callable[..., Any], arguments: Any) -> None:
    try:
        os.environ |= environment
        torch.set_num_threads(1)
        if world:
            shm.initialize(world, rank)
        pipe.send(("returned", work(rank, *arguments)))
        # Who leaves while another rank still needs it would be that rank's error.
        if world:
            shm.communicator().close()
    except BaseException:
        pipe.send(("raised", traceback.format_exc()))
        os._exit(1)
    os._exit(0)
