"""torch's own tests of distributed backends, on Gloo and on unisono in the same run: nothing fails here that passes there."""

from __future__ import annotations

import json
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
PATIENCE = 900


@pytest.mark.parametrize("world", [2, 4])
def test_no_test_of_torchs_fails_or_is_skipped_that_gloo_passes(
    world: int, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Path(__file__).with_name("conformance.py")
    with tempfile.TemporaryDirectory() as folder:
        files = {backend: Path(folder, backend) for backend in ("gloo", "unisono")}
        running = [
            subprocess.Popen(
                [sys.executable, str(program), backend, str(world), str(file)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for backend, file in files.items()
        ]
        for process in running:
            assert process.wait(PATIENCE) == 0
        outcomes = {backend: json.loads(file.read_text()) for backend, file in files.items()}
    gloo, ours = outcomes["gloo"], outcomes["unisono"]
    assert gloo.keys() == ours.keys()
    with capsys.disabled():
        for backend, results in outcomes.items():
            counts = Counter(outcome for outcome, _ in results.values())
            print(f"\n  torch's own tests, {backend}, {world} ranks: {dict(counts)}", end="")
    passed = [name for name, (outcome, _) in gloo.items() if outcome == "passed"]
    assert len(passed) > 50, "Gloo passes what it passes"
    assert all(gloo[name][0] == "passed" for name in RESERVED_FOR_GLOO), "the list is not longer than it needs to be"
    worse = {name: ours[name] for name in passed if ours[name][0] != "passed" and name not in RESERVED_FOR_GLOO}
    assert not worse, "\n".join(f"{name}: {outcome} {reason}" for name, (outcome, reason) in worse.items())
