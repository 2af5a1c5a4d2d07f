"""A queue from one writer to many readers, in memory that they share: every reader gets every message, in order, in place.

    writer = queue.Writer([0, 1])                      # readers of ranks 0 and 1
    handle = writer.handle                             # picklable: give it to the readers' processes
    writer.send(b"hello")

    reader = queue.Reader(handle, rank=0)
    with memoryview(message := reader.recv()) as view:
        ...
    message.release()                                  # its room goes back to the writer

Messages are bytes. `unisono.vllm.MessageQueue` is a queue of Python objects over this. Nothing here ever unpickles.
Neither side survives fork, nor may a view of a message or slot be touched in a forked child.
"""

from __future__ import annotations

from ._core import QueueHandle as Handle
from ._core import QueueMessage as Message
from ._core import QueueReader as Reader
from ._core import QueueSlot as Slot
from ._core import QueueWriter as Writer
from ._queue_errors import (
    QueueBusy,
    QueueCancelled,
    QueueClosed,
    QueueElsewhere,
    QueueError,
    QueueForked,
    QueueHandleError,
    QueueHeld,
    QueueInvalidArgument,
    QueueLinkLost,
    QueueLost,
    QueueMalformed,
    QueueMeeting,
    QueuePeerBroken,
    QueuePeerDied,
    QueuePeerLeft,
    QueueRankTaken,
    QueueShutDown,
    QueueTimeout,
    QueueUndelivered,
    QueueUnknownRank,
    ReaderStatus,
    WriterStatus,
)

__all__ = [
    "Handle",
    "Message",
    "QueueBusy",
    "QueueCancelled",
    "QueueClosed",
    "QueueElsewhere",
    "QueueError",
    "QueueForked",
    "QueueHandleError",
    "QueueHeld",
    "QueueInvalidArgument",
    "QueueLinkLost",
    "QueueLost",
    "QueueMalformed",
    "QueueMeeting",
    "QueuePeerBroken",
    "QueuePeerDied",
    "QueuePeerLeft",
    "QueueRankTaken",
    "QueueShutDown",
    "QueueTimeout",
    "QueueUndelivered",
    "QueueUnknownRank",
    "Reader",
    "ReaderStatus",
    "Slot",
    "Writer",
    "WriterStatus",
]
