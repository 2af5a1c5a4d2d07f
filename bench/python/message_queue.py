"""One way through `unisono.vllm.MessageQueue`, beside vLLM's own class, from its source archive.

    cargo build --release -p unisono-bench --bin round_trip
    cargo xtask test --python                          # fetches vLLM's source and what it needs to be imported
    python bench/python/message_queue.py --vllm target/xtask/vllm-0.33.0-python --packages target/xtask/vllm-0.33.0-packages \\
        --probe target/release/round_trip --json result.json

Two processes, each pinned to a core, send objects back and forth through two queues of each class; one way is half of a round
trip, of which a turn's value is the median. In each round each class has a turn at each object, in alternating order. The round trip of a cache
line between the cores is measured before and after each turn, and a turn in which it moved does not count; near (up to
160 ns) and far are told apart and never mixed. What arrives is compared with what was sent before anything is timed. Fails if
a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter_ns
from typing import Any

NEAR_UP_TO_NS = 160
# Each object with how many round trips a turn has, and the most that its time may be of vLLM's.
OBJECTS: dict[str, tuple[int, float]] = {"small": (2000, 0.25), "1 MiB numpy": (300, 0.5)}
# For the record: no target.
OTHERS = {"64 KiB numpy": 1000, "8 MiB numpy": 60}
SUBJECTS = ("unisono", "vllm")


def main() -> None:
    arguments = parsed()
    take_priority()
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    other = context.Process(target=echo_main, args=(theirs, arguments), daemon=True)
    other.start()
    pin(arguments.cpus[0])
    queues = {subject: meet(ours, queue_class(subject, arguments)) for subject in SUBJECTS}
    objects = {**{name: trips for name, (trips, _) in OBJECTS.items()}, **OTHERS}
    check(ours, queues, list(objects))
    probe = Probe(arguments.probe, arguments.cpus)
    times: dict[str, dict[str, dict[str, list[float]]]] = {"near": {}, "far": {}}
    dropped = 0
    for number in range(arguments.rounds):
        before = probe.round_trip()
        for name, trips in objects.items():
            for subject in SUBJECTS if number % 2 == 0 else SUBJECTS[::-1]:
                value = turn(ours, subject, queues[subject], name, trips)
                after = probe.round_trip()
                short, long = sorted((before, after))
                if 2 * long > 3 * short or long > 1000:
                    dropped += 1
                else:
                    cores = "near" if long <= NEAR_UP_TO_NS else "far"
                    times[cores].setdefault(name, {}).setdefault(subject, []).append(value)
                before = after
    ours.send(None)
    other.join()
    sys.exit(report(arguments, times, dropped))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--vllm", type=Path, required=True, help="the folder with vLLM's Python source")
    parser.add_argument("--packages", type=Path, help="a folder with what it needs to be imported, if that is not installed")
    parser.add_argument("--probe", type=Path, required=True, help="the program round_trip")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cpus", type=lambda text: [int(cpu) for cpu in text.split(",")], default=[0, 1])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def take_priority() -> None:
    """A session of its own, which the kernel prefers: it shares processors out among sessions first."""
    if os.getsid(0) != os.getpid():
        if os.getpgrp() == os.getpid():
            # Whoever leads a group of processes cannot begin a session: its child can.
            sys.exit(subprocess.run([sys.executable, *sys.argv], start_new_session=True).returncode)
        os.setsid()
    try:
        Path("/proc/self/autogroup").write_text("-20")
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    except OSError as problem:
        print(f"no priority ({problem}): expect more noise")


def pin(cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})


class Probe:
    """The round trip of a cache line between the two cores, in nanoseconds."""

    def __init__(self, program: Path, cpus: list[int]) -> None:
        self.question = f"{cpus[0]} {cpus[1]}\n"
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        os.sched_setaffinity(self.process.pid, set(cpus))

    def round_trip(self) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(self.question)
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def queue_class(subject: str, arguments: argparse.Namespace) -> Any:
    if subject == "unisono":
        from unisono.vllm import MessageQueue

        return MessageQueue
    for folder in (arguments.packages, arguments.vllm):
        if folder is not None and str(folder) not in sys.path:
            sys.path.insert(0, str(folder.resolve()))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue as Peer

    return Peer


def meet(pipe: Any, kind: Any) -> tuple[Any, Any]:
    """A queue to the other process, and one from it. Both sizes are the class's own default."""
    outgoing = kind(1, 1)
    pipe.send(outgoing.export_handle())
    incoming = kind.create_from_handle(pipe.recv(), 0)
    # The other side comes in before anybody waits for readiness: vLLM's waits in turn.
    pipe.send("in")
    pipe.recv()
    outgoing.wait_until_ready()
    incoming.wait_until_ready()
    return outgoing, incoming


def made(name: str) -> Any:
    if name == "small":
        return ("execute_model", (1, 2, 3), {"step": 7}, None)
    import numpy as np

    number, unit = name.split()[:2]
    return np.arange(int(number) << {"KiB": 10, "MiB": 20}[unit], dtype=np.uint8)


def echo_main(pipe: Any, arguments: argparse.Namespace) -> None:
    pin(arguments.cpus[1])
    queues = {subject: meet(pipe, queue_class(subject, arguments)) for subject in SUBJECTS}
    while (order := pipe.recv()) is not None:
        subject, trips = order
        outgoing, incoming = queues[subject]
        receive, send = incoming.dequeue, outgoing.enqueue
        pipe.send("ready")
        for _ in range(trips):
            send(receive())


def exchange(pipe: Any, subject: str, trips: int, work: Callable[[], Any]) -> Any:
    pipe.send((subject, trips))
    assert pipe.recv() == "ready"
    return work()


def turn(pipe: Any, subject: str, queues: tuple[Any, Any], name: str, trips: int) -> float:
    """The median of one way, in nanoseconds."""
    outgoing, incoming = queues
    send, receive, value = outgoing.enqueue, incoming.dequeue, made(name)

    def work() -> list[int]:
        taken = []
        for _ in range(trips):
            begun = perf_counter_ns()
            send(value)
            receive()
            taken.append(perf_counter_ns() - begun)
        return taken

    return statistics.median(exchange(pipe, subject, trips, work)) / 2


def check(pipe: Any, queues: dict[str, tuple[Any, Any]], names: list[str]) -> None:
    import numpy as np

    for subject, (outgoing, incoming) in queues.items():
        for name in names:
            value = made(name)
            back = exchange(pipe, subject, 1, lambda: (outgoing.enqueue(value), incoming.dequeue())[1])
            assert np.array_equal(back, value) if isinstance(value, np.ndarray) else back == value, (subject, name)


def report(
    arguments: argparse.Namespace, times: dict[str, dict[str, dict[str, list[float]]]], dropped: int
) -> int:
    """Print the table and the verdicts; gives the exit status."""
    cells, missed, judged = [], 0, 0
    print(f"{'cores':6}{'object':14}{'unisono':>10}{'vllm':>10}{'ratio':>8}  rounds  verdict")
    for cores, objects in times.items():
        for name, subjects in objects.items():
            if len(subjects) < len(SUBJECTS):
                continue
            medians = {subject: statistics.median(subjects[subject]) / 1000 for subject in SUBJECTS}
            ratio, rounds = medians["unisono"] / medians["vllm"], min(len(subjects[subject]) for subject in SUBJECTS)
            target = OBJECTS.get(name, (0, None))[1]
            verdict = "no target"
            if target is not None:
                is_met = ratio <= target
                verdict = f"{'met' if is_met else 'MISSED'} (at most {target})"
                if rounds < 3:
                    verdict = f"not judged: {rounds} rounds"
                else:
                    judged += 1
                    missed += not is_met
            print(
                f"{cores:6}{name:14}{medians['unisono']:8.2f}µs{medians['vllm']:8.2f}µs{ratio:8.3f}{rounds:8}  {verdict}"
            )
            cells.append(
                {"cores": cores, "object": name, "one_way_us": medians, "ratio": ratio, "rounds": rounds}
                | {"target": target, "verdict": verdict, "all_us": {s: [t / 1000 for t in subjects[s]] for s in SUBJECTS}}
            )
    print(f"{dropped} turns did not count: the cores moved, or were not running")
    if arguments.json:
        arguments.json.write_text(json.dumps({"cells": cells, "dropped": dropped, "cpus": arguments.cpus}, indent=1))
    if judged == 0:
        print("nothing was judged: no placement had three rounds of both")
    return 1 if missed or judged == 0 else 0


if __name__ == "__main__":
    main()
