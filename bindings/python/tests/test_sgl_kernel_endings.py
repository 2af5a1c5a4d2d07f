"""SGLang's shared-memory operators: failures, Ctrl-C, threads, several engines; and SGLang's gate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import unisono
import unisono.sgl_kernel as shm
from shm_ranks import IN_PYTHON, Ranks, run

LIBRARIES = ["unisono", IN_PYTHON]
SOURCE = os.environ.get("UNISONO_SGLANG_SOURCE")


def ops(library: str) -> Any:
    return getattr(torch.ops, library)


def in_shm() -> set[str]:
    """What has a name there and is this package's, or the operators' that it stands in for."""
    return {name for name in os.listdir("/dev/shm") if "unisono" in name or "shm" in name}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_killed_rank_is_named_to_the_others_and_the_next_start_finds_nothing(library: str) -> None:
    before = in_shm()
    survivors = mp.get_context("fork").Barrier(2)

    def work(rank: int) -> None:
        data = torch.ones(2048)
        ops(library).shm_allreduce(data, 0)
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        for call in (lambda: ops(library).shm_allreduce(data, 0), lambda: ops(library).shm_allgather(data, 0)):
            with pytest.raises(unisono.PeerDied, match=rf"^shm_all\w+ on rank {rank} of 3: rank 1 \(pid \d+\) died") as raised:
                call()
            assert raised.value.rank == 1
            assert isinstance(raised.value, RuntimeError)
        # Nobody is gone before the other has seen it.
        survivors.wait(60)
        os._exit(0)

    name = uuid.uuid4().hex
    for _ in range(2):  # the same name, right after
        ranks = Ranks(3, work, UNISONO_RUN_ID=name)
        for process in ranks.processes:
            process.join(60)
        assert [process.exitcode for process in ranks.processes] == [0, -signal.SIGKILL, 0]
    assert in_shm() <= before


@pytest.mark.parametrize("library", LIBRARIES)
def test_ranks_that_call_different_operators_are_told_so(library: str) -> None:
    both = mp.get_context("fork").Barrier(2)

    def work(rank: int) -> None:
        data = torch.ones(64)
        with pytest.raises(unisono.Mismatch, match=f"on rank {rank} of 2: ranks made different calls"):
            if rank == 0:
                ops(library).shm_allreduce(data, 0)
            else:
                ops(library).shm_allgather(data, 0)
            ops(library).shm_allreduce(data, 0)
        # Nobody is gone before the other has seen it.
        both.wait(60)
        os._exit(0)

    ranks = Ranks(2, work)
    for process in ranks.processes:
        process.join(60)
    assert [process.exitcode for process in ranks.processes] == [0, 0]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_rank_that_does_not_come_is_named_when_the_time_is_over(library: str) -> None:
    def work(rank: int) -> None:
        if rank == 0:
            with pytest.raises(unisono.TimeoutError, match="shm_allreduce on rank 0 of 2: .*rank 1") as raised:
                ops(library).shm_allreduce(torch.ones(4), 0)
            assert [peer.rank for peer in raised.value.peers] == [1]
        late.wait(60)
        os._exit(0)

    late = mp.get_context("fork").Barrier(2)
    ranks = Ranks(2, work, UNISONO_TIMEOUT="0.2")
    for process in ranks.processes:
        process.join(60)
    assert [process.exitcode for process in ranks.processes] == [0, 0]


def test_without_a_group_the_operator_says_what_to_do() -> None:
    for library in LIBRARIES:
        with pytest.raises(ValueError, match=r"shm_allreduce: .*initialize\(size, rank\)"):
            ops(library).shm_allreduce(torch.ones(2), 0)


def test_past_torchs_objects_an_operator_fails_with_the_same_text() -> None:
    with pytest.raises(RuntimeError, match=r"^shm_allreduce: no group: call initialize") as raised:
        torch.ops.unisono.shm_allreduce.default._op(torch.ones(2), 0)
    assert type(raised.value) is RuntimeError
    with pytest.raises(ValueError, match=r"^shm_allreduce: no group: call initialize"):
        torch.ops.unisono.shm_allreduce.default(torch.ones(2), 0)


def test_an_operator_may_be_called_by_what_the_package_itself_calls() -> None:
    # Under the lock as pyo3 counts it, which torch has let go of.
    seen = []

    def exchange(mine: bytes) -> list[bytes]:
        with pytest.raises(ValueError, match="no group") as raised:
            torch.ops.unisono.shm_allreduce(torch.ones(2), 0)
        seen.append(raised.value)
        return [mine]

    unisono.init(rank=0, world_size=1, exchange=exchange)
    assert seen


def test_becoming_another_rank_is_refused() -> None:
    def work(rank: int) -> None:
        shm.initialize(2, rank)
        with pytest.raises(ValueError, match="already"):
            torch.ops.unisono.initialize(3, rank)
        torch.ops.unisono.shm_allreduce(torch.ones(2), 0)

    run(2, work)


def test_two_engines_run_on_one_host_without_hearing_of_each_other() -> None:
    def work(rank: int, engine: int) -> None:
        handle = shm.shm_group_initialize("tp", 2, rank)
        for step in range(200):
            data = torch.full((500,), float(engine + step))
            torch.ops.unisono.shm_allreduce(data, 0)
            torch.ops.unisono.shm_group_allreduce(handle, data)
            assert (data == 4 * (engine + step)).all()

    settings = {"MASTER_ADDR": "127.0.0.1", "UNISONO_RUN_ID": "one run"}
    engines = [Ranks(2, work, engine, MASTER_PORT=str(29500 + engine), **settings) for engine in range(2)]
    for ranks in engines:
        ranks.results()


def test_a_port_that_is_no_number_is_named() -> None:
    def work(rank: int) -> None:
        with pytest.raises(unisono.SettingError, match="MASTER_PORT='x'"):
            torch.ops.unisono.initialize(2, rank)

    Ranks(1, work, meet=False, MASTER_PORT="x").results()


@pytest.mark.parametrize("library", LIBRARIES)
def test_other_threads_run_while_an_operator_waits(library: str) -> None:
    def work(rank: int) -> None:
        ours = shm.shm_group_initialize("second", 2, rank)
        turn = threading.Event()

        def second() -> None:
            assert turn.wait(60)
            # The main thread waits in the first group until the other rank has been through the second.
            ops(library).shm_group_allreduce(ours, torch.ones(4))

        thread = threading.Thread(target=second)
        thread.start()
        if rank == 0:
            turn.set()
            ops(library).shm_allreduce(torch.ones(4), 0)
        else:
            turn.set()
            thread.join()
            ops(library).shm_allreduce(torch.ones(4), 0)
        thread.join()

    run(2, work)


@pytest.mark.parametrize("how", ["call", "compiled", IN_PYTHON])
def test_ctrl_c_ends_a_wait(how: str) -> None:
    def reduced(data: torch.Tensor) -> torch.Tensor:
        torch.ops.unisono.shm_allreduce(data, 0)
        return data

    def interrupt_the_wait_after(number: int) -> None:
        while True:
            last = shm.communicator().peers()[0].last
            if last and last.number > number and not last.finished:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.01)

    def work(rank: int) -> None:
        data = torch.ones(8)
        call = {
            "call": reduced,
            "compiled": torch.compile(reduced, fullgraph=True, backend="aot_eager"),
            IN_PYTHON: lambda data: ops(IN_PYTHON).shm_allreduce(data, 0),
        }[how]
        call(data)
        if rank == 1:
            time.sleep(60)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        last = shm.communicator().peers()[0].last
        assert last
        threading.Thread(target=interrupt_the_wait_after, args=(last.number,)).start()
        try:
            call(data)
        except KeyboardInterrupt:
            os._exit(0)
        os._exit(1)

    ranks = Ranks(2, work)
    try:
        ranks.processes[0].join(60)
        assert ranks.processes[0].exitcode == 0
    finally:
        ranks.kill()


def test_what_a_handler_raised_while_the_other_rank_died_is_raised_once() -> None:
    """The wait ends by the death, and not because of the handler."""

    def work(rank: int) -> None:
        pids = torch.zeros(2, dtype=torch.int64)
        pids[rank] = os.getpid()
        torch.ops.unisono.shm_allreduce(pids, 0)
        if rank == 1:
            time.sleep(60)

        def handler(*_: object) -> None:
            os.kill(int(pids[1]), signal.SIGKILL)
            time.sleep(0.5)
            raise ZeroDivisionError("in the handler")

        signal.signal(signal.SIGINT, handler)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(ZeroDivisionError) as raised:
            torch.ops.unisono.shm_allreduce(torch.ones(8), 0)
        assert isinstance(raised.value.__cause__, unisono.PeerDied)
        (alone,) = unisono.in_process(1)
        alone.barrier()
        os._exit(0)

    ranks = Ranks(2, work)
    try:
        ranks.processes[0].join(60)
        assert ranks.processes[0].exitcode == 0
    finally:
        ranks.kill()


def test_in_a_forked_child_a_group_is_refused() -> None:
    def work(rank: int) -> None:
        child = os.fork()
        if child == 0:
            try:
                torch.ops.unisono.shm_allreduce(torch.ones(2), 0)
            except unisono.Forked:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        torch.ops.unisono.shm_allreduce(torch.ones(2), 0)

    run(2, work)


def test_without_sglang_install_registers_and_says_that_there_is_none() -> None:
    code = """
        import torch, unisono.sgl_kernel as shm
        done = shm.install()
        print(done)
        assert len(done.operators.added) == 10 and not done.gate, done
        assert shm.install().operators.added == []
        shm.initialize(1, 0)
        data = torch.ones(3)
        torch.ops.sgl_kernel.shm_allreduce(data, 0)
        assert torch.compile(lambda x: torch.ops.sgl_kernel.shm_allgather(x, 0), fullgraph=True, backend="aot_eager")(data).shape == (3,)
    """
    said = in_python(code)
    assert "SGLang is not installed" in said and "10 operators added" in said


STAND_IN = {
    "sglang/__init__.py": "",
    "sglang/srt/utils/__init__.py": "from sglang.srt.utils.common import *",
    "sglang/srt/utils/common.py": "def is_shm_available(dtype, world_size, local_size):\n    return False",
    "sglang/srt/distributed/parallel_state.py": "from sglang.srt.utils import is_shm_available",
    "sglang/srt/distributed/bootstrap.py": """
        import os
        import types
        from sglang.srt.distributed import parallel_state

        _is_cpu_amx_available = _is_cpu_arm64 = False

        def get_parallel():
            return types.SimpleNamespace(tp_size=1, tp_rank=0)

        def _set_shm_master_env(dist_init_method):
            os.environ["MASTER_PORT"] = dist_init_method.rsplit(":", 1)[1]

        def _init_cpu_threads_env(*, local_omp_cpuid, dist_init_method=None):
            raise AssertionError("this machine has neither")
        """,
}

# What is looked at is what SGLang 0.5.23 does at start: sglang/srt/distributed/bootstrap.py, parallel_state.py.
OPEN = """
    import os, sys, types, torch, unisono.sgl_kernel as shm
    from sglang.srt.distributed import bootstrap, parallel_state

    bootstrap.get_parallel = lambda: types.SimpleNamespace(tp_size=1, tp_rank=0)
    assert not (bootstrap._is_cpu_amx_available or bootstrap._is_cpu_arm64)
    assert not parallel_state.is_shm_available(torch.bfloat16, 1, 1)
    done = shm.install()
    print(done)
    assert {"sglang.srt.utils.common.is_shm_available", "sglang.srt.distributed.parallel_state.is_shm_available"} <= set(done.gate)
    assert not done.problems
    assert not parallel_state.is_shm_available(torch.bfloat16, 1, 1), "there is no group yet"
    bootstrap._init_cpu_threads_env(local_omp_cpuid="0", dist_init_method="tcp://127.0.0.1:29555")
    assert os.environ["LOCAL_SIZE"] == "1" and os.environ["MASTER_PORT"] == "29555"
    assert parallel_state.is_shm_available(torch.bfloat16, 1, 1)
    assert parallel_state.is_shm_available(torch.int64, 1, 1)
    assert not parallel_state.is_shm_available(torch.float8_e5m2, 1, 1)
    assert not parallel_state.is_shm_available(torch.float32, 2, 1)
    data = torch.ones(3)
    torch.ops.sgl_kernel.shm_allreduce(data, 0)
    # SGLang says itself what torch.compile needs, and may.
    torch.library.register_fake("sgl_kernel::shm_allreduce")(lambda *args: None)
    assert shm.install().gate == []
"""


def test_install_opens_the_gate_of_a_stand_in_for_sglang(tmp_path: Path) -> None:
    for name, text in STAND_IN.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    assert "gate opened in" in in_python(OPEN, PYTHONPATH=str(tmp_path))


# Two ranks that go through SGLang's own group: it asks the gate, and calls the operators.
REDUCE = """
    import contextlib
    rank = 0 if os.fork() else 1
    os.environ["UNISONO_TIMEOUT"] = "60"
    shm.close()
    bootstrap.get_parallel = lambda: types.SimpleNamespace(tp_size=2, tp_rank=rank)
    bootstrap._init_cpu_threads_env(local_omp_cpuid="0", dist_init_method="tcp://127.0.0.1:29556")
    group = types.SimpleNamespace(
        world_size=2,
        local_size=int(os.environ["LOCAL_SIZE"]),
        hpu_communicator=None,
        is_allocation_symmetric=lambda: False,
        use_symmetric_memory=lambda *args, **kwargs: contextlib.nullcontext(),
    )
    data = torch.full((4, 3), rank + 1.0, dtype=torch.bfloat16)
    assert parallel_state.GroupCoordinator.all_reduce(group, data) is data and (data == 3).all()
    gathered = parallel_state.GroupCoordinator.all_gather(group, torch.full((4, 3), float(rank)), -1)
    assert gathered.tolist() == [[0.0] * 3 + [1.0] * 3] * 4
    if rank:
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.mark.skipif(not SOURCE, reason="UNISONO_SGLANG_SOURCE names no folder with SGLang's unpacked wheel")
def test_install_opens_the_gate_of_sglang_itself() -> None:
    here = Path(__file__).parent
    begin = f"""
        import sys
        sys.path.insert(0, {str(here)!r})
        import numpy, torch, torch._dynamo, torch.distributed, sglang_source, pathlib, unisono.sgl_kernel
        sglang_source.bring_in(pathlib.Path({SOURCE!r}))
    """
    code = textwrap.dedent(begin) + textwrap.dedent(OPEN) + textwrap.dedent(REDUCE)
    assert "gate opened in" in in_python(code, SGLANG_USE_CPU_ENGINE="1", UNISONO_RUN_ID=uuid.uuid4().hex)


def test_the_plugin_does_nothing_unless_it_is_asked() -> None:
    code = """
        import torch, unisono.sgl_kernel as shm
        shm.plugin()
        print(torch._C._dispatch_has_kernel("sgl_kernel::shm_allreduce"))
    """
    assert "False" in in_python(code)
    assert "True" in in_python(code, UNISONO_SGLANG="1")


def in_python(code: str, **environment: str) -> str:
    """What a program prints that must go well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
