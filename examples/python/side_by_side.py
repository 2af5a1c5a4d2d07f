"""The same work done in several ways, side by side: what the three examples share.

Every way is a program that stays (`Contestant`), loads what it needs, and then does the work whenever it is told to, while the
others sleep. So all are measured within the same seconds, in turn, over several rounds; what disturbs the machine meanwhile
disturbs all of them. A comparison is the median of the ratios of the rounds, with the interval that it lies in.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path
from statistics import median
from typing import Any

# Where a contestant finds its judge, in its environment.
_ADDRESS = "SIDE_BY_SIDE_ADDRESS"
_START = 600.0
_TURN = 600.0
# Long enough for everything that still spins after a turn to fall asleep.
_SETTLE = 1.2

Answer = dict[str, Any]


class Contestant:
    """A program that does the work one way, whenever it is asked to."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{''.join(letter if letter.isalnum() else '-' for letter in name)}.log"
        address = str(folder / f"{len(list(folder.glob('*.log')))}.socket")
        self._listener = Listener(address, "AF_UNIX")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment, _ADDRESS: address},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._connection: Connection | None = None

    def wait_until_ready(self) -> Answer:
        """What it says once it has loaded everything."""
        deadline = time.monotonic() + _START
        while self._connection is None:
            # `accept` has no time-out of its own.
            if wait([self._listener._listener._socket], 0.5):  # type: ignore[attr-defined]
                self._connection = self._listener.accept()
            elif self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failure("did not get ready")
        return self._answer(_START)

    def turn(self, request: dict[str, Any]) -> Answer:
        """Do the work once; what came of it."""
        assert self._connection is not None
        self._connection.send_bytes(json.dumps(request).encode())
        return self._answer(_TURN)

    def _answer(self, patience: float) -> Answer:
        assert self._connection is not None
        try:
            if not self._connection.poll(patience):
                raise self._failure(f"said nothing for {patience:.0f} s")
            answer: Answer = json.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError):
            # It says why after it has let go of the connection.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            raise self._failure("ended") from None
        return answer

    def _failure(self, problem: str) -> SystemExit:
        lines = self._log.read_text(errors="replace").splitlines()[-40:]
        return SystemExit(f"{self.name} {problem}. Its last lines:\n" + "\n".join(lines))

    def lines(self, word: str) -> list[str]:
        """The lines of its output with this word in them."""
        return [line for line in self._log.read_text(errors="replace").splitlines() if word in line]

    def end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        try:
            self._process.wait(20 if self._connection is not None else 0)
        except subprocess.TimeoutExpired:
            try:
                os.killpg(self._process.pid, 9)  # a session of its own: all that it has started, nothing else
            except ProcessLookupError:
                pass
            self._process.wait()
        self._listener.close()


def serve(ready: Answer, work: Callable[[dict[str, Any]], Answer]) -> None:
    """In a contestant: say that it is ready, then do the work as often as asked."""
    with Client(os.environ[_ADDRESS], "AF_UNIX") as judge:
        judge.send_bytes(json.dumps(ready).encode())
        while True:
            try:
                request = json.loads(judge.recv_bytes())
            except EOFError:
                return
            judge.send_bytes(json.dumps(work(request)).encode())


def serve_in_step(ready: Answer, work: Callable[[dict[str, Any]], Answer], is_group: bool) -> None:
    """The same in a contestant that is a group of ranks: rank 0 is asked, and tells the others, who sleep until then."""
    if not is_group:
        serve(ready, work)
        return
    import torch.distributed as dist

    if dist.get_rank() == 0:

        def together(request: dict[str, Any]) -> Answer:
            dist.broadcast_object_list([request], src=0)
            return work(request)

        serve(ready, together)
        dist.broadcast_object_list([None], src=0)
    else:
        said: list[Any] = [None]
        while True:
            dist.broadcast_object_list(said, src=0)
            if said[0] is None:
                break
            work(said[0])
    dist.destroy_process_group()


@dataclass(frozen=True)
class Way:
    """A way to do the work: who does it, and what it is asked for."""

    name: str
    contestant: str
    request: dict[str, Any]


class SideBySide:
    """Contestants, and the turns they take."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._folder = Path(tempfile.mkdtemp(prefix="unisono-example-"))
        self._contestants: dict[str, Contestant] = {}
        self.ready: dict[str, Answer] = {}

    def __enter__(self) -> SideBySide:
        return self

    def __exit__(self, *_: object) -> None:
        for contestant in self._contestants.values():
            contestant.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
        """One after the other: together they would only be in one another's way."""
        self.tell(f"starting: {name}")
        contestant = Contestant(name, command, environment, self._folder)
        self._contestants[name] = contestant
        self.ready[name] = contestant.wait_until_ready()

    def lines(self, name: str, word: str) -> list[str]:
        return self._contestants[name].lines(word)

    def take_turns(self, ways: Sequence[Way], rounds: int) -> dict[str, list[Answer]]:
        """The answers of every way, by its name, one a round, after one round that does not count."""
        answers: dict[str, list[Answer]] = {way.name: [] for way in ways}
        for number in range(rounds + 1):
            self.tell("warming up" if number == 0 else f"round {number} of {rounds}")
            # Nobody is always the first.
            order = ways if number % 2 else list(reversed(ways))
            for way in order:
                time.sleep(_SETTLE)
                answer = self._contestants[way.contestant].turn(way.request)
                if number > 0:
                    answers[way.name].append(answer)
        return answers

    def tell(self, text: str) -> None:
        if not self._quiet:
            print(f"... {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and the interval that the true median lies in with this confidence."""

    median: float
    low: float
    high: float
    confidence: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"

    def as_json(self) -> dict[str, float]:
        return {"median": self.median, "low": self.low, "high": self.high, "confidence": self.confidence}


def said_of(ratios: dict[str, Ratio]) -> str:
    """What the numbers in brackets are."""
    one = next(iter(ratios.values()))
    return f"(medians of {one.rounds} rounds; in brackets the {100 * one.confidence:.0f} % interval)"


def ratio(over: Iterable[float], under: Iterable[float]) -> Ratio:
    """By rounds. The interval is that of the sign test: it asks nothing of how the ratios are spread."""
    ratios = sorted(a / b for a, b in zip(over, under, strict=True))
    count = len(ratios)
    # The narrowest interval of order statistics with 90 % or more, or else the widest there is.
    cut, confidence = 0, 1 - 2 * 0.5**count
    for inner in range(1, (count + 1) // 2):
        tail = sum(math.comb(count, below) for below in range(inner + 1)) * 0.5**count
        if 1 - 2 * tail < 0.9:
            break
        cut, confidence = inner, 1 - 2 * tail
    return Ratio(median(ratios), ratios[cut], ratios[count - 1 - cut], max(confidence, 0.0), count)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown has them, the numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
    return "\n".join([line(header), rule, *map(line, rows)])


class Stopwatch:
    """Time spent in calls that were wrapped in it."""

    def __init__(self) -> None:
        self.calls, self.seconds = 0, 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - start
                self.calls += 1

        return timed

    def reset(self) -> None:
        self.calls, self.seconds = 0, 0.0


def torchrun(ranks: int, script: str, arguments: Sequence[str]) -> list[str]:
    """The command that starts `ranks` ranks of a script with torch's own launcher."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*launcher, script, *arguments]
