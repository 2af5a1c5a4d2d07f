"""`unisono.vllm.MessageQueue` does what vLLM's does."""

from __future__ import annotations

import gc
import os
import pickle
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
import torch
import unisono
from queues import OBJECTS, PATIENCE, SIDES, Child, pair, reads
from unisono import queue
from unisono.vllm import MessageQueue


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


@pytest.mark.parametrize("length", [1, 100, 8_000, 16_000, 131_071, 131_072, 200_000])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_other_types_and_orders(length: int, order: Any) -> None:
    writer, reader = pair()
    array = np.asarray(np.arange(length * 3, dtype=np.int64).reshape(length, 3), order=order)
    for value in (array, array.astype(np.uint16), array.astype(">f8"), array.astype("M8[ns]"), array > 5, array[::2]):
        writer.enqueue(value)
        received = reader.dequeue(PATIENCE)
        assert received.dtype == value.dtype and np.array_equal(received, value)


def test_what_was_received_stays_when_its_room_is_used_again() -> None:
    writer, reader = pair(max_chunk_bytes=2 << 20, max_chunks=1)
    kept = []
    for value in range(6):
        writer.enqueue(np.full(1 << 20, value, dtype=np.uint8))
        kept.append(reader.dequeue(PATIENCE))
    for value, array in enumerate(kept):
        assert (array == value).all()


@pytest.mark.filterwarnings("ignore")  # torch's quantised tensors are to go
def test_a_quantised_tensor_keeps_its_scale() -> None:
    quantised: Any = torch.quantize_per_tensor(torch.tensor([0.0, 1.0, -2.5]), 0.5, 3, torch.qint8)
    writer, reader = pair()
    writer.enqueue(quantised)
    assert torch.equal(reader.dequeue(PATIENCE).dequantize(), quantised.dequantize())


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
    # Its goodbye may come a moment later.
    deadline = time.monotonic() + PATIENCE
    with pytest.raises(unisono.PeerLeft):
        while time.monotonic() < deadline:
            writer.enqueue("nobody", timeout=PATIENCE)


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
