"""Every public name of vLLM's message queue is there, with its arguments."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from typing import Any

import pytest
import unisono.vllm
from queues import pair
from unisono.vllm import Handle, MessageQueue, ShmRingBuffer, shm_broadcast

# What vLLM 0.33's module has, and what its first version had.
MODULE = [
    "VLLM_RINGBUFFER_WARNING_INTERVAL", "SHM_READER_RECHECK_INTERVAL_MS", "SHM_NOTIFY_POLL_INTERVAL_S",
    "SPINLOOP_EXT_ENABLED", "SPINLOOP_TIMEOUT_SECONDS", "SHM_PATH", "LONG_WAIT_TIME_LOG_MSG", "logger", "from_bytes_big",
    "to_bytes_big", "memory_fence", "check_shm_free_space", "Handle", "MessageQueue", "ShmRingBuffer",
    "SpinCondition",
]  # fmt: skip

HANDLE = {
    "local_reader_ranks": [], "buffer_handle": None, "local_subscribe_addr": None, "local_notify_addr": None,
    "remote_subscribe_addr": None, "remote_addr_ipv6": False, "tensor_arena_handle": None,
}  # fmt: skip

# Each callable with the names that it may be called with, in their order, and their defaults.
NO = inspect.Parameter.empty
CALLS: list[tuple[Any, dict[str, Any]]] = [
    (MessageQueue, {
        "n_reader": NO, "n_local_reader": NO, "local_reader_ranks": None, "max_chunk_bytes": 24 << 20, "max_chunks": 10,
        "connect_ip": None, "enable_shm_tensor_arena": False,
    }),
    (MessageQueue.create_from_handle, {"handle": NO, "rank": NO}),
    (MessageQueue.export_handle, {"self": NO}),
    (MessageQueue.wait_until_ready, {"self": NO}),
    (MessageQueue.shutdown, {"self": NO}),
    (MessageQueue.acquire_write, {"self": NO, "timeout": None}),
    (MessageQueue.acquire_read, {"self": NO, "timeout": None, "indefinite": False}),
    (MessageQueue.enqueue, {"self": NO, "obj": NO, "timeout": None}),
    (MessageQueue.dequeue, {"self": NO, "timeout": None, "indefinite": False}),
    (MessageQueue.recv, {"socket": NO, "timeout": NO}),
    (MessageQueue.broadcast_object, {"self": NO, "obj": None}),
    (MessageQueue.create_from_process_group, {
        "pg": NO, "max_chunk_bytes": NO, "max_chunks": NO, "writer_rank": 0, "external_writer_handle": None, "blocking": True,
    }),
    (MessageQueue.create_from_process_group_single_reader, {
        "pg": NO, "max_chunk_bytes": NO, "max_chunks": NO, "reader_rank": 0, "blocking": False,
    }),
    (MessageQueue.ReadTimeoutWithWarnings, {"timeout": NO, "should_warn": NO}),
    (MessageQueue.ReadTimeoutWithWarnings.timeout_ms, {"self": NO}),
    (MessageQueue.ReadTimeoutWithWarnings.should_warn, {"self": NO}),
    (ShmRingBuffer, {"n_reader": NO, "max_chunk_bytes": NO, "max_chunks": NO, "name": None}),
    (ShmRingBuffer.handle, {"self": NO}),
    (ShmRingBuffer.get_data, {"self": NO, "current_idx": NO}),
    (ShmRingBuffer.get_metadata, {"self": NO, "current_idx": NO}),
    (shm_broadcast.SpinCondition, {"is_reader": NO, "context": NO, "notify_address": NO, "busy_loop_s": 1}),
    (shm_broadcast.SpinCondition.record_read, {"self": NO}),
    (shm_broadcast.SpinCondition.cancel, {"self": NO}),
    (shm_broadcast.SpinCondition.wait, {"self": NO, "timeout_ms": None}),
    (shm_broadcast.SpinCondition.notify, {"self": NO}),
    (shm_broadcast.check_shm_free_space, {"required_bytes": NO, "shm_path": "/dev/shm", "allocation_name": "shared-memory allocation"}),
    (shm_broadcast.to_bytes_big, {"value": NO, "size": NO}),
    (shm_broadcast.memory_fence, {}),
]  # fmt: skip

RING = [
    "n_reader", "metadata_size", "max_chunk_bytes", "max_chunks", "total_bytes_of_buffer", "data_offset", "metadata_offset",
    "is_creator", "handle", "get_data", "get_metadata",
]  # fmt: skip

SIDES = [
    "handle", "buffer", "current_idx", "local_reader_rank", "local_socket", "remote_socket", "shutting_down", "tensor_arena",
    "_is_writer", "_is_local_reader", "_is_remote_reader",
]  # fmt: skip


@pytest.mark.parametrize("name", MODULE)
def test_the_module_has(name: str) -> None:
    assert hasattr(shm_broadcast, name)


@pytest.mark.parametrize("call, expected", CALLS, ids=[call.__qualname__ for call, _ in CALLS])
def test_is_called_like_vllms(call: Any, expected: dict[str, Any]) -> None:
    parameters = inspect.signature(call).parameters
    assert list(parameters)[: len(expected)] == list(expected)
    assert {name: parameters[name].default for name in expected} == expected
    # What is there beyond has defaults.
    assert all(parameter.default is not NO for parameter in list(parameters.values())[len(expected) :])


def test_a_handle_has_vllms_fields_and_defaults() -> None:
    assert {name: getattr(Handle(), name) for name in HANDLE} == HANDLE
    assert [field.name for field in dataclasses.fields(Handle)][: len(HANDLE)] == list(HANDLE)
    assert Handle().local_reader_ranks is not Handle().local_reader_ranks


def test_a_handle_takes_its_arguments_in_both_orders() -> None:
    ring = (1, 2, 3, "name")
    newer = Handle([0], ring, "ipc://a", "ipc://b", "tcp://c", True, ring)
    assert (newer.local_notify_addr, newer.remote_subscribe_addr, newer.remote_addr_ipv6) == ("ipc://b", "tcp://c", True)
    assert newer.tensor_arena_handle == ring
    for older in (Handle([0], ring, "ipc://a", "tcp://c", True), Handle([0], ring, "ipc://a", "tcp://c", remote_addr_ipv6=True)):
        assert (older.local_notify_addr, older.remote_subscribe_addr, older.remote_addr_ipv6) == (None, "tcp://c", True)
    named = Handle(local_reader_ranks=[0], remote_subscribe_addr="tcp://c")
    assert named == Handle([0], None, None, "tcp://c")
    assert dataclasses.replace(newer, tensor_arena_handle=None).local_subscribe_addr == "ipc://a"
    assert pickle.loads(pickle.dumps(newer)) == newer
    for wrong in (lambda: Handle([0], local_reader_ranks=[1]), lambda: Handle(nonsense=1), lambda: Handle(*range(9))):
        with pytest.raises(TypeError):
            wrong()


def test_both_sides_have_vllms_attributes() -> None:
    writer, reader = pair(max_chunk_bytes=1000, max_chunks=3)
    for side in (writer, reader):
        assert all(hasattr(side, name) for name in SIDES)
        assert all(hasattr(side.buffer, name) for name in RING)
        ring = side.buffer
        assert (ring.n_reader, ring.max_chunk_bytes, ring.max_chunks, ring.metadata_size) == (1, 1000, 3, 2)
        assert (ring.data_offset, ring.metadata_offset, ring.total_bytes_of_buffer) == (0, 3000, 3006)
        assert ring.handle() == writer.handle.buffer_handle
    assert (writer.n_local_reader, writer.n_remote_reader, writer.local_reader_rank, reader.local_reader_rank) == (1, 0, -1, 0)
    assert (writer._is_writer, reader._is_writer, reader._is_local_reader, reader._is_remote_reader) == (True, False, True, False)
    assert writer.handle.remote_subscribe_addr is None and isinstance(writer.handle.local_subscribe_addr, str)
    assert writer.remote_socket is None and reader.remote_socket is None
    for number in range(5):
        assert writer.current_idx == reader.current_idx == number % 3
        writer.enqueue(number)
        assert reader.dequeue(10) == number


def test_the_package_offers_the_three() -> None:
    assert unisono.vllm.__all__ == ["Handle", "MessageQueue", "ShmRingBuffer"]
    assert all(getattr(unisono.vllm, name) is getattr(shm_broadcast, name) for name in unisono.vllm.__all__)
