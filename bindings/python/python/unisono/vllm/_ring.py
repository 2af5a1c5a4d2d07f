"""`ShmRingBuffer`: chunks and their flags in named shared memory; and the queue's own ring, shown in the same terms.

    ┌ chunk 0 │ chunk 1 │ … ┐┌ flags 0 │ flags 1 │ … ┐      chunks: max_chunks of max_chunk_bytes
    └───────────────────────┘└───────────────────────┘      flags:  max_chunks of 1 + n_reader bytes: written, read by each

`ShmRingBuffer` is memory and a layout, and no queue: whoever uses it writes and reads flags as vLLM's first queue did.
`MessageQueue` does not lay its messages out so.
"""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from .. import _core
from .._core import SharedMemory
from .._errors import Error

if TYPE_CHECKING:
    from .shm_broadcast import MessageQueue


def check_cgroup_memory_available(required_bytes: int, allocation_name: str) -> None:
    """Raise `unisono.OutOfMemory` if the machine or a cgroup has less left: above its limit the kernel kills."""
    _core.check_headroom(allocation_name, required_bytes)


class ShmRingBuffer:
    """Chunks and flags in named shared memory, for one writer and `n_reader` readers.

    Without a `name` the memory is made, zeroed; it goes when this object does, or, if its process is killed, by Python's resource
    tracker. With one, it is opened: what is missing or too small raises `unisono.Error`. Pickled, it is opened where it arrives.
    """

    n_reader: int
    metadata_size: int
    """Bytes of one chunk's flags: whether it is written, then for each reader whether it has read it."""
    max_chunk_bytes: int
    max_chunks: int
    total_bytes_of_buffer: int
    data_offset: int
    metadata_offset: int
    is_creator: bool
    shared_memory: Any

    def __init__(self, n_reader: int, max_chunk_bytes: int, max_chunks: int, name: str | None = None) -> None:
        self._measure(n_reader, max_chunk_bytes, max_chunks)
        self.is_creator = name is None
        self._process = os.getpid()
        if name is None:
            from . import shm_broadcast

            shm_broadcast.check_shm_free_space(self.total_bytes_of_buffer)
            name = f"unisono-ring-{os.getpid()}-{secrets.token_hex(8)}"
            self.shared_memory = SharedMemory(name, self.total_bytes_of_buffer)
            resource_tracker.register("/" + name, "shared_memory")
            weakref.finalize(self, _remove, self.shared_memory, os.getpid())
        else:
            self.shared_memory = SharedMemory(name)
            if self.shared_memory.size < self.total_bytes_of_buffer:
                raise _core_error(name, self.shared_memory.size, self.total_bytes_of_buffer)

    def _measure(self, n_reader: int, max_chunk_bytes: int, max_chunks: int) -> None:
        self.n_reader = n_reader
        self.metadata_size = 1 + n_reader
        self.max_chunk_bytes = max_chunk_bytes
        self.max_chunks = max_chunks
        self.total_bytes_of_buffer = (max_chunk_bytes + self.metadata_size) * max_chunks
        self.data_offset = 0
        self.metadata_offset = max_chunk_bytes * max_chunks

    def handle(self) -> tuple[int, int, int, str]:
        """The arguments with which another process opens it."""
        return (self.n_reader, self.max_chunk_bytes, self.max_chunks, self.shared_memory.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.__class__, self.handle())

    @contextmanager
    def get_data(self, current_idx: int) -> Iterator[memoryview]:
        """The bytes of a chunk."""
        with self._part(self.data_offset, current_idx, self.max_chunk_bytes) as part:
            yield part

    @contextmanager
    def get_metadata(self, current_idx: int) -> Iterator[memoryview]:
        """The flags of a chunk."""
        with self._part(self.metadata_offset, current_idx, self.metadata_size) as part:
            yield part

    @contextmanager
    def _part(self, offset: int, index: int, size: int) -> Iterator[memoryview]:
        if not 0 <= index < self.max_chunks:
            raise IndexError(f"chunk {index} of {self.max_chunks}")
        start = offset + index * size
        if self._process != os.getpid():
            # A forked child does not have the memory mapped, and knows its name.
            self.shared_memory = SharedMemory(self.shared_memory.name)
            self._process = os.getpid()
        with self.shared_memory.buf as all_of_it, all_of_it[start : start + size] as part:
            yield part


def _core_error(name: str, found: int, needed: int) -> Exception:
    return Error(f"shared memory {name}: {needed} bytes are needed, it has {found}: it is of another ring")


def _remove(memory: SharedMemory, creator: int) -> None:
    """A forked child has the object, too, and leaves the name alone."""
    if os.getpid() == creator:
        with suppress(Error):  # Somebody has removed it already.
            memory.unlink()
        resource_tracker.unregister("/" + memory.name, "shared_memory")


class QueueRing(ShmRingBuffer):
    """The ring of a `MessageQueue`, in the terms of chunks: message n is chunk n modulo `max_chunks`.

    It is a view: the queue's memory is anonymous and laid out otherwise. Flags are what this side of the queue knows at the moment;
    a chunk's bytes can be had while `acquire_write` or `acquire_read` holds it.
    """

    def __init__(
        self, queue: MessageQueue, n_reader: int, max_chunk_bytes: int, max_chunks: int, name: str, *, is_creator: bool
    ) -> None:
        self._measure(n_reader, max_chunk_bytes, max_chunks)
        self.is_creator = is_creator
        self._queue = weakref.ref(queue)
        self._name = name
        self._held: tuple[int, memoryview] | None = None

    @property
    def shared_memory(self) -> Any:
        raise AttributeError("the queue's ring is anonymous memory, which has no name to open it by")

    def handle(self) -> tuple[int, int, int, str]:
        return (self.n_reader, self.max_chunk_bytes, self.max_chunks, self._name)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("the ring of a queue cannot be pickled: pickle the queue's handle (export_handle)")

    @contextmanager
    def holding(self, view: memoryview) -> Iterator[None]:
        """Show `view` as the chunk that is held."""
        queue = self._queue()
        index = -1 if queue is None else queue._held_index()
        self._held = (index, view)
        try:
            yield
        finally:
            self._held = None

    @contextmanager
    def _part(self, offset: int, index: int, size: int) -> Iterator[memoryview]:
        if not 0 <= index < self.max_chunks:
            raise IndexError(f"chunk {index} of {self.max_chunks}")
        if offset == self.metadata_offset:
            yield memoryview(self._flags(index))
        elif self._held is not None and self._held[0] == index:
            yield self._held[1]
        else:
            raise RuntimeError(f"chunk {index} is not held: its bytes can be had inside acquire_write or acquire_read")

    def _flags(self, index: int) -> bytes:
        queue = self._queue()
        if queue is None:
            return bytes(self.metadata_size)
        written, passed = queue._progress()
        # The last message that was this chunk.
        number = written - 1 - (written - 1 - index) % self.max_chunks
        if number < 0:
            return bytes(self.metadata_size)
        return bytes([1, *(int(number < count) for count in passed)])
