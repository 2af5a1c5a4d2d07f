"""torch's own tests of distributed backends, on Gloo and on unisono in the same run: nothing fails here that passes there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

# What only the backend that is called gloo can pass. torch offers `monitored_barrier` to that name alone, and the tests expect
# Gloo's words (every barrier of unisono's names who did not come); one test asks for the name itself.
RESERVED_FOR_GLOO = {
    "test_get_backend",
    "test_monitored_barrier_gloo",
    "test_monitored_barrier_gloo_rank_0_timeout",
    "test_monitored_barrier_gloo_subgroup",
}
# In seconds.
PATIENCE = 900
# How much of what a run says is shown if it does not come to its end.
LINES = 60


def outcomes_of(backend: str, world: int, folder: Path) -> dict[str, list[str]]:
    """What became of each test on a backend."""
    program, results, log = Path(__file__).with_name("conformance.py"), folder / backend, folder / f"{backend}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(program), backend, str(world), str(results)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ended = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            ended = None
        finally:
            # With the ranks that it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-LINES:])
    assert ended == 0, f"{backend}, {world} ranks: ended with {ended} (None: never). The last it said:\n{tail}"
    outcomes: dict[str, list[str]] = json.loads(results.read_text())
    return outcomes


@pytest.mark.parametrize("world", [2, 4])
def test_no_test_of_torchs_fails_or_is_skipped_that_gloo_passes(
    world: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # One after the other: some of Gloo's go by the clock.
        outcomes = {backend: outcomes_of(backend, world, Path(folder)) for backend in ("gloo", "unisono")}
    gloo, ours = outcomes["gloo"], outcomes["unisono"]
    assert gloo.keys() == ours.keys()
    with capsys.disabled():
        for backend, results in outcomes.items():
            counts = Counter(outcome for outcome, _ in results.values())
            print(f"\n  torch's own tests, {backend}, {world} ranks: {dict(counts)}", end="")
    passed = [name for name, (outcome, _) in gloo.items() if outcome == "passed"]
    assert len(passed) > 50, "Gloo passes what it passes"
    assert RESERVED_FOR_GLOO <= gloo.keys(), "the list is not longer than it needs to be"
    worse = {name: ours[name] for name in passed if ours[name][0] != "passed" and name not in RESERVED_FOR_GLOO}
    assert not worse, "\n".join(f"{name}: {outcome} {reason}" for name, (outcome, reason) in worse.items())
