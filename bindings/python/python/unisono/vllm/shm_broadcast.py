"""Stands in for `vllm.distributed.device_communicators.shm_broadcast`: the same names, over the library's queue.

A `MessageQueue` is one side of a queue of Python objects from one writer to many readers, on this machine through memory that
they share, to other machines over tcp. An object becomes a message of parts (the pickle, and large buffers beside it), which
the writer lays into the ring; a reader takes a small pickle out as bytes, and unpickles a large one where it lies.

The one invariant that matters: **what `dequeue` gave is the caller's own**: nothing in it points into the ring.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import _logging
from .._core import Pickled, QueueMessage, QueueReader, QueueSlot, QueueWriter
from .._queue_errors import QueueShutDown, QueueTimeout
from . import _groups, _opening
from ._handle import Handle as Handle
from ._pickling import Pickler
from ._pickling import rebuild_tensor as _rebuild_tensor  # noqa: F401  # the names that vLLM's tests import
from ._pickling import reduce_tensor as _reduce_tensor
from ._ring import QueueRing, check_cgroup_memory_available
from ._ring import ShmRingBuffer as ShmRingBuffer
from ._sockets import QueueSocket
from ._spin import SpinCondition as SpinCondition
from ._waiting import LOOK_EVERY, as_cancelled, go_on

logger = logging.getLogger("unisono.vllm")

VLLM_RINGBUFFER_WARNING_INTERVAL: float = float(os.environ.get("VLLM_RINGBUFFER_WARNING_INTERVAL", "60"))
"""How many seconds somebody is waited for before the log says so."""
SHM_READER_RECHECK_INTERVAL_MS = 5000
"""How long `ReadTimeoutWithWarnings` lets a wait go on at most. No wake-up is lost here; a look that often costs nothing."""
SHM_NOTIFY_POLL_INTERVAL_S = 2.0
"""Unused: messages are not accompanied by others that would have to be taken from a socket."""
SPINLOOP_EXT_ENABLED = False
"""The library looks for messages without the interpreter; no extension is needed for it."""
SPINLOOP_TIMEOUT_SECONDS = 0.1
SHM_PATH = "/dev/shm"
LONG_WAIT_TIME_LOG_MSG = (
    "No available shared memory broadcast block found in %d seconds. The other side is busy, stuck, or has nothing to say."
)

from_bytes_big = functools.partial(int.from_bytes, byteorder="big")

_READY_TIMEOUT = 1800.0


def to_bytes_big(value: int, size: int) -> bytes:
    """`value` as `size` bytes, the most significant first."""
    return value.to_bytes(size, "big")


_fence = threading.Lock()


def memory_fence() -> None:
    """Order what this thread did before against what it does after, as taking and giving up a lock does.

    The queue does not need it: the library orders what it shares by acquire and release.
    """
    with _fence:
        pass


def check_shm_free_space(
    required_bytes: int, shm_path: str = SHM_PATH, *, allocation_name: str = "shared-memory allocation"
) -> None:
    """Raise `RuntimeError` if `required_bytes` are more than are free at `shm_path`, or than may still be had at all."""
    if os.path.isdir(shm_path):
        free = shutil.disk_usage(shm_path).free
        if required_bytes > free:
            raise RuntimeError(
                f"Insufficient space in {shm_path} for {allocation_name}: {required_bytes >> 20} MiB are needed, "
                f"{free >> 20} MiB are free. Make it larger (--shm-size, --ipc=host) or ask for less."
            )
    check_cgroup_memory_available(required_bytes, allocation_name)


class MessageQueue:
    """One side of a queue of Python objects. See docs/vllm.md.

    The constructor makes the writer's side, for `n_reader` readers, of which `n_local_reader` are on this machine and have the
    ranks `local_reader_ranks` (0, 1, … if not given). A message of up to `max_chunk_bytes` is a chunk of the ring, a longer
    one has memory of its own; at most `max_chunks` are unread by anybody before `enqueue` waits. `connect_ip` is this machine's
    address for readers elsewhere. `enable_shm_tensor_arena` changes nothing: large tensors are laid into shared memory as
    it is.
    """

    n_local_reader: int
    n_remote_reader: int
    shutting_down: bool
    handle: Handle
    buffer: QueueRing | None
    local_reader_rank: int
    local_socket: QueueSocket | None
    remote_socket: QueueSocket | None
    tensor_arena: None

    def __init__(
        self,
        n_reader: int,
        n_local_reader: int,
        local_reader_ranks: list[int] | None = None,
        max_chunk_bytes: int = 1024 * 1024 * 24,
        max_chunks: int = 10,
        connect_ip: str | None = None,
        enable_shm_tensor_arena: bool = False,
    ) -> None:
        if local_reader_ranks is None:
            local_reader_ranks = list(range(n_local_reader))
        else:
            assert len(local_reader_ranks) == n_local_reader, "one rank for each reader on this machine"
        self._be(None, None)
        self.n_local_reader = n_local_reader
        self.n_remote_reader = n_reader - n_local_reader
        self._is_writer = True
        self._writer = _opening.writer(
            local_reader_ranks, self.n_remote_reader, max_chunk_bytes, max_chunks, connect_ip
        )
        self.handle = _opening.handle(self._writer, local_reader_ranks, max_chunk_bytes, max_chunks)
        self._chunk_bytes = max_chunk_bytes
        if self._writer is not None and n_local_reader > 0:
            self.buffer = QueueRing(self, *_opening.ring_of(self.handle), is_creator=True)
            self.local_socket = QueueSocket(self._writer, ends_side=False)
        if self._writer is not None and self.n_remote_reader > 0:
            self.remote_socket = QueueSocket(self._writer, ends_side=n_local_reader == 0)
        logger.debug("message queue: %s", self.handle)

    def _be(self, writer: QueueWriter | None, reader: QueueReader | None) -> None:
        """What both sides have."""
        _logging.start()
        self._writer, self._reader = writer, reader
        self._is_writer = self._is_local_reader = self._is_remote_reader = False
        self.n_local_reader = self.n_remote_reader = 0
        self.local_reader_rank = -1
        self.shutting_down = False
        self.buffer = self.local_socket = self.remote_socket = self.tensor_arena = None
        self._picklers: list[Pickler] = []
        self._chunk_bytes = 0

    def export_handle(self) -> Handle:
        """What readers open the queue with: `create_from_handle`, in their processes."""
        return self.handle

    @staticmethod
    def create_from_handle(handle: Handle, rank: int) -> MessageQueue:
        """The side of reader `rank`. A rank that is none of `local_reader_ranks`, such as -1, reads over the network."""
        self = MessageQueue.__new__(MessageQueue)
        reader = _opening.reader(handle, rank)
        self._be(None, reader)
        self.handle = handle
        if rank in handle.local_reader_ranks:
            self._is_local_reader = True
            self.local_reader_rank = handle.local_reader_ranks.index(rank)
            self.buffer = QueueRing(self, *_opening.ring_of(handle), is_creator=False)
            self.local_socket = QueueSocket(reader, ends_side=False)
        else:
            self._is_remote_reader = True
            self.remote_socket = QueueSocket(reader, ends_side=True)
        return self

    @property
    def current_idx(self) -> int:
        """The chunk that the next message will be, counted round from 0 to `max_chunks`; -1 where there is no ring."""
        if self.buffer is None:
            return -1
        return self._next_number() % self.buffer.max_chunks

    def _next_number(self) -> int:
        if self._writer is not None:
            return self._writer.messages
        return self._reader.next_number if self._reader is not None else 0

    def _held_index(self) -> int:
        """The chunk that `acquire_write` or `acquire_read` holds: a message that was received is the one before the next."""
        assert self.buffer is not None
        return (self._next_number() - (self._writer is None)) % self.buffer.max_chunks

    def _progress(self) -> tuple[int, list[int]]:
        """How many messages are written, and how many each reader on this machine has passed, as far as this side knows."""
        if self._writer is None:
            passed = [0] * len(self.handle.local_reader_ranks)
            passed[self.local_reader_rank] = self._next_number()
            return self._next_number(), passed
        written = self._writer.messages
        lags = {reader.rank: reader.lag_messages for reader in self._writer.readers()}
        return written, [written - lags.get(rank, written) for rank in self.handle.local_reader_ranks]

    def wait_until_ready(self, timeout: float | None = _READY_TIMEOUT) -> None:
        """Wait until every reader has come; all sides call it. A `TimeoutError` names those that are missing."""
        side = self._writer if self._writer is not None else self._reader
        if side is not None:
            with as_cancelled():
                side.wait_until_ready(timeout)

    def shutdown(self) -> None:
        """End every wait of this side, from any thread: it raises `RuntimeError("cancelled")`, now and from now on."""
        self.shutting_down = True
        side = self._writer if self._writer is not None else self._reader
        if side is not None:
            side.shut_down()

    @contextmanager
    def acquire_write(self, timeout: float | None = None) -> Iterator[memoryview]:
        """A whole chunk to be written in place, as a writable memoryview; sent at the end, unless an exception leaves it."""
        assert self._is_writer, "Only writers can acquire write"
        if self._writer is None:
            raise RuntimeError("acquire_write: the queue has no readers")
        slot = self._reserve(timeout)
        try:
            with slot.view() as view, self._holding(view):
                yield view
            slot.commit()
        finally:
            slot.discard()

    def _reserve(self, timeout: float | None) -> QueueSlot:
        writer = self._writer
        assert writer is not None
        slot: QueueSlot = self._patiently(functools.partial(writer.reserve, self._chunk_bytes), timeout, False, None)
        return slot

    @contextmanager
    def acquire_read(
        self, timeout: float | None = None, indefinite: Any = False, cancel: threading.Event | None = None
    ) -> Iterator[memoryview]:
        """The next message where it lies, as a read-only memoryview; its room goes back to the writer at the end."""
        assert self._is_local_reader, "Only readers can acquire read"
        message = self._receive(timeout, indefinite, cancel)
        try:
            with message.view() as view, self._holding(view):
                yield view
        finally:
            message.release()

    @contextmanager
    def _holding(self, view: memoryview) -> Iterator[None]:
        """Let the ring show the chunk meanwhile."""
        ring = self.buffer
        if ring is None:
            yield
            return
        with ring.holding(view):
            yield

    def enqueue(self, obj: Any, timeout: float | None = None) -> None:
        """Send `obj` to every reader. A `TimeoutError` names those that are too far behind; nothing was sent then."""
        assert self._is_writer, "Only writers can enqueue"
        picklers = self._picklers
        pickler = picklers.pop() if picklers else Pickler()
        pickled = pickler.pickle(obj, _reduce_tensor)
        writer = self._writer
        try:
            if writer is not None:
                writer.send_pickled(pickled, self._chunk_bytes, self._first(timeout, False))
        except (QueueTimeout, QueueShutDown) as problem:
            self._enqueue_later(pickled, timeout, problem)
        finally:
            pickled.clear()
        picklers.append(pickler)

    def _enqueue_later(
        self, pickled: Pickled, timeout: float | None, problem: QueueTimeout | QueueShutDown
    ) -> None:
        writer = self._writer
        assert writer is not None
        send = functools.partial(writer.send_pickled, pickled, self._chunk_bytes)
        self._go_on(send, problem, timeout, False, None)

    def dequeue(
        self, timeout: float | None = None, indefinite: Any = False, cancel: threading.Event | None = None
    ) -> Any:
        """The next object. This unpickles: what a message says is done.

        `timeout` in seconds, `None` for ever; 0 looks once. With `indefinite` the log says nothing of a long wait. `cancel`, also
        in the second place: an event that ends the wait with `RuntimeError("cancelled")`, as `shutdown` does.
        """
        reader = self._reader
        if reader is None:
            raise RuntimeError("Only readers can dequeue")
        if cancel is not None or indefinite.__class__ is not bool:
            received = self._patiently(reader.recv_pickled, timeout, indefinite, cancel)
        else:
            first = self._first(timeout, False) if not indefinite else timeout
            try:
                received = reader.recv_pickled(first)
            except (QueueTimeout, QueueShutDown) as problem:
                received = self._go_on(reader.recv_pickled, problem, timeout, indefinite, None)
        if received.__class__ is bytes:
            return pickle.loads(received, buffers=())
        return self._unpack(received, timeout)

    def _unpack(self, message: QueueMessage, timeout: float | None) -> Any:
        """The object of a message that is longer, where it lies."""
        try:
            is_overflow, main, buffers = message.parts()
            with main:
                socket = self.local_socket if self._is_local_reader else self.remote_socket
                if is_overflow and socket is not None:
                    # As if it had come over a socket: who watches `recv` sees it.
                    with socket.handing_over([main, *buffers]):
                        return MessageQueue.recv(socket, timeout)
                return pickle.loads(main, buffers=buffers)
        finally:
            message.release()

    @staticmethod
    def recv(socket: Any, timeout: float | None) -> Any:
        """The object of the next message at a socket: a queue's `local_socket` or `remote_socket`, or one of pyzmq's."""
        if not socket.poll(timeout=None if timeout is None else max(0, int(timeout * 1000))):
            raise TimeoutError(f"recv timed out after {timeout} s")
        main, *buffers = socket.recv_multipart(copy=False)
        return pickle.loads(main, buffers=buffers)

    def broadcast_object(self, obj: Any = None) -> Any:
        """The writer sends `obj` and gets it back; a reader gets what the writer sent."""
        if self._is_writer:
            self.enqueue(obj)
            return obj
        return self.dequeue()

    @staticmethod
    def create_from_process_group(
        pg: Any,
        max_chunk_bytes: int,
        max_chunks: int,
        writer_rank: int = 0,
        external_writer_handle: Handle | None = None,
        blocking: bool = True,
    ) -> MessageQueue:
        """A queue from rank `writer_rank` of the group to all others. A collective call; `pg` is a process group of torch's, or
        one of vLLM's `StatelessProcessGroup`.

        With `external_writer_handle` the queue is one whose writer is somebody else, and rank `writer_rank` reads, too.
        `blocking`: wait until all are ready.
        """
        queue = _groups.one_to_all(
            MessageQueue, pg, max_chunk_bytes, max_chunks, writer_rank, external_writer_handle
        )
        if blocking:
            queue.wait_until_ready()
        return queue

    @staticmethod
    def create_from_process_group_single_reader(
        pg: Any, max_chunk_bytes: int, max_chunks: int, reader_rank: int = 0, blocking: bool = False
    ) -> tuple[MessageQueue, list[Handle]]:
        """A queue from each rank of the group, itself included, to rank `reader_rank`. A collective call.

        Gives this rank's writer and, on `reader_rank`, the handles of all.
        """
        queue, handles = _groups.all_to_one(MessageQueue, pg, max_chunk_bytes, max_chunks, reader_rank)
        if blocking:
            queue.wait_until_ready()
        return queue, handles

    class ReadTimeoutWithWarnings:
        """How long a wait may go on, and when the log is to say that it does."""

        def __init__(self, timeout: float | None, should_warn: bool) -> None:
            self.started = time.monotonic()
            self.deadline = sys.maxsize if timeout is None else self.started + timeout
            self.warning_wait_time_ms = VLLM_RINGBUFFER_WARNING_INTERVAL * 1000 if should_warn else None
            self._should_warn = should_warn
            self.n_warning = 1
            self.timeout = timeout

        def timeout_ms(self) -> int:
            """For how long to wait next, in milliseconds; `TimeoutError` if the time is up."""
            wait = float(SHM_READER_RECHECK_INTERVAL_MS)
            if self.warning_wait_time_ms is not None:
                wait = min(wait, self.warning_wait_time_ms)
            if self.timeout is None:
                return int(wait)
            left = int((self.deadline - time.monotonic()) * 1000)
            if left <= 0:
                raise TimeoutError
            return int(min(wait, left))

        def should_warn(self) -> bool:
            """Whether the log is to say so now."""
            waited = time.monotonic() - self.started
            if not self._should_warn or waited < VLLM_RINGBUFFER_WARNING_INTERVAL * self.n_warning:
                return False
            self.n_warning += 1
            return True

    def _first(self, timeout: float | None, indefinite: bool) -> float | None:
        """How long to wait before anything is to be said."""
        if indefinite or (timeout is not None and timeout <= VLLM_RINGBUFFER_WARNING_INTERVAL):
            return timeout
        return VLLM_RINGBUFFER_WARNING_INTERVAL

    def _receive(self, timeout: float | None, indefinite: Any, cancel: threading.Event | None) -> QueueMessage:
        reader = self._reader
        assert reader is not None
        message: QueueMessage = self._patiently(reader.recv, timeout, indefinite, cancel)
        return message

    def _patiently(self, attempt: Any, timeout: float | None, indefinite: Any, cancel: Any) -> Any:
        """What `attempt(seconds)` gives, within `timeout`."""
        if hasattr(indefinite, "is_set"):  # As the second argument once was.
            cancel, indefinite = indefinite, False
        try:
            return attempt(LOOK_EVERY if cancel is not None else self._first(timeout, indefinite))
        except (QueueTimeout, QueueShutDown) as problem:
            return self._go_on(attempt, problem, timeout, bool(indefinite), cancel)

    def _go_on(
        self, attempt: Any, problem: QueueTimeout | QueueShutDown, timeout: float | None, indefinite: bool, cancel: Any
    ) -> Any:
        interval = None if indefinite else VLLM_RINGBUFFER_WARNING_INTERVAL
        return go_on(attempt, problem, timeout, interval, self._warn, cancel)

    def _warn(self, problem: QueueTimeout) -> None:
        """A writer that waits is in need of somebody; a reader may just have nothing to do."""
        level = logging.WARNING if self._is_writer else logging.INFO
        logger.log(level, LONG_WAIT_TIME_LOG_MSG + " %s", VLLM_RINGBUFFER_WARNING_INTERVAL, problem)
