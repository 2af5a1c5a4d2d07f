"""How the ranks of a group of torch's meet: through torch's store, on each node over shared memory, and between nodes over Gloo."""

from __future__ import annotations

import time
from datetime import timedelta

from torch._C import _distributed_c10d as _c10d

from .. import Communicator, Error, init
from ._between import Between
from ._nodes import Nodes
from ._places import Map, Place

_LONGEST_NAP = 0.05


def connect(store: _c10d.Store, rank: int, world_size: int, timeout: timedelta) -> Communicator | Nodes:
    """A communicator of ranks that share a store of torch's; if they are on several nodes, one that spans these.

    The same ranks may meet on one store again: each counts how often it has been there.
    """
    seconds = timeout.total_seconds()
    deadline = time.monotonic() + seconds
    times = store.add(f"unisono/{rank}/times", 1)

    def said_by(other: int, what: str) -> bytes:
        key = f"unisono/{other}/{times}{what}"
        nap = 0.001
        # While torch waits it lets no signal's handler run.
        while not store.check([key]):
            if time.monotonic() >= deadline:
                raise Error(f"rank {other} did not come within {seconds} s")
            time.sleep(nap)
            nap = min(2 * nap, _LONGEST_NAP)
        return store.get(key)

    def say(mine: bytes, what: str = "") -> None:
        store.set(f"unisono/{rank}/{times}{what}", mine)  # type: ignore[arg-type]  # any bytes may be stored

    say(Place.here().pack(), "/place")
    where = Map([Place.unpack(said_by(other, "/place")) for other in range(world_size)])
    node = where.nodes[where.node_of[rank]]

    def exchange(mine: bytes) -> list[bytes]:
        say(mine)
        return [said_by(other, "") for other in node]

    comm = init(
        rank=node.index(rank),
        world_size=len(node),
        exchange=exchange,
        timeout=seconds,
        rendezvous_timeout=seconds,
    )
    if len(where.nodes) == 1:
        return comm
    between = Between(_c10d.PrefixStore(f"unisono/{times}/gloo", store), rank, where)
    return Nodes(comm, between, where, seconds)


__all__ = ["connect"]
