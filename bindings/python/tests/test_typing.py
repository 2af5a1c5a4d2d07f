"""What type checkers see is what there is."""

from __future__ import annotations

import subprocess
import sys

import unisono


def test_the_package_is_typed_without_gaps() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--package", "unisono"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_stubs_say_what_the_compiled_part_has() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "unisono._core", "--ignore-missing-stub"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_everything_that_is_offered_is_there_and_documented() -> None:
    for name in unisono.__all__:
        assert hasattr(unisono, name)
