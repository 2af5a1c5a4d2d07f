"""How the ranks of a group of vLLM's meet: all of them, or none.

They have a group of torch's (Gloo) already. Everything they tell one another goes over it in rounds in which each rank has one
word: bytes of the library's rendezvous, that it is done, or what its problem is. A rank that hears of a problem, its own or
another's, is in the same round as all others, and all of them stop there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from .. import Communicator, Error, init
from ._plugin import log

# Ranks that have come this far are alive, and start together.
_PATIENCE = 60.0


class _Word(NamedTuple):
    """What a rank says in a round."""

    kind: str
    machine: bytes
    payload: Any = None


class _Stopped(Error):
    """A rank has a problem, and all have heard of it."""


def meet(group: Any, name: str) -> Communicator | None:
    """A communicator of the ranks of `group`; `None` on all of them if one of them cannot, which rank 0 says in the log."""
    size, rank = group.size(), group.rank()
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        machine = b"rank %d" % rank

    def round_of(kind: str, payload: Any = None) -> list[Any]:
        words: list[Any] = [None] * size
        dist.all_gather_object(words, _Word(kind, machine, payload), group=group)
        for other, word in enumerate(words):
            if word.kind == "problem":
                raise _Stopped(f"rank {other}: {word.payload}")
        away = [other for other, word in enumerate(words) if word.machine != words[0].machine]
        if away:
            raise _Stopped(f"ranks {away} are not on the machine of rank 0")
        if {word.kind for word in words} != {kind}:
            raise _Stopped("ranks are not at the same step of their meeting")
        return [word.payload for word in words]

    def exchange(mine: bytes) -> list[bytes]:
        return round_of("bytes", mine)

    try:
        comm = init(rank=rank, world_size=size, exchange=exchange, rendezvous_timeout=_PATIENCE)
        round_of("done")
    except Exception as problem:
        reason = str(problem)
        if not isinstance(problem, _Stopped):
            # The others hear of it, and so does this rank: all say the same.
            try:
                round_of("problem", f"{type(problem).__name__}: {problem}")
            except Exception as heard:
                reason = str(heard)
        if rank == 0:
            log.warning("unisono: group %s uses vLLM's own collectives, because %s", name, reason)
        return None
    if rank == 0:
        log.info("unisono: the collectives of group %s are its own, %d ranks", name, size)
    return comm
