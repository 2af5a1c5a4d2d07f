"""The queue itself from Python: bytes in place, time-outs, guards, deaths, Ctrl-C."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from queues import PATIENCE, Child
from unisono import queue


def sides(readers: int = 1, **options: Any) -> tuple[queue.Writer, list[queue.Reader]]:
    writer = queue.Writer(range(readers), **options)
    return writer, [queue.Reader(writer.handle, rank) for rank in range(readers)]


def test_every_reader_gets_every_message_in_order() -> None:
    writer, readers = sides(3)
    messages = [bytes([number]) * length for number, length in enumerate([0, 1, 255, 4096, 1 << 20, (3 << 20) + 1, 7])]
    received: list[list[bytes]] = [[], [], []]

    def read(rank: int) -> None:
        received[rank] = [readers[rank].recv_bytes(PATIENCE) for _ in messages]

    threads = [threading.Thread(target=read, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for message in messages:
        writer.send(message, PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)
    assert received == [messages] * 3 and writer.messages == len(messages)


def test_long_messages_are_whole_in_whichever_way_they_are_copied() -> None:
    """The first two go different ways, and later ones by the clock; at every place in a line."""
    writer, [reader] = sides()
    source = os.urandom((1 << 20) + 200)
    for number in range(130):
        length = (32 << 10) + 37 * number if number % 10 else 1 << 20
        sent = memoryview(source)[number : number + length]
        writer.send(sent, PATIENCE)
        assert reader.recv_bytes(PATIENCE) == sent


def test_anything_contiguous_is_sent_and_nothing_else() -> None:
    writer, [reader] = sides()
    numbers = np.arange(6, dtype=np.float64).reshape(2, 3)
    for data in (numbers, memoryview(b"view"), bytearray(b"array")):
        writer.send(data)
        assert reader.recv_bytes(0) == bytes(data)
    for wrong in (numbers.T, numbers[:, ::2]):
        with pytest.raises(BufferError):
            writer.send(wrong)
    with pytest.raises(TypeError):
        writer.send("text")


def test_a_message_lies_in_place_as_long_as_its_object_lives() -> None:
    writer, [reader] = sides(max_chunks=1)
    with writer.reserve(8).view() as view:
        assert len(view) == 8 and not view.readonly  # dropped uncommitted: it never was
    slot = writer.reserve(8)
    with slot.view() as view:
        view[:] = b"in place"
    slot.commit()
    message = reader.recv(0)
    array = np.frombuffer(message.view(), dtype=np.uint8)
    assert message.number == 0 and not array.flags.writeable and array.tobytes() == b"in place"
    with pytest.raises(BufferError, match="views"):
        message.release()
    with pytest.raises(queue.QueueTimeout):  # its room is not given back while it lives
        writer.send(b"next", 0.01)
    with pytest.raises(queue.QueueHeld):
        reader.recv(0)
    del message
    gc.collect()
    assert array.tobytes() == b"in place", "the array keeps it"
    del array
    writer.send(b"next", PATIENCE)
    assert reader.recv_bytes(0) == b"next"


def test_a_message_that_is_kept_stays_the_next() -> None:
    writer, [reader] = sides()
    writer.send(b"one")
    reader.recv(0).keep()
    assert reader.recv_bytes(0) == b"one"


def test_a_slot_with_views_is_not_sent_and_a_discarded_one_never_was() -> None:
    writer, [reader] = sides()
    slot = writer.reserve(4)
    view = slot.view()
    with pytest.raises(BufferError):
        slot.commit()
    view.release()
    slot.discard()
    with pytest.raises(ValueError):
        slot.commit()
    with pytest.raises(queue.QueueTimeout):
        reader.recv(0)
    writer.send(b"sent")
    assert reader.recv_bytes(0) == b"sent"


def test_time_outs_name_who_was_waited_for() -> None:
    writer, [reader] = sides(max_chunks=2)
    with pytest.raises(TimeoutError, match="writer") as at_reader:
        reader.recv_bytes(0.01)
    assert at_reader.value.writer.pid == os.getpid() and at_reader.value.waited >= 0.01
    writer.send(b"1")
    writer.send(b"2")
    with pytest.raises(TimeoutError, match=r"rank 0 \(pid \d+, alive, behind by 2 messages") as at_writer:
        writer.send(b"3", 0.01)
    [behind] = at_writer.value.readers
    assert (behind.rank, behind.pid, behind.presence, behind.lag_messages) == (0, os.getpid(), "alive", 2)
    assert [status.lag_messages for status in writer.readers()] == [2]


def test_readiness_has_a_time_out_that_names_the_missing() -> None:
    writer = queue.Writer([0, 7])
    reader = queue.Reader(writer.handle, 0)
    for side in (writer, reader):
        with pytest.raises(queue.QueueTimeout) as late:
            side.wait_until_ready(0.01)
        if side is writer:
            assert [(status.rank, status.presence) for status in late.value.readers] == [(7, "awaited")]
    other = queue.Reader(writer.handle, 7)
    for side in (writer, reader, other):
        side.wait_until_ready(PATIENCE)


def test_errors_of_coming_in_have_their_fields() -> None:
    writer, _readers = sides()
    with pytest.raises(queue.QueueRankTaken) as taken:
        queue.Reader(writer.handle, 0)
    assert (taken.value.rank, taken.value.pid) == (0, os.getpid())
    with pytest.raises(queue.QueueUnknownRank) as unknown:
        queue.Reader(writer.handle, 5)
    assert (unknown.value.rank, unknown.value.ranks) == (5, [0])
    with pytest.raises(queue.QueueHandleError):
        queue.Handle(b"nonsense")
    with pytest.raises(queue.QueueInvalidArgument):
        queue.Writer([1, 1])
    handle = pickle.loads(pickle.dumps(writer.handle))
    assert handle == writer.handle
    writer.close()
    with pytest.raises(queue.QueueMeeting):
        queue.Reader(handle, 0, timeout=PATIENCE)
    with pytest.raises(queue.QueueClosed):
        writer.send(b"")


@pytest.mark.parametrize("end, error", [("cancel", queue.QueueCancelled), ("shut_down", queue.QueueShutDown)])
def test_waits_end_from_another_thread(end: str, error: type[Exception]) -> None:
    writer, [reader] = sides(max_chunks=1)
    problems: list[BaseException] = []

    def wait(attempt: Any) -> None:
        with pytest.raises(error) as ended:
            attempt()
        problems.append(ended.value)

    writer.send(b"unread")
    for side, attempt in ((writer, lambda: writer.send(b"")), (reader, lambda: [reader.recv_bytes(), reader.recv_bytes()])):
        thread = threading.Thread(target=wait, args=(attempt,))
        thread.start()
        while thread.is_alive():  # a cancellation ends only a wait that has begun
            getattr(side, end)()
            thread.join(0.01)
    assert len(problems) == 2


def dies(handle: queue.Handle, pipe: Any) -> None:
    reader = queue.Reader(handle, 0)
    pipe.send("in")
    pipe.recv()
    reader.recv_bytes(PATIENCE)


def test_a_killed_reader_is_named_to_a_writer_that_waits_for_room() -> None:
    writer = queue.Writer([0], max_chunks=1)
    with Child(dies, writer.handle) as child:
        assert child.says() == "in"
        writer.send(b"unread")
        timer = threading.Timer(0.2, child.process.kill)
        timer.start()
        with pytest.raises(queue.QueuePeerDied) as died:
            writer.send(b"no room", PATIENCE)
        assert (died.value.role, died.value.rank, died.value.pid) == ("reader", 0, child.process.pid)
        timer.join()


def writes_and_dies(pipe: Any) -> None:
    writer = queue.Writer([0])
    pipe.send(writer.handle)
    pipe.recv()
    writer.send(b"last words")
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_sent_is_read_before_the_writers_death_is_told() -> None:
    with Child(writes_and_dies) as child:
        reader = queue.Reader(child.says(), 0)
        child.tell("go")
        child.process.join(PATIENCE)
        assert reader.recv_bytes(PATIENCE) == b"last words"
        with pytest.raises(queue.QueuePeerDied) as died:
            reader.recv_bytes(PATIENCE)
        assert (died.value.role, died.value.pid) == ("writer", child.process.pid)


def interrupted(pipe: Any) -> None:
    writer, [reader] = sides()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        reader.recv_bytes()
    writer.send(b"afterwards")
    pipe.send(reader.recv_bytes(PATIENCE))


def test_ctrl_c_ends_a_wait_and_the_next_call_goes_on() -> None:
    with Child(interrupted) as child:
        assert child.says() == b"afterwards"
        child.end()


def writes_here_and_elsewhere(pipe: Any) -> None:
    writer = queue.Writer([0], remote_ranks=[1], connect_ip="127.0.0.1")
    pipe.send(writer.handle)
    pipe.recv()


@pytest.mark.parametrize("rank", [0, 1], ids=["here", "elsewhere"])
def test_ctrl_c_ends_the_wait_for_a_writer_that_does_not_answer(rank: int) -> None:
    with Child(writes_here_and_elsewhere) as child:
        handle = child.says()
        os.kill(child.process.pid, signal.SIGSTOP)
        while ") T " not in Path(f"/proc/{child.process.pid}/stat").read_text():
            time.sleep(0.01)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            queue.Reader(handle, rank)
        assert 0.15 < time.monotonic() - begun < 5


def test_other_threads_run_while_one_waits() -> None:
    writer, [reader] = sides()
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(reader.recv_bytes(PATIENCE)))
    thread.start()
    time.sleep(0.05)  # it waits, and this thread runs
    assert thread.is_alive()
    writer.send(b"at last")
    thread.join(PATIENCE)
    assert received == [b"at last"]


def test_a_thread_that_finds_another_one_waiting_has_a_time_out_too() -> None:
    writer, [reader] = sides()
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(reader.recv_bytes(PATIENCE)))
    thread.start()
    while True:
        try:
            reader.recv_bytes(0.02)
        except queue.QueueBusy as busy:
            assert isinstance(busy, TimeoutError)
            break
        except queue.QueueTimeout:  # the other one has not begun
            continue
    writer.send(b"for the first")
    thread.join(PATIENCE)
    assert received == [b"for the first"]


def in_another_thread(reader: queue.Reader, timeout: float) -> threading.Thread:
    """A thread whose call has the reader when this returns, and finds nothing."""

    def waits() -> None:
        with pytest.raises(queue.QueueTimeout):
            reader.recv_bytes(timeout)

    thread = threading.Thread(target=waits)
    thread.start()
    until_busy(reader)
    return thread


def until_busy(reader: queue.Reader) -> None:
    """Another thread's call has the reader when this returns."""
    while True:
        try:
            reader.recv_bytes(0)
        except queue.QueueBusy:
            return
        except queue.QueueTimeout:  # the other one has not begun
            continue


def test_what_another_threads_call_takes_counts_as_waited() -> None:
    _writer, [reader] = sides()
    thread = in_another_thread(reader, 0.6)
    begun = time.monotonic()
    with pytest.raises(queue.QueueTimeout) as over:
        reader.recv_bytes(1.0)
    assert 0.95 < time.monotonic() - begun < 1.4
    assert 0.95 < over.value.waited < 1.4
    thread.join(PATIENCE)


def test_who_waits_for_another_threads_call_sleeps_and_is_woken_by_its_end() -> None:
    writer, [reader] = sides()
    thread = in_another_thread(reader, 1.0)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    threading.Timer(1.3, writer.send, (b"later",)).start()
    received = reader.recv_bytes(PATIENCE)
    woken = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    thread.join(PATIENCE)
    # The main thread looks for signals a few times a second, and no oftener for anything else.
    assert received == b"later" and woken < 200


@pytest.mark.parametrize(
    "end, error", [("held", queue.QueueHeld), ("shut_down", queue.QueueShutDown), ("close", queue.QueueClosed)]
)
def test_who_waits_for_another_threads_call_is_told_what_comes_of_it(end: str, error: type[Exception]) -> None:
    writer, [reader] = sides()
    ends: dict[str, Any] = {}

    def receives(name: str) -> None:
        try:
            ends[name] = reader.recv()
        except queue.QueueError as problem:
            ends[name] = problem

    first, second = (threading.Thread(target=receives, args=(name,), daemon=True) for name in ("first", "second"))
    first.start()
    until_busy(reader)
    second.start()
    time.sleep(0.1)  # it waits for its turn; one that has not begun is told the same
    if end == "held":
        writer.send(b"kept")
    else:
        getattr(reader, end)()
    second.join(PATIENCE)
    assert not second.is_alive() and isinstance(ends["second"], error)
    if end == "close":  # the call that has the side goes on, and closes it
        assert first.is_alive()
        writer.send(b"kept")
    first.join(PATIENCE)
    if end == "shut_down":
        assert isinstance(ends["first"], error)
    else:
        assert ends["first"].to_bytes() == b"kept"


def test_a_forked_child_is_told_and_its_parent_goes_on() -> None:
    writer, [reader] = sides()
    writer.send(b"held")
    message = reader.recv(0)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for look in (message.view, message.to_bytes):
                with pytest.raises(BufferError, match="forked"):
                    look()
            message.release()
            for attempt in (lambda: writer.send(b"x"), lambda: reader.recv_bytes(0)):
                with pytest.raises(queue.QueueForked):
                    attempt()
            del attempt
            writer.close()
            reader.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert message.to_bytes() == b"held"
    message.release()
    writer.send(b"still here")
    assert reader.recv_bytes(0) == b"still here"


def test_a_child_forked_while_a_thread_waits_is_told_too() -> None:
    writer, [reader] = sides()
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(reader.recv_bytes(PATIENCE)))
    thread.start()
    while True:
        try:
            reader.recv_bytes(0.02)
        except queue.QueueBusy:
            break
        except queue.QueueTimeout:  # the other one has not begun
            continue
    slot = writer.reserve(4)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(20)  # It would wait for ever.
            with pytest.raises(queue.QueueForked):
                reader.recv_bytes()
            with pytest.raises(BufferError, match="forked"):
                slot.commit()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    with slot.view() as view:
        view[:] = b"sent"
    slot.commit()
    thread.join(PATIENCE)
    assert received == [b"sent"] and writer.messages == 1


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_readers_elsewhere_get_the_same_messages(ip: str) -> None:
    writer = queue.Writer([0], remote_ranks=[1], connect_ip=ip)
    assert writer.handle.remote_address[0] == ip and writer.handle.remote_ranks == [1]
    readers = [queue.Reader(writer.handle, rank) for rank in (0, 1)]
    writer.wait_until_ready(PATIENCE)
    big = os.urandom(2 << 20)
    writer.send(b"small")
    writer.send(big)
    for reader in readers:
        assert [reader.recv_bytes(PATIENCE), reader.recv_bytes(PATIENCE)] == [b"small", big]
