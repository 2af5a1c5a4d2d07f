"""`unisono.vllm.ShmRingBuffer`: named memory with the documented layout, that leaves nothing behind."""

from __future__ import annotations

import gc
import glob
import os
import pickle
import sys
import time
from typing import Any

import pytest
import unisono
from queues import PATIENCE, Child
from unisono.vllm import ShmRingBuffer, shm_broadcast


def test_a_ring_buffer_has_the_documented_layout_in_named_memory() -> None:
    ring = ShmRingBuffer(n_reader=2, max_chunk_bytes=100, max_chunks=3)
    other = pickle.loads(pickle.dumps(ring))
    assert (ring.is_creator, other.is_creator) == (True, False)
    assert ring.handle() == other.handle() == (2, 100, 3, ring.shared_memory.name)
    assert os.path.exists(f"/dev/shm/{ring.shared_memory.name}")
    for index in range(3):
        with ring.get_metadata(index) as flags:
            assert flags.tolist() == [0, 0, 0]
            flags[:] = bytes([1, index, 2])
        with ring.get_data(index) as chunk:
            chunk[:] = bytes([index]) * 100
    with other.shared_memory.buf as everything:
        assert bytes(everything[:300]) == b"\0" * 100 + b"\1" * 100 + b"\2" * 100
        assert bytes(everything[300:309]) == bytes([1, 0, 2, 1, 1, 2, 1, 2, 2])
        assert len(everything) == ring.total_bytes_of_buffer == 309
    with pytest.raises(IndexError), ring.get_data(3):
        pass


def test_a_ring_buffers_name_goes_with_its_creator_alone() -> None:
    ring = ShmRingBuffer(1, 10, 1)
    handle = ring.handle()
    other = ShmRingBuffer(*handle)
    path = f"/dev/shm/{handle[3]}"
    del other
    gc.collect()
    assert os.path.exists(path)
    with pytest.raises(unisono.Error, match="bytes are needed"):
        ShmRingBuffer(1, 1000, 1, handle[3])
    del ring
    gc.collect()
    assert not os.path.exists(path)
    with pytest.raises(unisono.Error, match=handle[3]):
        ShmRingBuffer(*handle)


def test_a_name_that_is_gone_already_is_no_trouble(capfd: Any) -> None:
    ring = ShmRingBuffer(1, 10, 1)
    ring.shared_memory.unlink()
    del ring
    gc.collect()
    assert capfd.readouterr().err == ""


def makes_ring(pipe: Any) -> None:
    ring = ShmRingBuffer(1, 10, 1)
    pipe.send(ring.shared_memory.name)
    pipe.recv()


def test_a_killed_creators_ring_buffer_leaves_nothing() -> None:
    from multiprocessing import resource_tracker

    with Child(makes_ring, method="spawn") as child:
        path = f"/dev/shm/{child.says()}"
        assert os.path.exists(path)
        child.kill()
    # A spawned child shares this process's tracker, which goes through what it knows when its last user has gone.
    resource_tracker._resource_tracker._stop()
    until = time.monotonic() + PATIENCE
    while glob.glob(path) and time.monotonic() < until:
        time.sleep(0.01)
    assert not os.path.exists(path)


def test_what_does_not_fit_is_said_before_it_is_tried() -> None:
    with pytest.raises(RuntimeError, match="Insufficient space"):
        ShmRingBuffer(1, 1 << 50, 1)
    shm_broadcast.check_shm_free_space(1 << 10)
    with pytest.raises(MemoryError):
        shm_broadcast.check_shm_free_space(1 << 50, "/nowhere")
    assert sys.getrefcount(shm_broadcast.memory_fence()) > 0


def test_a_forked_child_reads_and_writes_the_ring_and_leaves_its_name() -> None:
    ring = ShmRingBuffer(1, 10, 1)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with ring.get_data(0) as chunk:
                chunk[:] = b"from child"
            del ring
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    with ring.get_data(0) as chunk:
        assert bytes(chunk) == b"from child"
    assert os.path.exists(f"/dev/shm/{ring.shared_memory.name}")
