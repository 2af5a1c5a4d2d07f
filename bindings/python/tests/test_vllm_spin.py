"""The bell that vLLM's queue has beside its memory, for who built on its name. `cargo xtask test --python` fetches pyzmq."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from unisono.vllm.shm_broadcast import SpinCondition

PACKAGES = os.environ.get("UNISONO_VLLM_PACKAGES", "")
FOR_EVER = 60_000


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path, PACKAGES])
    zmq = pytest.importorskip("zmq", reason="pyzmq is not here: run `cargo xtask test --python`")
    with zmq.Context() as context:
        yield context
        context.destroy(linger=0)


def bell(folder: Path) -> str:
    return f"ipc://{folder}/bell"


def ends_within(seconds: float, wait: threading.Thread) -> bool:
    wait.join(seconds)
    return not wait.is_alive()


def test_a_reader_that_read_lately_does_not_sleep(context: Any, tmp_path: Path) -> None:
    reader = SpinCondition(True, context, bell(tmp_path), busy_loop_s=60)
    reader.record_read()
    reader.wait(FOR_EVER)


def test_a_ring_and_a_cancellation_end_waits(context: Any, tmp_path: Path) -> None:
    writer = SpinCondition(False, context, bell(tmp_path))
    reader = SpinCondition(True, context, bell(tmp_path), busy_loop_s=-1)
    reader.wait(20)  # nobody rings
    wait = threading.Thread(target=reader.wait, args=(FOR_EVER,), daemon=True)
    wait.start()
    # A ring before the reader has connected is lost, as zmq has it.
    while not ends_within(0.01, wait):
        writer.notify()
    reader.cancel()
    for _ in range(2):
        wait = threading.Thread(target=reader.wait, args=(FOR_EVER,), daemon=True)
        wait.start()
        assert ends_within(30, wait)


def test_each_side_refuses_the_others_part(context: Any, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        SpinCondition(False, context, bell(tmp_path)).wait()
    with pytest.raises(AssertionError):
        SpinCondition(True, context, bell(tmp_path)).notify()
