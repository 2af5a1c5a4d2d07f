"""The backend of torch.distributed where something comes late, or not at all: time-outs, futures, and ranks that leave."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import unisono
import unisono.torch
from groups import run

WHOLE_GROUP_ONLY = pytest.mark.skipif(
    not unisono.torch._IS_WHOLE_GROUP, reason="this torch does not ask a handle whom it was from"
)


@WHOLE_GROUP_ONLY
def test_who_was_waited_for_may_leave_once_somebody_else_has_sent() -> None:
    def work(rank: int, world: int) -> Any:
        got = torch.zeros(2)
        if rank == 0:
            assert dist.recv(got) == 1  # waits for all three others
        elif rank == 1:
            dist.send(torch.ones(2), 0)
        dist.barrier()
        if rank > 1:
            return dist.destroy_process_group()
        time.sleep(1.0)  # they have left
        if rank == 1:
            dist.send(torch.full((2,), 7.0), 0)
            dist.recv(got, 0)
        else:
            assert dist.recv(got) == 1, "two are gone, and one may still send"
            dist.send(got, 1)
            with pytest.raises(unisono.PeerLeft, match="rank 2 .* has left") as left:
                dist.recv(torch.zeros(2), 2)
            assert left.value.rank == 2 and left.value.operation == "recv"
            with pytest.raises(unisono.PeerLeft):
                dist.isend(got, 2).wait()
        handle = dist.isend(got, 1 - rank)
        dist.recv(torch.zeros(2), 1 - rank)
        handle.wait()
        dist.destroy_process_group()
        return got.tolist()

    assert run(work, 4) == [[7.0, 7.0], [7.0, 7.0], None, None]


def test_who_has_left_is_missed_by_those_alone_who_send_to_it_or_wait_for_it() -> None:
    def work(rank: int, world: int) -> Any:
        if rank < 2:
            dist.send(torch.ones(1), 2 + rank)
        dist.barrier()
        if rank > 1:
            # Two that leave at the same moment, each with a message that it never took.
            return dist.destroy_process_group()
        time.sleep(1.0)
        got = torch.zeros(100_000)
        for _ in range(2):
            for count in (0, 1, 100_000):
                handle = dist.isend(torch.ones(count), 3 - rank)
                with pytest.raises(unisono.PeerLeft) as left:
                    handle.wait()
                assert not left.value.terminal and left.value.rank == 3 - rank
            with pytest.raises(unisono.PeerLeft):
                dist.recv(torch.zeros(1), 3 - rank)
            handle = dist.isend(torch.full((100_000,), float(rank)), 1 - rank)
            dist.recv(got, 1 - rank)
            handle.wait()
        dist.destroy_process_group()
        return got[0].item()

    assert run(work, 4) == [1.0, 0.0, None, None]


@WHOLE_GROUP_ONLY
def test_a_recv_from_anybody_fails_once_nobody_is_left() -> None:
    def work(rank: int, world: int) -> Any:
        if rank == 2:
            time.sleep(0.5)
        if rank > 0:
            return dist.destroy_process_group()
        with pytest.raises(unisono.PeerLeft):
            dist.recv(torch.zeros(2))
        dist.destroy_process_group()

    run(work, 3)


def test_a_recv_that_timed_out_takes_nothing_any_more() -> None:
    def work(rank: int, world: int) -> Any:
        if rank == 1:
            dist.barrier()
            dist.send(torch.tensor([1.0]), 0)
            return None
        missed = torch.zeros(1)
        handle = dist.irecv(missed, 1)
        with pytest.raises(unisono.TimeoutError, match="nobody sent it") as late:
            handle.wait(timedelta(seconds=0.2))
        assert not late.value.terminal and [peer.rank for peer in late.value.peers] == [1]
        with pytest.raises(unisono.TimeoutError):
            handle.wait()
        dist.barrier()
        got = torch.zeros(1)
        dist.recv(got, 1)
        return missed.item(), got.item()

    assert run(work, 2)[0] == (0.0, 1.0)


def test_a_wait_that_timed_out_may_be_made_again() -> None:
    def work(rank: int, world: int) -> Any:
        if rank == 1:
            time.sleep(0.5)
        tensor = torch.ones(1)
        handle = dist.all_reduce(tensor, async_op=True)
        if rank == 0:
            with pytest.raises(TimeoutError):
                handle.wait(timedelta(seconds=0.05))
        handle.wait()
        if unisono.torch._IS_WHOLE_GROUP:
            assert handle.is_success() and handle.exception() is None
        return tensor.item()

    assert run(work, 2) == [2.0, 2.0]


def test_what_follows_a_future_may_wait_for_another() -> None:
    def work(rank: int, world: int) -> Any:
        def again(future: Any) -> Any:
            (tensor,) = future.value()
            return dist.all_reduce(tensor, async_op=True).get_future().wait()

        futures = []
        for k in range(20):
            handle = dist.all_reduce(torch.tensor([float(k)]), async_op=True)
            futures.append(handle.get_future().then(again))
            futures[-1].wait()  # the next one comes after both, everywhere
        return [future.value()[0].item() for future in futures]

    assert run(work, 2) == [[4.0 * k for k in range(20)]] * 2


def test_futures_are_completed_in_a_forked_child() -> None:
    def child(rank: int, world: int, file: str) -> None:
        dist.destroy_process_group()
        dist.init_process_group("unisono", init_method=f"file://{file}", rank=rank, world_size=world)
        (tensor,) = dist.all_reduce(torch.ones(1), async_op=True).get_future().wait()
        assert tensor.item() == 2
        dist.barrier()
        dist.destroy_process_group()

    def work(rank: int, world: int) -> Any:
        future = dist.all_reduce(torch.ones(1), async_op=True).get_future()
        future.wait()
        names: list[Any] = [None] * world
        dist.all_gather_object(names, f"/tmp/unisono-test-{os.getpid()}")
        process = os.fork()
        if process == 0:
            threading.Timer(60, os._exit, (2,)).start()
            try:
                child(rank, world, names[0])
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(process, 0)
        dist.barrier()
        if rank == 0:
            Path(names[0]).unlink(missing_ok=True)
        return os.waitstatus_to_exitcode(status)

    assert run(work, 2) == [0, 0]


def test_ranks_may_meet_on_one_store_again() -> None:
    store = dist.HashStore()

    def meet(rank: int) -> None:
        for _ in range(3):
            comm = unisono.torch.connect(store, rank, 2, timedelta(seconds=30))
            results[rank].append(comm.all_reduce(torch.ones(1)).item())
            comm.close()

    results: list[list[float]] = [[], []]
    threads = [threading.Thread(target=meet, args=(rank,), daemon=True) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [[2.0] * 3] * 2


def test_ctrl_c_ends_a_meeting_on_a_store() -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        unisono.torch.connect(dist.HashStore(), 0, 2, timedelta(seconds=30))
    assert time.monotonic() - start < 10


def test_powersgd_whose_callbacks_wait_for_each_other() -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as powersgd

    def work(rank: int, world: int) -> Any:
        torch.manual_seed(0)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(64, 64))
        state = powersgd.PowerSGDState(None, start_powerSGD_iter=2, min_compression_rate=0.5)
        model.register_comm_hook(state, powersgd.powerSGD_hook)
        for step in range(4):
            model.zero_grad()
            model(torch.full((1, 64), float(rank + step))).sum().backward()
        return [parameter.grad.sum().item() for parameter in model.parameters()]

    first, second = run(work, 2)
    assert first == second
