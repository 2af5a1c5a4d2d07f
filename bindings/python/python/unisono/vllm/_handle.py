"""What a reader finds its queue with: small, picklable, without memory or descriptors in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._core import QueueHandle

BufferHandle = tuple[int, int, int, str]

# The fields in the order of vLLM 0.33, and in the order that they had first.
_ORDER = (
    "local_reader_ranks",
    "buffer_handle",
    "local_subscribe_addr",
    "local_notify_addr",
    "remote_subscribe_addr",
    "remote_addr_ipv6",
    "tensor_arena_handle",
    "queue",
)
_FIRST_ORDER = (
    "local_reader_ranks",
    "buffer_handle",
    "local_subscribe_addr",
    "remote_subscribe_addr",
    "remote_addr_ipv6",
)


@dataclass(init=False)
class Handle:
    """A queue's handle. It travels pickled, by any means; with readers elsewhere it carries their key: keep it from others.

    Arguments may stand in either of two orders: that of vLLM 0.33, or that of before there was a `local_notify_addr`.
    """

    local_reader_ranks: list[int] = field(default_factory=list)
    buffer_handle: BufferHandle | None = None
    """How many readers, bytes of a chunk, chunks, and the queue's name."""
    local_subscribe_addr: str | None = None
    """Where the writer listens on this machine, if it has readers here."""
    local_notify_addr: str | None = None
    """The same: messages and wake-ups need no address of their own."""
    remote_subscribe_addr: str | None = None
    """Where readers elsewhere find the writer, if there are to be any."""
    remote_addr_ipv6: bool = False
    tensor_arena_handle: BufferHandle | None = None
    """Always `None`: large tensors have memory that all readers map without it."""
    queue: QueueHandle | None = field(default=None, repr=False)
    """What the library's readers open the queue with."""

    def __init__(self, *positional: Any, **named: Any) -> None:
        if len(positional) > len(_ORDER):
            raise TypeError(f"Handle takes {len(_ORDER)} arguments, {len(positional)} were given")
        given = dict(zip(_order_of(positional), positional, strict=False))
        for name, value in named.items():
            if name in given or name not in _ORDER:
                problem = "was given twice" if name in given else "is no field of a handle"
                raise TypeError(f"Handle: {name} {problem}")
            given[name] = value
        ranks = given.get("local_reader_ranks")
        self.local_reader_ranks = [] if ranks is None else ranks
        self.buffer_handle = given.get("buffer_handle")
        self.local_subscribe_addr = given.get("local_subscribe_addr")
        self.local_notify_addr = given.get("local_notify_addr")
        self.remote_subscribe_addr = given.get("remote_subscribe_addr")
        self.remote_addr_ipv6 = given.get("remote_addr_ipv6", False)
        self.tensor_arena_handle = given.get("tensor_arena_handle")
        self.queue = given.get("queue")


def _order_of(positional: tuple[Any, ...]) -> tuple[str, ...]:
    """The order that was meant: the fifth is a flag in the one and an address in the other, which begins with its protocol."""
    if len(positional) == 5 and isinstance(positional[4], bool):
        return _FIRST_ORDER
    if len(positional) == 4 and isinstance(positional[3], str) and positional[3].startswith("tcp://"):
        return _FIRST_ORDER
    return _ORDER
