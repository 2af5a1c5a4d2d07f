"""Making and opening the two sides of a queue: how the names of vLLM's queue are those of the library's."""

from __future__ import annotations

import ipaddress
import os
import random
import socket
import sys
from typing import Any

from .._core import QueueReader, QueueWriter
from .._queue_errors import QueueElsewhere, QueueError, QueueMeeting, QueueRankTaken
from ._handle import BufferHandle, Handle

# More does not stay in the caches: with 16 MiB a message of 1 MiB took a third longer, where the cores share none. What is longer than
# a quarter of it has memory of its own, which the next such message has again.
_MOST_RING_BYTES = 4 << 20
_LEAST_RING_BYTES = 64 << 10


def writer(
    local_ranks: list[int], remote: int, chunk_bytes: int, chunks: int, connect_ip: str | None
) -> QueueWriter | None:
    """The writer; `None` for a queue without readers, which needs no memory."""
    if not local_ranks and remote <= 0:
        return None
    remote_ranks = _seats(local_ranks, remote)
    ip = _ip(connect_ip or os.environ.get("VLLM_HOST_IP")) if remote_ranks else None
    # Four chunks, so that one of this length is written into the ring; beyond that they have memory of their own.
    ring = min(max(4 * chunk_bytes, _LEAST_RING_BYTES), _MOST_RING_BYTES)
    try:
        return QueueWriter(
            local_ranks,
            remote_ranks=remote_ranks,
            ring_bytes=ring,
            max_chunks=chunks,
            connect_ip=ip,
        )
    except QueueElsewhere as problem:
        raise _as_zmq_error(problem) from None


def _seats(local_ranks: list[int], remote: int) -> list[int]:
    """Ranks for the readers elsewhere: the lowest that are free, as ranks of a group are dealt out."""
    seats: list[int] = []
    rank = 0
    while len(seats) < remote:
        if rank not in local_ranks:
            seats.append(rank)
        rank += 1
    return seats


def _ip(host: str | None) -> str | None:
    if host is None:
        return None
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])


def _as_zmq_error(problem: QueueElsewhere) -> QueueError:
    """Who has pyzmq loaded may look out for its error where an address cannot be bound."""
    zmq = sys.modules.get("zmq")
    if zmq is None:
        return problem
    both: Any = type("QueueElsewhere", (QueueElsewhere, zmq.ZMQError), {"__init__": QueueError.__init__})
    raised: QueueError = both(str(problem), problem=problem.problem, strerror=str(problem), errno=None)
    return raised


def handle(side: QueueWriter | None, local_ranks: list[int], chunk_bytes: int, chunks: int) -> Handle:
    """What readers open the queue with."""
    if side is None:
        return Handle(local_ranks)
    queue = side.handle
    here = f"ipc://@unisono-queue/{queue.nonce.hex()}" if local_ranks else None
    there, is_ipv6 = None, False
    if queue.remote_address is not None:
        ip, port = queue.remote_address
        is_ipv6 = ":" in ip
        there = f"tcp://[{ip}]:{port}" if is_ipv6 else f"tcp://{ip}:{port}"
    return Handle(
        local_reader_ranks=local_ranks,
        buffer_handle=(len(local_ranks), chunk_bytes, chunks, queue.nonce.hex()) if local_ranks else None,
        local_subscribe_addr=here,
        local_notify_addr=here,
        remote_subscribe_addr=there,
        remote_addr_ipv6=is_ipv6,
        queue=queue,
    )


def ring_of(handle: Handle) -> BufferHandle:
    """What the ring of a handle with readers on this machine is described by."""
    if handle.buffer_handle is None:
        raise QueueError("the handle has readers on this machine and no buffer_handle")
    return handle.buffer_handle


def reader(handle: Handle, rank: int) -> QueueReader:
    """The reader `rank`; one that is none of this machine's takes a seat among those elsewhere."""
    if handle.queue is None:
        raise QueueError("the handle is of no queue of this library's: it was made without readers, or by another one")
    if rank in handle.local_reader_ranks:
        return QueueReader(handle.queue, rank)
    seats = handle.queue.remote_ranks
    if not seats:
        raise QueueError(
            f"rank {rank} is none of the readers on this machine, {handle.local_reader_ranks}, and none are elsewhere"
        )
    return _take_seat(handle, seats, rank)


def _take_seat(handle: Handle, seats: list[int], rank: int) -> QueueReader:
    """Elsewhere a rank does not matter. Ranks of a group begin at different seats, so that they need not ask twice."""
    assert handle.queue is not None
    order = random.sample(seats, len(seats))
    if rank >= 0:
        before = sum(other not in handle.local_reader_ranks for other in range(rank))
        own = seats[before % len(seats)]
        order.remove(own)
        order.insert(0, own)
    taken: QueueRankTaken | None = None
    for seat in order:
        try:
            return QueueReader(handle.queue, seat)
        except QueueRankTaken as problem:
            taken = problem
    assert taken is not None
    raise QueueMeeting(
        f"all {len(seats)} readers elsewhere have come already: {taken}", queue=handle.queue.name, problem=str(taken)
    ) from taken
