"""vLLM's own tests of its message queue, from its source archive, unmodified, on ours.

Those that need more than the public surface are listed in `vllm_own/internal.txt` with what they need; one that is listed and
passes fails here, and so does one that fails and is not. `cargo xtask test --python` fetches the archive and the packages.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

OWN = Path(__file__).parent / "vllm_own"
FILES = ["tests/distributed/test_shm_broadcast.py", "tests/distributed/test_mq_connect_ip.py"]
SOURCE = os.environ.get("UNISONO_VLLM_SOURCE")
# What it needs to be imported, if that is not installed.
PACKAGES = os.environ.get("UNISONO_VLLM_PACKAGES", "")


def listed() -> dict[str, str]:
    """The tests that need something internal, and what."""
    lines = [line.split("#", 1) for line in (OWN / "internal.txt").read_text().splitlines() if line.strip()]
    return {test.strip(): needs[0].strip() if needs else "" for test, *needs in lines if test.strip()}


def test_the_list_says_what_each_test_needs() -> None:
    assert listed() and all(listed().values())


@pytest.mark.skipif(not SOURCE, reason="UNISONO_VLLM_SOURCE names no folder with vLLM's source: run `cargo xtask test --python`")
def test_vllms_own_tests_pass_on_our_queue(tmp_path: Path) -> None:
    assert SOURCE is not None
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(OWN), SOURCE, PACKAGES]),
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--noconftest", "-o", "addopts=", "-p", "stand_in", "-p", "no:cacheprovider"]
        + ["-rA", "-q", "--tb=short", "--rootdir", SOURCE, *FILES],
        cwd=SOURCE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    outcomes = dict(
        (test, outcome)
        for outcome, test in re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) (tests/\S+::\S+)", done.stdout, re.MULTILINE)
    )
    passed = {test for test, outcome in outcomes.items() if outcome == "PASSED"}
    failed = set(outcomes) - passed
    names = {test: test.split("::", 1)[1] for test in outcomes}
    unlisted = {test for test in failed if names[test] not in listed()}
    unexpected = {test for test in passed if names[test] in listed()}
    unknown = set(listed()) - set(names.values())
    print(f"vLLM's own tests on unisono's queue: {len(passed)} passed, {len(failed)} need something internal, of {len(outcomes)}")
    assert outcomes, done.stdout[-5000:]
    assert not unlisted, f"{sorted(unlisted)}\n{done.stdout[-20000:]}"
    assert not unexpected, f"listed as needing something internal, and passed: {sorted(unexpected)}"
    assert not unknown, f"listed, and not there: {sorted(unknown)}"
