"""`unisono.vllm.MessageQueue` does what vLLM's does, and what vLLM's should."""

from __future__ import annotations

import gc
import glob
import logging
import os
import pickle
import re
import resource
import signal
import sys
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
import torch
import unisono
from queues import PATIENCE, Child, pair, reads
from unisono import queue
from unisono.vllm import MessageQueue, ShmRingBuffer, shm_broadcast


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


@SIDES
def test_objects_arrive_as_they_were(sides: Any) -> None:
    writer, reader = sides()
    for obj in OBJECTS:
        assert writer.broadcast_object(obj) is obj
        assert reader.broadcast_object() == obj


@SIDES
@pytest.mark.parametrize("length", [0, 10, (1 << 20) - 1, 1 << 20, 5 << 20, 30 << 20])
def test_arrays_and_tensors_arrive_writable_and_the_receivers_own(sides: Any, length: int) -> None:
    writer, reader = sides()
    array = np.arange(length, dtype=np.uint8)
    sent = {"array": array, "tensor": torch.from_numpy(array.copy()), "read_only": np.frombuffer(array.tobytes(), np.uint8)}
    for name, value in sent.items():
        writer.enqueue({name: value})
        received = reader.dequeue(PATIENCE)[name]
        assert type(received) is type(value) and received.dtype == value.dtype
        assert np.array_equal(np.asarray(received), array)
        if name == "read_only":
            assert received.flags.writeable == (False if length else received.flags.writeable)
        elif length:
            received[0] = 77
            assert array[0] == 0


def test_what_was_received_stays_when_its_room_is_used_again() -> None:
    writer, reader = pair(max_chunk_bytes=2 << 20, max_chunks=1)
    kept = []
    for value in range(6):
        writer.enqueue(np.full(1 << 20, value, dtype=np.uint8))
        kept.append(reader.dequeue(PATIENCE))
    for value, array in enumerate(kept):
        assert (array == value).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.bool])
def test_tensors_of_every_kind(dtype: torch.dtype) -> None:
    writer, reader = pair()
    tensors = [torch.randn(3, 5).to(dtype), torch.zeros(0, 8, dtype=dtype), torch.zeros((), dtype=dtype)]
    if dtype == torch.bfloat16:
        tensors += [torch.randn(64, 64).to(dtype).t(), torch.randn(8, 8, requires_grad=True)]
        tensors += [torch.nn.Parameter(torch.randn(4), requires_grad=False), torch.randn(4, dtype=torch.complex64).conj()]
        tensors += [torch.eye(3).to_sparse()]
    for tensor in tensors:
        writer.enqueue(tensor)
        received = reader.dequeue(PATIENCE)
        assert (type(received), received.shape, received.dtype) == (type(tensor), tensor.shape, tensor.dtype)
        assert received.requires_grad == tensor.requires_grad and received.layout == tensor.layout
        same = (received.to_dense(), tensor.to_dense()) if tensor.is_sparse else (received, tensor)
        if dtype == torch.float8_e4m3fn:
            same = (received.view(torch.uint8), tensor.view(torch.uint8))
        assert torch.equal(*same)


def test_large_buffers_lie_beside_the_pickle_in_the_ring() -> None:
    writer, reader = pair()
    array = np.arange(1 << 20, dtype=np.uint8)
    writer.enqueue([array, torch.from_numpy(array), "small"])
    with reader.acquire_read(PATIENCE) as view:
        assert view[0] == 0 and int.from_bytes(view[1:3], "big") == 3
        main = int.from_bytes(view[3:7], "big")
        assert main < 1000 and int.from_bytes(view[7 + main : 11 + main], "big") == 1 << 20
        assert bytes(view[11 + main : 11 + main + (1 << 20)]) == array.tobytes()
        assert view.readonly


def test_a_chunk_may_be_written_by_hand_and_dequeued() -> None:
    writer, reader = pair(max_chunk_bytes=4096)
    main = pickle.dumps("by hand")
    with writer.acquire_write(PATIENCE) as view:
        assert len(view) == 4096 and not view.readonly
        view[: 7 + len(main)] = b"\0" + (1).to_bytes(2, "big") + len(main).to_bytes(4, "big") + main
    assert reader.dequeue(PATIENCE) == "by hand"
    with pytest.raises(KeyError), writer.acquire_write(PATIENCE):
        raise KeyError("nothing is sent")
    with writer.acquire_write(PATIENCE) as view:
        view[:] = b"\xff" * 4096
    with pytest.raises(queue.QueueMalformed):
        reader.dequeue(PATIENCE)
    with pytest.raises(TimeoutError):
        reader.dequeue(0)


def test_a_reader_that_raises_leaks_no_chunk() -> None:
    writer, reader = pair(max_chunks=1)
    for _ in range(3):
        writer.enqueue("value", PATIENCE)
        with pytest.raises(KeyError), reader.acquire_read(PATIENCE):
            raise KeyError
    writer.enqueue(Unpicklable(), PATIENCE)
    with pytest.raises(ZeroDivisionError):
        reader.dequeue(PATIENCE)
    with writer.buffer.get_metadata(0) as flags:
        assert flags.tolist() == [1, 1]
    writer.enqueue("after", PATIENCE)
    with writer.buffer.get_metadata(0) as flags:
        assert flags.tolist() == [1, 0]
    assert reader.dequeue(PATIENCE) == "after"


class Unpicklable:
    def __reduce__(self) -> Any:
        return divmod, (1, 0)


def test_an_object_that_cannot_be_pickled_sends_nothing() -> None:
    writer, reader = pair()
    for wrong in (lambda: None, [b"x" * 100_000, threading.Lock()], np.arange(1 << 21, dtype=np.uint8)[::2]):
        try:
            writer.enqueue(wrong)
        except (TypeError, AttributeError, pickle.PicklingError):
            continue
        assert np.array_equal(reader.dequeue(PATIENCE), wrong)
    writer.enqueue("next")
    assert reader.dequeue(0) == "next"


@SIDES
def test_time_outs(sides: Any) -> None:
    _writer, reader = sides()
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="writer"):
        reader.dequeue(timeout=0)
    with pytest.raises(TimeoutError):
        reader.dequeue(timeout=0.05, indefinite=True)
    assert time.monotonic() - begun >= 0.05


@SIDES
def test_who_is_not_to_may_not(sides: Any) -> None:
    writer, reader = sides()
    with pytest.raises(AssertionError):
        reader.enqueue(1)
    with pytest.raises(AssertionError), reader.acquire_write():
        pass
    with pytest.raises(AssertionError), writer.acquire_read():
        pass
    with pytest.raises(RuntimeError, match="Only readers"):
        writer.dequeue()


def test_a_queue_without_readers_takes_everything_and_has_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    alone = MessageQueue(n_reader=0, n_local_reader=0)
    alone.enqueue({"to": "nobody"})
    assert alone.broadcast_object("x") == "x"
    alone.wait_until_ready()
    assert alone.buffer is None and alone.current_idx == -1 and alone.export_handle().buffer_handle is None
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(RuntimeError):
        MessageQueue.create_from_handle(alone.export_handle(), 0)
    alone.shutdown()


@SIDES
def test_shutdown_ends_a_wait_from_another_thread(sides: Any) -> None:
    writer, reader = sides()
    ends: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(RuntimeError, match="^cancelled$") as end:
            reader.dequeue()
        ends.append(end.value)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    reader.shutdown()
    thread.join(PATIENCE)
    assert len(ends) == 1 and reader.shutting_down and not writer.shutting_down
    with pytest.raises(RuntimeError, match="cancelled"):
        reader.dequeue(timeout=PATIENCE)
    writer.shutdown()
    with pytest.raises(RuntimeError, match="cancelled"):
        writer.enqueue("x")


def test_shutdown_ends_a_writers_wait_for_room() -> None:
    writer, _reader = pair(max_chunks=1)
    writer.enqueue("unread")
    threading.Timer(0.05, writer.shutdown).start()
    with pytest.raises(RuntimeError, match="cancelled"):
        writer.enqueue("no room")


@pytest.mark.parametrize("positional", [False, True])
def test_the_cancel_event_ends_a_wait(positional: bool) -> None:
    _writer, reader = pair()
    cancel = threading.Event()
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(RuntimeError, match="cancelled"):
        reader.dequeue(None, cancel) if positional else reader.dequeue(cancel=cancel)
    cancel.clear()
    with pytest.raises(TimeoutError):
        reader.dequeue(timeout=0.03, cancel=cancel)
    _writer.enqueue("value")
    assert reader.dequeue(cancel=cancel) == "value"


def test_instances_are_like_others() -> None:
    writer, reader = pair()
    reader.cycle, writer.anything = reader, 1
    reference = weakref.ref(reader)
    writer.enqueue = lambda obj, timeout=None: "patched"
    assert writer.broadcast_object(1) == 1 and writer.enqueue(1) == "patched"
    del reader
    collector = threading.Thread(target=gc.collect)
    collector.start()
    collector.join(PATIENCE)
    assert not collector.is_alive() and reference() is None
    del writer.enqueue
    with pytest.raises(unisono.PeerLeft):
        writer.enqueue("nobody")


def answers(requests: Any, pipe: Any) -> None:
    """Dequeues on the main thread, answers on another, and is shut down by a third."""
    incoming = MessageQueue.create_from_handle(requests, 0)
    outgoing = MessageQueue(1, 1)
    pipe.send(outgoing.export_handle())
    outgoing.wait_until_ready(PATIENCE)
    waiting: list[Any] = []
    there = threading.Semaphore(0)

    def answer() -> None:
        while there.acquire() and (value := waiting.pop(0)) is not None:
            outgoing.enqueue(value * 2, PATIENCE)

    answering = threading.Thread(target=answer)
    answering.start()
    threading.Thread(target=lambda: (pipe.recv(), incoming.shutdown())).start()
    try:
        while True:
            waiting.append(incoming.dequeue(indefinite=True))
            there.release()
    except RuntimeError as end:
        pipe.send(str(end))
    waiting.append(None)
    there.release()
    answering.join()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_three_threads_of_a_worker(method: str) -> None:
    requests = MessageQueue(1, 1)
    with Child(answers, requests.export_handle(), method=method) as child:
        responses = MessageQueue.create_from_handle(child.says(), 0)
        responses.wait_until_ready(PATIENCE)
        for number in range(200):
            requests.enqueue(number, PATIENCE)
            assert responses.dequeue(PATIENCE) == number * 2
        child.tell("end")
        assert child.says() == "cancelled"
        child.end()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_handles_travel_with_a_process_and_through_a_pipe(method: str) -> None:
    writer = MessageQueue(2, 2, local_reader_ranks=[3, 5])
    with (
        Child(reads, writer.export_handle(), 3, method=method) as first,
        Child(reads, pickle.loads(pickle.dumps(writer.export_handle())), 5, method=method) as second,
    ):
        writer.wait_until_ready(PATIENCE)
        objects = [*OBJECTS, np.arange(1 << 21)]
        for child in (first, second):
            assert child.says() == "ready"
            child.tell(len(objects))
        for obj in objects:
            writer.enqueue(obj, PATIENCE)
        for child in (first, second):
            received = child.says()
            assert received[:-1] == OBJECTS and np.array_equal(received[-1], objects[-1])
            child.tell(None)
            child.end()


# What hurts in vLLM's queue.


def stuck(handle: Any, rank: int, pipe: Any) -> None:
    queue = MessageQueue.create_from_handle(handle, rank)
    pipe.send("in")
    pipe.recv()
    del queue


def test_a_full_ring_with_a_stuck_reader_names_it() -> None:
    writer = MessageQueue(2, 2, max_chunks=3)
    here = MessageQueue.create_from_handle(writer.export_handle(), 0)
    with Child(stuck, writer.export_handle(), 1) as child:
        assert child.says() == "in"
        for number in range(3):
            writer.enqueue(number)
            assert here.dequeue(PATIENCE) == number
        with pytest.raises(TimeoutError, match=rf"rank 1 \(pid {child.process.pid}, alive, behind by 3 messages") as late:
            writer.enqueue("no room", timeout=0.05)
        [behind] = late.value.readers
        assert (behind.rank, behind.pid, behind.presence, behind.lag_messages) == (1, child.process.pid, "alive", 3)
        child.kill()
        with pytest.raises(unisono.PeerDied) as died:
            writer.enqueue("no room", timeout=PATIENCE)
        assert (died.value.rank, died.value.pid) == (1, child.process.pid)


def test_a_dead_reader_ends_the_wait_for_readiness() -> None:
    writer = MessageQueue(2, 2)
    with Child(stuck, writer.export_handle(), 1) as child:
        assert child.says() == "in"
        with pytest.raises(TimeoutError, match="rank 0"):
            writer.wait_until_ready(timeout=0.05)
        threading.Timer(0.1, child.process.kill).start()
        with pytest.raises(unisono.PeerDied):
            writer.wait_until_ready(timeout=PATIENCE)


def test_a_rank_is_one_process_s_and_a_missing_queue_is_told() -> None:
    writer, _reader = pair()
    handle = writer.export_handle()
    with pytest.raises(queue.QueueRankTaken) as taken:
        MessageQueue.create_from_handle(handle, 0)
    assert taken.value.pid == os.getpid()
    with pytest.raises(RuntimeError, match="rank 7"):
        MessageQueue.create_from_handle(handle, 7)
    del writer
    gc.collect()
    with pytest.raises(queue.QueueMeeting):
        MessageQueue.create_from_handle(handle, 0)


def test_a_message_that_overflows_counts_its_time_out_once() -> None:
    writer, reader = pair(max_chunk_bytes=1000)
    waited: list[float | None] = []
    arriving = reader._reader

    class Arriving:
        """The reader, with a note of how long each call may take."""

        def recv_pickled(self, timeout: float | None) -> Any:
            waited.append(timeout)
            return arriving.recv_pickled(timeout)

    writer.enqueue(b"x" * 100_000)
    reader._reader = Arriving()
    assert reader.dequeue(0.5) == b"x" * 100_000 and waited == [0.5]


def test_a_queue_takes_nothing_of_dev_shm() -> None:
    before = set(os.listdir("/dev/shm"))
    writer, reader = pair()
    writer.enqueue(np.zeros(30 << 20, dtype=np.uint8))
    reader.dequeue(PATIENCE)
    assert set(os.listdir("/dev/shm")) == before


def test_an_idle_reader_uses_no_processor_time() -> None:
    writer, reader = pair()
    writer.enqueue("one message before")
    reader.dequeue(PATIENCE)
    used: list[float] = []

    def wait() -> None:
        before = resource.getrusage(resource.RUSAGE_THREAD)
        with pytest.raises(TimeoutError):
            reader.dequeue(timeout=2.0, indefinite=True)
        after = resource.getrusage(resource.RUSAGE_THREAD)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(PATIENCE)
    assert used[0] < 0.02, used


@SIDES
def test_long_waits_are_told_with_who_is_waited_for_and_idleness_is_not(
    sides: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(shm_broadcast, "VLLM_RINGBUFFER_WARNING_INTERVAL", 0.01)
    caplog.set_level(logging.INFO, "unisono.vllm")
    _writer, reader = sides()
    caplog.clear()
    with pytest.raises(TimeoutError):
        reader.dequeue(timeout=0.05, indefinite=True)
    assert not caplog.records
    with pytest.raises(TimeoutError, match="after 0.1s waiting for the writer") as late:
        reader.dequeue(timeout=0.1)
    assert late.value.waited >= 0.1
    told = [record.getMessage() for record in caplog.records]
    assert told and all("No available shared memory broadcast block found in 0 seconds" in text for text in told)
    assert f"(pid {os.getpid()}" in told[0] and caplog.records[0].levelno == logging.INFO


def test_a_writer_that_waits_warns_and_names_the_reader(monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(shm_broadcast, "VLLM_RINGBUFFER_WARNING_INTERVAL", 0.01)
    writer, _reader = pair(max_chunks=1)
    writer.enqueue("unread")
    with pytest.raises(TimeoutError):
        writer.enqueue("no room", timeout=0.05)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING and record.name == "unisono.vllm"]
    assert warnings and "behind by 1 messages" in warnings[0].getMessage()


def test_a_slow_reader_elsewhere_loses_nothing() -> None:
    writer, reader = remote_pair()
    received: list[Any] = []

    def read() -> None:
        for number in range(300):
            received.append(reader.dequeue(PATIENCE))
            if number < 20:
                time.sleep(0.005)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(300):
        writer.enqueue((number, b"z" * 20_000), PATIENCE)
    thread.join(PATIENCE)
    assert [number for number, _ in received] == list(range(300))


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_readers_here_and_elsewhere(ip: str) -> None:
    writer = MessageQueue(3, 1, connect_ip=ip)
    handle = pickle.loads(pickle.dumps(writer.export_handle()))
    address = f"[{ip}]" if ":" in ip else ip
    assert handle.remote_subscribe_addr.startswith(f"tcp://{address}:") and handle.remote_addr_ipv6 == (":" in ip)
    readers = [MessageQueue.create_from_handle(handle, rank) for rank in (0, 1, 2)]
    assert [reader._is_remote_reader for reader in readers] == [False, True, True]
    for side in (writer, *readers):
        side.wait_until_ready(PATIENCE)
    for obj in OBJECTS:
        writer.enqueue(obj)
        assert [reader.dequeue(PATIENCE) for reader in readers] == [obj] * 3
    with pytest.raises(queue.QueueMeeting, match="all 2 readers elsewhere"):
        MessageQueue.create_from_handle(handle, -1)


def test_an_address_that_is_not_ours_and_the_key() -> None:
    with pytest.raises(queue.QueueElsewhere, match="Cannot assign requested address"):
        MessageQueue(1, 0, connect_ip="198.51.100.1")
    writer = MessageQueue(1, 0, connect_ip="127.0.0.1")
    key = writer.export_handle().queue.remote_key
    assert len(key) == 32
    # Not printed, and who has another gets in no more than who has none.
    assert key.hex() not in repr(writer.export_handle()) and repr(key)[2:-1] not in repr(writer.export_handle())
    raw = bytearray(writer.export_handle().queue.to_bytes())
    at = raw.index(key)
    raw[at] ^= 1
    with pytest.raises(queue.QueueMeeting):
        queue.Reader(queue.Handle(bytes(raw)), 0, timeout=5)


def test_many_writers_elsewhere_have_ports_of_their_own() -> None:
    writers = [MessageQueue(1, 0, connect_ip="127.0.0.1") for _ in range(16)]
    assert len({writer.export_handle().remote_subscribe_addr for writer in writers}) == 16


def test_recv_takes_the_next_message_of_a_queues_socket_and_of_zmqs() -> None:
    writer, reader = remote_pair()
    writer.enqueue({"a": np.zeros(1 << 20, dtype=np.uint8)})
    assert MessageQueue.recv(reader.remote_socket, PATIENCE)["a"].nbytes == 1 << 20
    with pytest.raises(TimeoutError):
        MessageQueue.recv(reader.remote_socket, 0.01)


class Socket:
    """As pyzmq's."""

    def poll(self, timeout: int | None = None) -> int:
        return 1

    def recv_multipart(self, copy: bool = True) -> list[Any]:
        return [pickle.dumps("from a socket")]


def test_recv_asks_any_socket() -> None:
    assert MessageQueue.recv(Socket(), None) == "from a socket"


def test_ctrl_c_ends_a_dequeue() -> None:
    with Child(interrupted) as child:
        assert child.says() == "afterwards"
        child.end()


def interrupted(pipe: Any) -> None:
    writer, reader = pair()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        reader.dequeue()
    writer.enqueue("afterwards")
    pipe.send(reader.dequeue(PATIENCE))


# ShmRingBuffer.


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
