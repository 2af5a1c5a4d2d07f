"""Queues between the ranks of a group, torch's or vLLM's `StatelessProcessGroup`: who shares a machine, and who gets which handle."""

from __future__ import annotations

import os
import secrets
import socket
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from .._queue_errors import QueueError
from ._handle import Handle

if TYPE_CHECKING:
    from .shm_broadcast import MessageQueue


class Group:
    """The ranks of a group and what they can tell one another."""

    def __init__(self, group: Any) -> None:
        self._group = group
        # A StatelessProcessGroup says its rank itself, and torch's does not say it in the same way everywhere.
        self._is_stateless = hasattr(group, "broadcast_obj") and hasattr(group, "all_gather_obj")
        if self._is_stateless:
            self.rank: int = group.rank
            self.size: int = group.world_size
        else:
            import torch.distributed as dist

            self.rank = dist.get_rank(group)
            self.size = dist.get_world_size(group)

    def broadcast(self, value: Any, source: int) -> Any:
        """What rank `source` of the group passed."""
        if self._is_stateless:
            return self._group.broadcast_obj(value, source)
        import torch.distributed as dist

        box = [value]
        ranks = dist.get_process_group_ranks(self._group)
        dist.broadcast_object_list(box, src=ranks[source], group=self._group)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """What every rank passed, in rank order."""
        if self._is_stateless:
            return list(self._group.all_gather_obj(value))
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values


def same_node(group: Group, source: int) -> list[bool]:
    """For each rank whether it can share memory with rank `source`. A collective call.

    It is tried out: the source listens where a queue's writer would, and who reaches it, and is of the same user, can.
    """
    if group.rank != source:
        addresses = group.broadcast(None, source)
        return [bool(found) for found in group.all_gather(any(_reaches(address) for address in addresses))]
    name = f"unisono-same-node-{secrets.token_hex(16)}"
    wanted = ["\0" + name]
    if directory := os.environ.get("UNISONO_DIR"):
        wanted.append(os.path.join(directory, name))
    doors, addresses = [], []
    try:
        for address in wanted:
            try:
                door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                doors.append(door)
                door.bind(address)
                # Whoever connects waits in this line, and is answered by being able to.
                door.listen(group.size)
            except OSError:
                # Such as a path that is too long for a socket. The others wait to be told what there is, if anything.
                continue
            addresses.append(address)
        group.broadcast(addresses, source)
        return [bool(found) for found in group.all_gather(True)]
    finally:
        for door in doors:
            door.close()
        for address in addresses:
            if not address.startswith("\0") and os.path.exists(address):
                os.unlink(address)


def _reaches(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
        try:
            there.connect(address)
            credentials = there.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return False
    uid: int = struct.unpack("3i", credentials)[1]
    return uid == os.getuid()


def one_to_all(
    kind: type[MessageQueue],
    pg: Any,
    chunk_bytes: int,
    chunks: int,
    writer_rank: int,
    external: Handle | None,
) -> MessageQueue:
    """This rank's side of a queue from `writer_rank` to all others, or, of an `external` writer, to all."""
    group = Group(pg)
    status = same_node(group, writer_rank)
    if group.rank != writer_rank:
        handle = _made(writer_rank, group.broadcast(None, writer_rank))
        return kind.create_from_handle(handle, group.rank)
    try:
        if external is not None:
            queue = kind.create_from_handle(external, group.rank)
        else:
            near = [rank for rank, is_near in enumerate(status) if is_near and rank != writer_rank]
            queue = kind(
                n_reader=group.size - 1,
                n_local_reader=len(near),
                local_reader_ranks=near,
                max_chunk_bytes=chunk_bytes,
                max_chunks=chunks,
            )
    except Exception as problem:
        # The others wait for a handle.
        group.broadcast(_Problem.of(problem), writer_rank)
        raise
    group.broadcast(queue.export_handle(), writer_rank)
    return queue


class _Problem(NamedTuple):
    """What a rank says in place of the handle of a queue that it could not make."""

    text: str

    @classmethod
    def of(cls, problem: Exception) -> _Problem:
        return cls(f"{type(problem).__name__}: {problem}")


def _made(rank: int, outcome: Handle | _Problem) -> Handle:
    if isinstance(outcome, _Problem):
        raise QueueError(f"rank {rank} of the group could not make its side of the queue: {outcome.text}")
    return outcome


def all_to_one(
    kind: type[MessageQueue], pg: Any, chunk_bytes: int, chunks: int, reader_rank: int
) -> tuple[MessageQueue, list[Handle]]:
    """This rank's writer to `reader_rank`, which is a rank of the world, and there the handles of all."""
    import torch.distributed as dist

    group = Group(pg)
    world: Any = dist.group.WORLD
    reader = dist.get_group_rank(pg if pg is not None else world, reader_rank)
    is_near = same_node(group, reader)[group.rank]
    try:
        queue = kind(
            n_reader=1,
            n_local_reader=1 if is_near else 0,
            max_chunk_bytes=chunk_bytes,
            max_chunks=chunks,
        )
    except Exception as problem:
        # The others wait for this rank's handle, or for the reader, which does not come without it.
        group.all_gather(_Problem.of(problem))
        raise
    handles = [_made(rank, outcome) for rank, outcome in enumerate(group.all_gather(queue.export_handle()))]
    return queue, handles if group.rank == reader else []
