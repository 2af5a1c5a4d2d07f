"""Queues between the ranks of a group, torch's or one like vLLM's `StatelessProcessGroup`."""

from __future__ import annotations

import ctypes
import os
import pickle
import time
from functools import partial
from pathlib import Path
from typing import Any

import groups
import numpy as np
import pytest
import torch.distributed as dist
from queues import PATIENCE, Child
from unisono.vllm import Handle, MessageQueue
from unisono.vllm._groups import Group, same_node


class FileGroup:
    """A group as vLLM's `StatelessProcessGroup` is one, over files."""

    def __init__(self, folder: str, rank: int, world_size: int) -> None:
        self.folder, self.rank, self.world_size = Path(folder), rank, world_size
        self.calls = 0

    def _put(self, name: str, value: Any) -> None:
        unfinished = self.folder / f"{name}.{self.rank}.unfinished"
        unfinished.write_bytes(pickle.dumps(value))
        unfinished.rename(self.folder / name)

    def _get(self, name: str) -> Any:
        until = time.monotonic() + PATIENCE
        while not (self.folder / name).exists():
            assert time.monotonic() < until, name
            time.sleep(0.002)
        return pickle.loads((self.folder / name).read_bytes())

    def broadcast_obj(self, obj: Any, src: int) -> Any:
        self.calls += 1
        if self.rank == src:
            self._put(f"b{self.calls}", obj)
        return self._get(f"b{self.calls}")

    def all_gather_obj(self, obj: Any) -> list[Any]:
        self.calls += 1
        self._put(f"g{self.calls}-{self.rank}", obj)
        return [self._get(f"g{self.calls}-{rank}") for rank in range(self.world_size)]


def exchange(queue: MessageQueue, rank: int, writer: int) -> list[Any]:
    objects = ["a", np.arange(1 << 20), list(range(1000))]
    return [str(queue.broadcast_object(obj if rank == writer else None)) for obj in objects]


def one_to_all(rank: int, world: int) -> Any:
    queue = MessageQueue.create_from_process_group(dist.group.WORLD, 1 << 20, 4, writer_rank=1)
    assert queue._is_writer == (rank == 1)
    return exchange(queue, rank, 1), queue.handle.local_reader_ranks


@pytest.mark.parametrize("backend", ["gloo", "unisono"])
def test_one_writer_of_a_torch_group(backend: str) -> None:
    results = groups.run(one_to_all, backend=backend)
    assert results[0] == results[1] == results[2] and results[0][1] == [0, 2]


def in_a_part(rank: int, world: int) -> Any:
    part = dist.new_group([0, 2], backend="gloo")
    if rank == 1:
        return None
    queue = MessageQueue.create_from_process_group(part, 1 << 20, 4, writer_rank=1, blocking=False)
    queue.wait_until_ready(PATIENCE)
    assert queue._is_writer == (rank == 2)
    return exchange(queue, dist.get_rank(part), 1)


def test_a_group_that_is_a_part_of_the_world() -> None:
    results = groups.run(in_a_part, backend="gloo")
    assert results[0] == results[2]


def all_to_one(rank: int, world: int) -> Any:
    queue, handles = MessageQueue.create_from_process_group_single_reader(dist.group.WORLD, 1 << 20, 4, reader_rank=2)
    readers = [MessageQueue.create_from_handle(handle, 0) for handle in handles]
    queue.wait_until_ready(PATIENCE)
    queue.enqueue(f"from {rank}")
    received = [reader.dequeue(PATIENCE) for reader in readers]
    dist.barrier()  # a writer that leaves has been heard
    return received


def test_one_reader_of_a_torch_group() -> None:
    assert groups.run(all_to_one, backend="gloo") == [[], [], ["from 0", "from 1", "from 2"]]


def external(rank: int, world: int) -> Any:
    """The writer is none of the group: here a second queue of rank 0's."""
    own = None
    if rank == 0:
        own = MessageQueue(3, 3)
    handle = own.export_handle() if own is not None else None
    queue = MessageQueue.create_from_process_group(
        dist.group.WORLD, 1 << 20, 4, external_writer_handle=handle, blocking=False
    )
    if own is not None:
        own.wait_until_ready(PATIENCE)
        own.enqueue("from outside")
    value = queue.dequeue(PATIENCE)
    dist.barrier()
    return value, queue.local_reader_rank


def test_a_writer_from_outside_of_the_group() -> None:
    assert groups.run(external, backend="gloo") == [("from outside", rank) for rank in range(3)]


def stateless(folder: str, rank: int, pipe: Any) -> None:
    queue = MessageQueue.create_from_process_group(FileGroup(folder, rank, 2), 1 << 20, 4)
    pipe.send(exchange(queue, rank, 0))
    pipe.recv()


def test_a_stateless_group(tmp_path: Path) -> None:
    with Child(stateless, str(tmp_path), 0) as writer, Child(stateless, str(tmp_path), 1) as reader:
        assert writer.says() == reader.says()
        for child in (writer, reader):
            child.tell("end")
            child.end()


def one_cannot(rank: int, world: int, kind: str) -> tuple[str, float]:
    """Rank 1 asks for what cannot be: fewer chunks than none."""
    chunks = -1 if rank == 1 else 4
    begun = time.monotonic()
    try:
        if kind == "one writer":
            MessageQueue.create_from_process_group(dist.group.WORLD, 1 << 20, chunks, writer_rank=1)
        else:
            MessageQueue.create_from_process_group_single_reader(
                dist.group.WORLD, 1 << 20, chunks, reader_rank=2, blocking=True
            )
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}", time.monotonic() - begun
    return "nothing", 0.0


@pytest.mark.parametrize("kind", ["one writer", "one reader"])
def test_a_writer_that_cannot_make_its_queue_is_told_to_all_at_once(kind: str) -> None:
    said, times = zip(*groups.run(partial(one_cannot, kind=kind), backend="gloo"), strict=True)
    assert said[0] == said[2] == f"QueueError: rank 1 of the group could not make its side of the queue: {said[1]}"
    assert "nothing" not in said[1] and max(times) < 10


CLONE_NEWNET = 0x40000000


def asks_who_is_near(folder: str, rank: int, pipe: Any) -> None:
    if rank == 1 and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        pipe.send("may not")
        os._exit(0)
    pipe.send("there")
    pipe.recv()
    group = Group(FileGroup(folder, rank, 3))
    pipe.send([same_node(group, source) for source in range(3)])


def test_who_is_in_another_network_namespace_is_not_on_the_same_node(tmp_path: Path) -> None:
    """A queue's writer is reached by name within a network namespace."""
    children = [Child(asks_who_is_near, str(tmp_path), rank) for rank in range(3)]
    try:
        if "may not" in [child.says() for child in children]:
            pytest.skip("this user may make no network namespace")
        for child in children:
            child.tell("go")
        for child in children:
            assert child.says() == [[True, False, True], [False, True, False], [True, False, True]]
    finally:
        for child in children:
            child.kill()


def test_a_folder_whose_name_is_too_long_for_a_socket_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNISONO_DIR", str(tmp_path / ("long" * 30)))
    assert same_node(Group(FileGroup(str(tmp_path), 0, 1)), 0) == [True]


def test_handles_are_what_travels() -> None:
    assert isinstance(MessageQueue(1, 1).export_handle(), Handle)
