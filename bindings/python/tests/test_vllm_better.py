"""Where vLLM's message queue hurts, `unisono.vllm.MessageQueue` does not; and readers on other machines."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import resource
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
import unisono
from queues import OBJECTS, PATIENCE, SIDES, Child, pair, remote_pair
from unisono import queue
from unisono.vllm import MessageQueue, shm_broadcast


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
