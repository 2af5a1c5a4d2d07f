"""Ranks that are processes: how they meet, are interrupted, die, fork, and go."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import unisono
from conftest import Ranks, in_threads

SOON = 2.0


def adds_up(comm: unisono.Communicator) -> Any:
    return comm.all_reduce(np.array([comm.rank + 1.0]))[0], comm.rank, comm.world_size


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_ranks_may_be_started_in_any_way(ranks: Any, method: str) -> None:
    assert ranks(3, adds_up, method=method).results() == [(6.0, rank, 3) for rank in range(3)]


def test_the_environment_says_who_a_rank_is() -> None:
    code = (
        "import unisono, numpy\n"
        "with unisono.init() as comm:\n"
        "    print(comm.rank, comm.all_reduce(numpy.array([1 + comm.rank]))[0])\n"
    )
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 30000)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **common, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        assert [process.communicate(timeout=60)[0] for process in started] == ["0 3\n", "1 3\n"]
    finally:
        for process in started:
            process.kill()


def test_settings_that_make_no_sense_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(unisono.SettingError, match="RANK") as raised:
        unisono.init()
    assert raised.value.name == "RANK"
    with pytest.raises(ValueError, match="rank and world_size, or neither"):
        unisono.init(rank=1)
    with pytest.raises(ValueError, match="expected seconds"):
        unisono.init(rank=0, world_size=1, timeout=-1.0)


def test_who_never_came_is_named() -> None:
    with pytest.raises(unisono.RendezvousError, match=r"ranks \[1\] never came") as raised:
        unisono.init(rank=0, world_size=2, run_id="nobody", rendezvous_timeout=0.2)
    assert raised.value.missing == [1] and isinstance(raised.value, unisono.Error)


def meets_by_exchange(comm: unisono.Communicator) -> Any:
    def exchange(mine: bytes) -> list[bytes]:
        sizes = comm.all_gather(np.array([len(mine)]))
        everything = comm.all_gather_v(np.frombuffer(bytearray(mine), "u1"), sizes.tolist())
        ends = np.cumsum(sizes)
        return [everything[end - size : end].tobytes() for end, size in zip(ends, sizes)]

    return adds_up(unisono.init(rank=comm.rank, world_size=comm.world_size, exchange=exchange))


def test_ranks_meet_through_an_exchange_of_bytes(ranks: Any) -> None:
    assert ranks(2, meets_by_exchange).results() == [(3.0, 0, 2), (3.0, 1, 2)]


def waits_for_ctrl_c(comm: unisono.Communicator, what: str) -> Any:
    calls = {
        "barrier": comm.barrier,
        "recv": lambda: comm.recv(np.zeros(1), 0),
        "work": lambda: comm.barrier(wait=False).wait(),
        "split": lambda: comm.split(0),
        "empty": lambda: comm.empty(4),
        "init": lambda: unisono.init(rank=1, world_size=2, run_id=f"none-{os.getpid()}"),
    }
    if comm.rank == 0:
        time.sleep(2.0)
        return None
    start = time.monotonic()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        calls[what]()
    except KeyboardInterrupt as stopped:
        cause = stopped.__cause__
        return time.monotonic() - start, type(cause).__name__, getattr(cause, "terminal", None)
    return "it was not interrupted"


@pytest.mark.parametrize("what", ["barrier", "recv", "work", "split", "empty", "init"])
def test_ctrl_c_ends_a_wait(ranks: Any, what: str) -> None:
    waited, cause, terminal = ranks(2, waits_for_ctrl_c, what).result(1)
    assert 0.25 < waited < 0.9, "within a tenth of a second, and some for a busy machine"
    if what == "work":
        assert cause == "NoneType", "the operation goes on"
    else:
        assert (cause, terminal) == ("Interrupted", what in ("barrier", "split", "empty"))


def test_what_a_handler_raised_is_told_once_even_where_the_error_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("unisono._errors.Interrupted")
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt) as stopped:
        unisono.init(rank=0, world_size=2, run_id=f"none-{os.getpid()}")
    assert isinstance(stopped.value.__cause__, AttributeError)
    [comm] = unisono.in_process(1)
    comm.barrier()  # this call has nothing to do with it


def test_what_an_exchange_raises_is_what_the_caller_gets() -> None:
    problem = ZeroDivisionError("in the exchange")

    def exchange(mine: bytes) -> list[bytes]:
        raise problem

    with pytest.raises(ZeroDivisionError) as raised:
        unisono.init(rank=0, world_size=2, exchange=exchange)
    assert raised.value is problem and isinstance(problem.__cause__, unisono.RendezvousError)


def test_ctrl_c_in_an_exchange_ends_the_meeting() -> None:
    def exchange(mine: bytes) -> list[bytes]:
        time.sleep(60)
        return [mine, mine]

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        unisono.init(rank=0, world_size=2, exchange=exchange)
    assert time.monotonic() - start < 10


def goes_on_after_a_signal(comm: unisono.Communicator) -> Any:
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    if comm.rank == 0:
        time.sleep(0.5)
    else:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    comm.barrier()
    return len(seen)


def test_a_signal_whose_handler_returns_is_handled_and_the_wait_goes_on(ranks: Any) -> None:
    assert ranks(2, goes_on_after_a_signal).results() == [0, 1]


def loses_a_peer(comm: unisono.Communicator) -> Any:
    comm.barrier()
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    start = time.monotonic()
    try:
        while True:
            comm.all_reduce(np.zeros(100))
    except unisono.PeerDied as died:
        again = pickle.loads(pickle.dumps(died))
        assert str(again) == str(died) and again.rank == died.rank
        return time.monotonic() - start, died.rank, died.pid, died.operation, died.number > 0


def test_a_killed_rank_is_named_to_every_survivor(ranks: Any) -> None:
    started: Ranks = ranks(3, loses_a_peer)
    pid = started.processes[1].pid
    for survivor in (0, 2):
        waited, *died = started.result(survivor)
        assert waited < SOON and died == [1, pid, "all_reduce", True]


def test_a_deadline_is_kept_and_says_who_is_missing() -> None:
    def work(comm: unisono.Communicator) -> None:
        comm.barrier()
        if comm.rank == 1:
            return
        with pytest.raises(unisono.TimeoutError) as raised:
            comm.with_timeout(0.1).recv(np.zeros(1), 1)
        error = raised.value
        assert isinstance(error, TimeoutError) and not error.terminal and 0.1 <= error.waited < SOON
        assert [(peer.rank, peer.alive) for peer in error.peers] == [(1, True)]
        assert error.peers[0].last is not None and error.peers[0].last.call.startswith("barrier")

    comms = unisono.in_process(2)
    thread = threading.Thread(target=work, args=(comms[1],))
    thread.start()
    work(comms[0])
    thread.join()
    assert [peer.rank for peer in comms[0].peers()] == [0, 1]


def test_different_calls_are_told_to_both() -> None:
    def work(comm: unisono.Communicator) -> None:
        with pytest.raises(unisono.Mismatch) as raised:
            if comm.rank == 0:
                comm.all_reduce(np.zeros(4, "float32"))
            else:
                comm.broadcast(np.zeros(4, "float64"), 0)
            comm.barrier()
        assert {raised.value.rank, raised.value.peer} == {0, 1}

    in_threads(2, work)


def test_abort_ends_everything_from_another_thread() -> None:
    comms = unisono.in_process(2)
    threading.Timer(0.1, comms[0].abort).start()
    with pytest.raises(unisono.Aborted) as raised:
        comms[0].barrier()
    assert raised.value.by == 0
    with pytest.raises(unisono.Aborted):
        comms[1].barrier()


def test_who_leaves_is_missed_only_if_needed() -> None:
    comms = unisono.in_process(2)
    del comms[1]
    with pytest.raises(unisono.PeerLeft) as raised:
        comms[0].barrier()
    assert raised.value.rank == 1


def test_leaving_together_and_as_a_context() -> None:
    def work(comm: unisono.Communicator) -> None:
        with comm as same:
            assert same is comm
            comm.barrier()
        with pytest.raises(unisono.Closed, match="closed on this rank"):
            comm.barrier()

    in_threads(2, work)


def uses_it_in_a_child(comm: unisono.Communicator) -> Any:
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            comm.barrier()
        except unisono.Forked as error:
            os.write(writes, str(error.parent).encode())
        os._exit(0)
    os.waitpid(child, 0)
    comm.barrier()
    return int(os.read(reads, 100)) == os.getpid()


def test_a_forked_child_is_told_and_its_parent_goes_on(ranks: Any) -> None:
    assert ranks(2, uses_it_in_a_child).results() == [True, True]


def test_forked_children_make_communicators_of_their_own_whatever_sleeps_in_their_parent(ranks: Any) -> None:
    comms = unisono.in_process(2)
    works = [comm.barrier(wait=False) for comm in comms]
    for work in works:
        work.wait()  # the communicators' threads, and the logging's, sleep now
    for _ in range(5):
        assert ranks(2, starts_many, method="fork").results() == [190.0, 190.0]


def starts_many(comm: unisono.Communicator) -> Any:
    works = [comm.all_reduce(np.full(8, float(k)), wait=False) for k in range(20)]
    return sum(work.wait()[0] for work in works) / 2


def test_a_communicator_in_a_cycle_is_collected_and_has_left() -> None:
    class Owner:
        pass

    comms = unisono.in_process(2)
    owner = Owner()
    owner.comm, owner.itself = comms.pop(), owner
    gone = weakref.ref(owner.comm)
    del owner
    gc.collect()
    assert gone() is None
    with pytest.raises(unisono.PeerLeft):
        comms[0].barrier()


def test_tensors_of_started_operations_are_given_back() -> None:
    comms = unisono.in_process(2)
    tensor = np.zeros(10)
    gone = weakref.ref(tensor)
    work = comms[0].all_reduce(tensor, wait=False)
    del tensor
    gc.collect()
    assert gone() is not None, "the operation holds it"
    comms[1].all_reduce(np.ones(10))
    assert work.wait()[0] == 1
    del work
    comms[0].peers()  # whatever another thread dropped is dropped at the next call
    gc.collect()
    assert gone() is None


def test_a_work_in_a_cycle_is_collected() -> None:
    class Tensor(np.ndarray):
        pass

    (comm,) = unisono.in_process(1)
    tensor = np.zeros(10).view(Tensor)
    tensor.work = comm.all_reduce(tensor, wait=False)
    tensor.work.wait()
    comm.peers()
    gone = weakref.ref(tensor)
    del tensor
    gc.collect()
    assert gone() is None


def test_a_dropped_work_is_carried_out_all_the_same() -> None:
    def work(comm: unisono.Communicator) -> Any:
        tensor = np.array([comm.rank + 1])
        comm.all_reduce(tensor, wait=False)
        comm.barrier()
        return tensor[0]

    assert in_threads(2, work) == [3, 3]


def test_two_threads_of_one_rank_take_turns() -> None:
    def work(comm: unisono.Communicator) -> Any:
        sums: list[float] = []

        def reduce() -> None:
            for _ in range(200):
                sums.append(comm.all_reduce(np.ones(64))[0])

        threads = [threading.Thread(target=reduce) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return set(sums), len(sums)

    assert in_threads(2, work) == [({2.0}, 400)] * 2


def test_other_python_threads_run_while_one_waits() -> None:
    comms = unisono.in_process(2)
    counted = 0
    waiter = threading.Thread(target=comms[0].barrier)
    waiter.start()
    start = time.monotonic()
    while time.monotonic() - start < 0.2:
        counted += 1
    comms[1].barrier()
    waiter.join()
    assert counted > 1000


def logs_a_death(comm: unisono.Communicator) -> Any:
    from unisono import _logging

    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("unisono").addHandler(handler)
    logging.getLogger("unisono").setLevel(logging.DEBUG)
    comm.barrier()
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(unisono.PeerDied):
        comm.barrier()
    time.sleep(0.2)
    _logging.flush()
    return [(record.name, record.getMessage()) for record in records if "died" in record.getMessage()]


def test_what_the_library_says_reaches_logging(ranks: Any) -> None:
    ((name, text),) = ranks(2, logs_a_death).result(0)
    assert name == "unisono" and "a rank died" in text and "rank=1" in text


def test_an_interpreter_with_a_communicator_ends_at_once() -> None:
    code = (
        "import unisono, numpy, logging\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "comm = unisono.init(rank=0, world_size=1)\n"
        "work = comm.all_reduce(numpy.ones(10), wait=False)\n"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], timeout=30, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.count("Traceback") == 0, done.stderr
    assert time.monotonic() - start < 10


def test_an_exception_with_an_operation_under_way_ends_the_program_and_is_heard_of(tmp_path: Path) -> None:
    code = (
        "import sys, time, unisono, numpy\n"
        "comm = unisono.init(rank=int(sys.argv[1]), world_size=2, run_id=sys.argv[2])\n"
        "comm.barrier()\n"
        "if comm.rank == 0:\n"
        "    work = comm.all_reduce(numpy.ones(10), wait=False)\n"
        "    raise ValueError('on purpose')\n"
        "try:\n"
        "    comm.recv(numpy.ones(1), 0)\n"  # it never makes the call that rank 0 is in
        "except unisono.Aborted as aborted:\n"
        "    print('aborted by', aborted.by)\n"
    )
    start = time.monotonic()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=30) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert ranks[0].returncode == 1 and "ValueError: on purpose" in outputs[0][1], outputs
    assert ranks[1].returncode == 0 and outputs[1][0] == "aborted by 0\n", outputs
    assert time.monotonic() - start < 25


def test_a_free_threaded_interpreter_is_refused() -> None:
    code = "import sys; sys._is_gil_enabled = lambda: False; import unisono"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0 and "does not support free-threaded Python" in done.stderr
