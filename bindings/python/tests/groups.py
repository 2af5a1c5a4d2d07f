"""Groups of torch's whose ranks are processes, for tests."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import unisono.torch  # noqa: F401  # before they are forked

WORLD = 3
PATIENCE = timedelta(seconds=60)


def rank_of(rank: int, world: int, file: str, work: Callable[..., Any], pipe: Any, backend: str | None) -> None:
    try:
        torch.set_num_threads(1)
        dist.init_process_group(
            backend, init_method=f"file://{file}", rank=rank, world_size=world, timeout=PATIENCE
        )
        pipe.send(("returned", work(rank, world)))
        if dist.is_initialized():  # else it has left already
            dist.barrier()
            dist.destroy_process_group()
    except BaseException:
        pipe.send(("raised", traceback.format_exc()))
        os._exit(1)


def run(work: Callable[[int, int], Any], world: int = WORLD, backend: str | None = "unisono") -> list[Any]:
    """What `work(rank, world)` returns on each rank of a group."""
    context = mp.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(world):
            ours, theirs = context.Pipe()
            arguments = (rank, world, f"{folder}/store", work, theirs, backend)
            processes.append(context.Process(target=rank_of, args=arguments))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        try:
            results = []
            for rank, pipe in enumerate(pipes):
                assert pipe.poll(90), f"rank {rank} says nothing"
                kind, value = pipe.recv()
                assert kind == "returned", f"rank {rank} raised:\n{value}"
                results.append(value)
            for process in processes:
                process.join(30)
                assert process.exitcode == 0
            return results
        finally:
            for process in processes:
                process.kill()
