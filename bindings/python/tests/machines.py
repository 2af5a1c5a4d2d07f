"""Machines for tests: network namespaces that reach one another, and ranks of a group of torch's on them.

A rank is a forked process that enters its machine's namespace, and a mount namespace with a /dev/shm of its own: so ranks of
different machines can meet in no way but over the network. That needs root; a test that cannot have it fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import unisono.torch  # noqa: F401  # before they are forked

PATIENCE = timedelta(seconds=30)
_NEEDS = "which needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and iproute2, and of the kernel veth and bridge"
_NEWNS, _NEWNET, _MS_REC, _MS_PRIVATE = 0x20000, 0x40000000, 16384, 1 << 18
_PORT = 29500
_made = 0

_libc = ctypes.CDLL(None, use_errno=True)


def _ip(words: str) -> None:
    try:
        done = subprocess.run(["ip", *words.split()], capture_output=True, text=True)
    except OSError as problem:
        raise AssertionError(f"ip {words}: {problem}, {_NEEDS}") from problem
    assert done.returncode == 0, f"ip {words}, {_NEEDS}: {done.stderr}"


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        problem = os.strerror(ctypes.get_errno())
        raise AssertionError(f"{name}{arguments}, {_NEEDS}: {problem}")


class Machines:
    """So many network namespaces on one bridge."""

    def __init__(self, count: int, one_memory: bool = False) -> None:
        global _made
        _made += 1
        # Whether the machines' processes see one /dev/shm all the same, as those of containers may.
        self._one_memory = one_memory
        self.name = f"unisono{os.getpid()}-{_made}p"
        self.count = count
        self._hub = f"{self.name}-hub"
        _sweep()
        _ip(f"netns add {self._hub}")
        _ip(f"-n {self._hub} link add bridge type bridge")
        _ip(f"-n {self._hub} link set bridge up")
        for machine in range(count):
            here = self.namespace(machine)
            _ip(f"netns add {here}")
            _ip(f"-n {self._hub} link add port{machine} type veth peer name eth0 netns {here}")
            _ip(f"-n {self._hub} link set port{machine} master bridge up")
            _ip(f"-n {here} link set lo up")
            _ip(f"-n {here} link set eth0 up")
            _ip(f"-n {here} addr add {self.address(machine)}/24 dev eth0")

    def namespace(self, machine: int) -> str:
        return f"{self.name}-{machine}"

    def address(self, machine: int) -> str:
        return f"10.78.0.{machine + 1}"

    def cut_off(self, machine: int) -> None:
        """Nothing passes any more, and nobody is told."""
        _ip(f"-n {self._hub} link set port{machine} down")

    def enter(self, machine: int) -> None:
        """Move this process to a machine."""
        with open(f"/run/netns/{self.namespace(machine)}") as namespace:
            _call("setns", namespace.fileno(), _NEWNET)
        if self._one_memory:
            return
        _call("unshare", _NEWNS)
        _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        memory = f"/tmp/{self.namespace(machine)}"
        _call("mount", memory.encode(), b"/dev/shm", None, 4096, None)  # bind

    def remove(self) -> None:
        for end in [*(str(machine) for machine in range(self.count)), "hub"]:
            subprocess.run(["ip", "netns", "del", f"{self.name}-{end}"], capture_output=True)


def _sweep() -> None:
    """Take away what tests left that were killed."""
    for file in Path("/run/netns").glob("unisono*p-*") if Path("/run/netns").exists() else []:
        process = file.name.removeprefix("unisono").split("-")[0]
        if process.isdigit() and not Path(f"/proc/{process}").exists():
            subprocess.run(["ip", "netns", "del", file.name], capture_output=True)


class Ranks:
    """Ranks on machines: `layout[rank]` is the machine of a rank. Each runs `work(rank, world)`."""

    def __init__(
        self,
        machines: Machines,
        layout: list[int],
        work: Callable[[int, int], Any],
        timeout: timedelta = PATIENCE,
        setting: dict[str, str] | None = None,
    ) -> None:
        context = mp.get_context("fork")
        self.pipes: list[Any] = []
        self.processes: list[Any] = []
        for rank in range(len(layout)):
            ours, theirs = context.Pipe()
            arguments = (machines, layout, rank, work, theirs, timeout, setting or {})
            self.processes.append(context.Process(target=_rank, args=arguments))
            self.processes[-1].start()
            theirs.close()
            self.pipes.append(ours)

    def result(self, rank: int, patience: float = 90) -> Any:
        assert self.pipes[rank].poll(patience), f"rank {rank} says nothing"
        kind, value = self.pipes[rank].recv()
        assert kind == "returned", f"rank {rank} raised:\n{value}"
        return value

    def results(self) -> list[Any]:
        return [self.result(rank) for rank in range(len(self.processes))]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join(10)


def _rank(
    machines: Machines,
    layout: list[int],
    rank: int,
    work: Callable[[int, int], Any],
    pipe: Any,
    timeout: timedelta,
    setting: dict[str, str],
) -> None:
    try:
        torch.set_num_threads(1)
        os.environ.update(setting)
        machines.enter(layout[rank])
        address = machines.address(layout[0])
        dist.init_process_group(
            "unisono",
            init_method=f"tcp://{address}:{_PORT}",
            rank=rank,
            world_size=len(layout),
            timeout=timeout,
        )
        pipe.send(("returned", work(rank, len(layout))))
        if dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
    except BaseException:
        pipe.send(("raised", traceback.format_exc()))
        os._exit(1)


@contextlib.contextmanager
def machines(count: int, one_memory: bool = False) -> Iterator[Machines]:
    made = Machines(count, one_memory)
    folders = [Path(f"/tmp/{made.namespace(machine)}") for machine in range(count)]
    try:
        for folder in folders:
            folder.mkdir()
        yield made
    finally:
        made.remove()
        for folder in folders:
            folder.rmdir()


def run(
    layout: list[int], work: Callable[[int, int], Any], one_memory: bool = False, **options: Any
) -> list[Any]:
    """What `work(rank, world)` returns on each rank, of a group on as many machines as the layout names."""
    with machines(max(layout) + 1, one_memory) as made:
        ranks = Ranks(made, layout, work, **options)
        try:
            results = ranks.results()
            for process in ranks.processes:
                process.join(30)
                assert process.exitcode == 0
            return results
        finally:
            ranks.end()


__all__ = ["Machines", "Ranks", "machines", "run"]
