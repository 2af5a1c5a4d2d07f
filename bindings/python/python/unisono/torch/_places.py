"""Which ranks are on which node, and how data is cut up among them.

A node is a set of ranks that can meet over shared memory. Two ranks can if they are under one running kernel, of one user, and
share a network namespace or the directory that socket files are made in: what unisono's rendezvous needs. Each says these as its
`Place`, all see those of all, and so all come to the same nodes. `UNISONO_NODE` in a rank's environment overrules this: ranks
that name the same node are on it, and are on no node with others.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import Error

_SOCKETS = "/dev/shm"


@dataclass(frozen=True)
class Place:
    """Where a rank's process runs."""

    pid: int
    kernel: str
    user: str
    network: str
    directory: str
    named: str | None = None

    @staticmethod
    def here() -> Place:
        return Place(
            pid=os.getpid(),
            kernel=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            user=f"{os.getuid()} in {_namespace('user')}",
            network=_namespace("net"),
            directory=_identity(os.environ.get("UNISONO_DIR", _SOCKETS)),
            named=os.environ.get("UNISONO_NODE"),
        )

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def unpack(said: bytes) -> Place:
        try:
            return Place(**json.loads(said))
        except (TypeError, ValueError) as problem:
            raise Error(f"a rank says of its place what makes no sense: {said[:200]!r}") from problem

    def can_meet(self, other: Place) -> bool:
        if self.named is not None or other.named is not None:
            return self.named == other.named
        if (self.kernel, self.user) != (other.kernel, other.user):
            return False
        return self.network == other.network or (self.directory == other.directory != "")


def _namespace(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")


def _identity(directory: str) -> str:
    """The same for all processes of a machine that see the same directory, under whatever name."""
    try:
        found = os.stat(directory)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


class Map:
    """The nodes of a group, in the order of their first ranks, each with its ranks in order."""

    def __init__(self, places: list[Place]) -> None:
        self.places = places
        self.nodes: list[list[int]] = []
        for rank, place in enumerate(places):
            for node in self.nodes:
                # With whoever it can meet; whether those can all meet follows, but for what `UNISONO_DIR` sets apart.
                if all(place.can_meet(places[other]) for other in node):
                    node.append(rank)
                    break
            else:
                self.nodes.append([rank])
        self.node_of = {rank: number for number, node in enumerate(self.nodes) for rank in node}

    def describe(self, rank: int) -> str:
        return f"rank {rank} (pid {self.places[rank].pid}, node {self.node_of[rank]})"


def cuts(count: int, parts: int) -> list[int]:
    """Where `count` elements are cut into parts that differ by one at most."""
    return [count * part // parts for part in range(parts + 1)]


def lengths(bounds: list[int]) -> list[int]:
    return [end - start for start, end in zip(bounds, bounds[1:])]


def shared(start: int, end: int, bounds: list[int]) -> list[tuple[int, int, int]]:
    """Which part holds what of the elements from `start` to `end`: the part's number, and from where to where."""
    held = []
    for part, (first, last) in enumerate(zip(bounds, bounds[1:])):
        first, last = max(first, start), min(last, end)
        if first < last:
            held.append((part, first, last))
    return held


def offsets(counts: list[int]) -> list[int]:
    """Where each of several blocks begins that lie one after the other, and where the last one ends."""
    sums = [0]
    for count in counts:
        sums.append(sums[-1] + count)
    return sums


__all__ = ["Map", "Place", "cuts", "lengths", "offsets", "shared"]
