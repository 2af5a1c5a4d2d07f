"""Groups of torch's that span machines: the same results, one order of sums, and errors that name who is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import machines
import pytest
import test_torch
import test_torch_endings
import torch
import torch.distributed as dist
import unisono
import unisono.torch
from unisono.torch._places import Map, Place

# By the number of ranks: the machine of each.
LAYOUTS = {
    "even": {2: [0, 1], 3: [0, 1, 2], 4: [0, 0, 1, 1]},
    "uneven": {2: [0, 1], 3: [0, 0, 1], 4: [0, 0, 0, 1]},
    "interleaved": {2: [1, 0], 3: [0, 1, 0], 4: [0, 1, 1, 0]},
}
PROMISES = [
    test_torch.test_collectives_synchronous_and_started,
    test_torch.test_objects,
    test_torch.test_transfers_of_any_size_with_tags_in_any_order_and_from_anybody,
    test_torch.test_sub_groups_and_device_meshes,
    test_torch.test_functional_collectives_and_torch_compile,
    test_torch.test_dtensor,
    test_torch.test_distributed_data_parallel,
    test_torch.test_coalesced,
    test_torch_endings.test_a_wait_that_timed_out_may_be_made_again,
    test_torch_endings.test_what_follows_a_future_may_wait_for_another,
]


def group() -> Any:
    """The communicator of the whole group."""
    world: Any = dist.group.WORLD
    return world.comm if unisono.torch._IS_WHOLE_GROUP else world._get_backend(torch.device("cpu")).comm


@pytest.mark.parametrize(
    ("promise", "layout"),
    [(promise, layout) for layout in LAYOUTS for promise in (PROMISES if layout == "uneven" else PROMISES[:4])],
    ids=lambda value: value if isinstance(value, str) else value.__name__.removeprefix("test_"),
)
def test_what_holds_on_one_machine_holds_on_several(
    promise: Callable[[], None], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(work: Callable[[int, int], Any], world: int = 3, backend: str = "unisono") -> list[Any]:
        return machines.run(LAYOUTS[layout][world], work)

    monkeypatch.setattr(test_torch, "run", run)
    monkeypatch.setattr(test_torch_endings, "run", run)
    promise()


def values(rank: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    numbers = torch.randn(count, generator=torch.Generator().manual_seed(rank))
    return numbers.mul(100).to(dtype)


def summed(parts: list[torch.Tensor]) -> torch.Tensor:
    """In the order of the list, in f32 where the type is shorter, rounded once."""
    total = parts[0].float() if parts[0].dtype in (torch.bfloat16, torch.float16) else parts[0].clone()
    for part in parts[1:]:
        total = total + part
    return total.to(parts[0].dtype)


@pytest.mark.parametrize("layout", [[0, 0, 1, 1], [0, 1, 0], [0, 0, 1, 2, 2]])
def test_sums_are_in_the_order_of_ranks_then_of_nodes_on_all_ranks(layout: list[int]) -> None:
    types = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32]
    # Of one element, of fewer than ranks, and of more than go at once.
    counts = [1, 3, 1000, 100_003]

    def work(rank: int, world: int) -> Any:
        for dtype in types:
            for count in counts:
                everything = [values(other, count, dtype) for other in range(world)]
                nodes = [[everything[other] for other in node] for node in group().where.nodes]
                expected = summed([summed(node) for node in nodes])
                tensor = values(rank, count, dtype)
                dist.all_reduce(tensor)
                assert torch.equal(tensor, expected), (dtype, count)
                tensor = values(rank, count, dtype)
                dist.reduce(tensor, world - 1)
                assert rank != world - 1 or torch.equal(tensor, expected), (dtype, count)
                part = torch.empty(count, dtype=dtype)
                dist.reduce_scatter_tensor(part, values(rank, count, dtype).repeat(world))
                assert torch.equal(part, expected), (dtype, count)
        return group().where.nodes

    seen = machines.run(layout, work)
    nodes = [[rank for rank, machine in enumerate(layout) if machine == number] for number in range(max(layout) + 1)]
    assert seen == [nodes] * len(layout)


def test_every_operation_on_every_kind_of_number() -> None:
    ops = dist.ReduceOp

    def work(rank: int, world: int) -> None:
        def check(op: Any, mine: torch.Tensor, expected: Any) -> None:
            dist.all_reduce(mine, op)
            assert mine.tolist() == expected, op

        for dtype in (torch.float32, torch.int64, torch.bfloat16):
            check(ops.MAX, torch.tensor([rank, -rank], dtype=dtype), [2, 0])
            check(ops.MIN, torch.tensor([rank, -rank], dtype=dtype), [0, -2])
            check(ops.PRODUCT, torch.tensor([rank + 1, 2], dtype=dtype), [6, 8])
            check(ops.AVG, torch.tensor([3 * rank, 9], dtype=dtype), [3, 9])
        check(ops.AVG, torch.tensor([-rank, -1]), [-1, -1])
        check(ops.BOR, torch.tensor([1 << rank]), [7])
        check(ops.BAND, torch.tensor([7 - (1 << rank)]), [0])
        check(ops.BXOR, torch.tensor([3 << rank]), [3 ^ 6 ^ 12])
        check(ops.SUM, torch.tensor([rank == 1, False]), [True, False])
        check(ops.SUM, torch.tensor([complex(rank, 1)]), [3 + 3j])
        check(ops.MAX, torch.tensor([float("nan") if rank == 1 else rank]).isnan().to(torch.uint8), [1])
        empty = torch.zeros(0)
        dist.all_reduce(empty)
        dist.broadcast(empty, 1)
        sparse = torch.sparse_coo_tensor([[rank]], [float(rank + 1)], (world,))
        dist.all_reduce(sparse)
        assert sparse.to_dense().tolist() == [1, 2, 3]

    machines.run([0, 0, 1], work)


def test_sub_groups_on_one_node_and_with_a_rank_of_each() -> None:
    def work(rank: int, world: int) -> Any:
        results = []
        for members in ([0, 1], [2, 3], [0, 2], [1, 3], [3], [0, 2, 3]):
            part = dist.new_group(members)
            if rank in members:
                tensor = torch.tensor([1 << rank])
                dist.all_reduce(tensor, group=part)
                assert tensor.item() == sum(1 << member for member in members)
                comm = part.comm if unisono.torch._IS_WHOLE_GROUP else part._get_backend(torch.device("cpu")).comm
                results.append(type(comm).__name__)
        return results

    near, far = "Communicator", "Nodes"
    assert machines.run([0, 0, 1, 1], work) == [
        [near, far, far],
        [near, far],
        [near, far, far],
        [near, far, near, far],
    ]


def test_ranks_in_other_network_namespaces_that_can_meet_are_on_one_node() -> None:
    def work(rank: int, world: int) -> Any:
        tensor = torch.ones(3)
        dist.all_reduce(tensor)
        return type(group()).__name__, tensor.tolist()

    assert machines.run([0, 1], work, one_memory=True) == [("Communicator", [2.0] * 3)] * 2
    assert machines.run([0, 1], work) == [("Nodes", [2.0] * 3)] * 2
    apart = machines.run([0, 0], lambda rank, world: work(rank, world)[0], setting={"UNISONO_NODE": "same"})
    assert apart == ["Communicator"] * 2


def test_who_can_meet_is_on_one_node() -> None:
    def nodes(*places: Place) -> list[list[int]]:
        return Map(list(places)).nodes

    here = Place.here()
    container = replace(here, network="net:[7]", directory="0:99")
    assert here.directory and here.can_meet(here)
    assert nodes(here, replace(here, pid=1), here) == [[0, 1, 2]]
    assert nodes(here, replace(here, kernel="another"), here) == [[0, 2], [1]], "under another kernel"
    assert nodes(here, replace(here, user="another")) == [[0], [1]], "of another user"
    assert nodes(here, replace(here, network="net:[7]"), replace(here, directory="0:99")) == [[0, 1], [2]]
    assert nodes(here, container, container) == [[0], [1, 2]]
    assert nodes(replace(container, directory=""), replace(here, directory="")) == [[0], [1]]
    assert nodes(here, replace(here, named="a"), here, replace(here, named="a")) == [[0, 2], [1, 3]]
    assert Place.unpack(container.pack()) == container


def test_a_rank_that_never_comes_is_named() -> None:
    with pytest.raises(unisono.Error, match="rank 1 did not come"):
        unisono.torch.connect(dist.HashStore(), 0, 2, timedelta(seconds=0.2))


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    began = time.monotonic()
    try:
        call()
    except unisono.Error as error:
        return type(error).__name__, getattr(error, "rank", None), str(error), time.monotonic() - began
    return ("nothing",)


def keep_reducing() -> None:
    while True:
        dist.all_reduce(torch.ones(1000))


def ends_of(layout: list[int], victim: int, how: signal.Signals, timeout: float) -> dict[int, tuple[Any, ...]]:
    """What becomes of the others when a rank is killed or stopped while all keep reducing."""

    def work(rank: int, world: int) -> Any:
        dist.all_reduce(torch.ones(10))
        if rank == victim:
            os.kill(os.getpid(), how)
        ended = outcome(keep_reducing)
        again = outcome(dist.barrier)
        assert again[0] == ended[0], "the group has ended, for one reason"
        dist.destroy_process_group()
        return ended

    with machines.machines(max(layout) + 1) as made:
        ranks = machines.Ranks(made, layout, work, timeout=timedelta(seconds=timeout))
        try:
            return {rank: ranks.result(rank) for rank in range(len(layout)) if rank != victim}
        finally:
            ranks.end()


@pytest.mark.parametrize("victim", [0, 1, 2, 3])
def test_a_killed_rank_ends_the_group_for_all_others_and_is_named(victim: int) -> None:
    ends = ends_of([0, 0, 1, 1], victim, signal.SIGKILL, 60)
    for rank, (kind, named, text, waited) in ends.items():
        assert kind == "PeerDied", (rank, kind, text)
        assert named == victim, (rank, text)
        assert waited < 30, "long before the time-out"


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_rank_is_named_where_a_node_has_one_rank(victim: int) -> None:
    for rank, (kind, named, text, waited) in ends_of([0, 0, 1], victim, signal.SIGKILL, 60).items():
        assert (kind, named) == ("PeerDied", victim), (rank, text)


@pytest.mark.parametrize("victim", [0, 3])
def test_a_stopped_rank_is_a_time_out_for_all_others(victim: int) -> None:
    for rank, (kind, _, text, waited) in ends_of([0, 0, 1, 1], victim, signal.SIGSTOP, 3).items():
        assert kind == "TimeoutError", (rank, kind, text)
        assert 2 < waited < 30 and f"rank {victim}" in text, (rank, text)


def test_a_machine_that_is_cut_off_is_a_time_out() -> None:
    with machines.machines(2) as made:

        def work(rank: int, world: int) -> Any:
            dist.all_reduce(torch.ones(10))
            return outcome(keep_reducing)

        ranks = machines.Ranks(made, [0, 0, 1], work, timeout=timedelta(seconds=3))
        try:
            time.sleep(2)
            made.cut_off(1)
            ends = [ranks.result(rank) for rank in range(3)]
        finally:
            ranks.end()
    for rank, (kind, _, text, _) in enumerate(ends):
        assert kind == "TimeoutError", text
        assert any(f"rank {other}" in text for other in range(3) if other != rank), text


def test_ctrl_c_ends_a_wait_for_another_node_and_the_group() -> None:
    def work(rank: int, world: int) -> Any:
        dist.all_reduce(torch.ones(1))
        if rank == 0:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            began = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                dist.all_reduce(torch.ones(1))
            interrupted = time.monotonic() - began
            ended = outcome(dist.barrier)
            dist.destroy_process_group()
            return interrupted < 10, ended[0]
        time.sleep(1.5)
        ended = outcome(keep_reducing)
        dist.destroy_process_group()
        return ended[0], "rank 0" in ended[2]

    assert machines.run([0, 1, 1], work) == [(True, "Interrupted"), ("Aborted", True), ("Aborted", True)]


def test_a_send_to_another_node_that_nobody_takes_is_a_time_out_that_names_the_rank() -> None:
    def work(rank: int, world: int) -> Any:
        dist.barrier()
        if rank == 1:
            time.sleep(4)
            return dist.destroy_process_group()
        ended = outcome(lambda: dist.recv(torch.zeros(1), 1))
        dist.destroy_process_group()
        return ended[0], "rank 1" in ended[2]

    assert machines.run([0, 1], work, timeout=timedelta(seconds=2))[0] == ("TimeoutError", True)


def test_who_has_left_is_named_by_those_who_still_need_it() -> None:
    def work(rank: int, world: int) -> Any:
        dist.all_reduce(torch.ones(1))
        if rank == 1:
            return dist.destroy_process_group()
        ended = outcome(keep_reducing)
        dist.destroy_process_group()
        return ended[:2]

    assert machines.run([0, 0, 1, 1], work) == [("PeerLeft", 1), None, ("PeerLeft", 1), ("PeerLeft", 1)]


def test_an_argument_that_makes_no_sense_harms_nothing() -> None:
    def work(rank: int, world: int) -> Any:
        with pytest.raises((TypeError, ValueError)):
            dist.all_reduce(torch.ones(3), dist.ReduceOp.BAND)
        with pytest.raises(ValueError):
            dist.all_to_all_single(torch.ones(4), torch.ones(4), [1, 1, 1], [2, 2, 2])
        tensor = torch.ones(1)
        dist.all_reduce(tensor)
        return tensor.item()

    assert machines.run([0, 1, 0], work) == [3.0] * 3


@pytest.mark.parametrize("there", ["another size", "another type", "another operation", "another call"])
def test_calls_that_differ_between_nodes_are_a_time_out_and_no_data(there: str) -> None:
    def work(rank: int, world: int) -> Any:
        tensor, op = torch.ones(10), dist.ReduceOp.SUM
        if rank == 1:
            tensor = {"another size": torch.ones(1000), "another type": torch.ones(10).int()}.get(there, tensor)
            op = dist.ReduceOp.MAX if there == "another operation" else op
        differs = there == "another call" and rank == 1
        ended = outcome(lambda: dist.broadcast(tensor, 1) if differs else dist.all_reduce(tensor, op))
        dist.destroy_process_group()
        return ended[0]

    ends = machines.run([0, 1], work, timeout=timedelta(seconds=2))
    # Who broadcasts has nothing to wait for but that somebody takes it.
    assert ends == ["TimeoutError"] * 2


def test_a_message_of_another_size_than_is_expected_is_not_taken() -> None:
    def work(rank: int, world: int) -> Any:
        if rank == 1:
            dist.send(torch.ones(1000), 0)
            dist.send(torch.ones(10), 0)
            return dist.barrier()
        got = torch.zeros(10)
        dist.recv(got, 1)
        dist.barrier()
        return got.tolist()

    assert machines.run([0, 1], work)[0] == [1.0] * 10


def test_a_program_that_ends_with_an_operation_under_way_does_not_crash_and_is_heard_of() -> None:
    code = """
import sys, torch, torch.distributed as dist, unisono.torch
dist.init_process_group("unisono", init_method=sys.argv[1], rank=0, world_size=2)
dist.all_reduce(torch.ones(1))
dist.all_reduce(torch.ones(1), async_op=True)  # which nobody else starts
"""

    with machines.machines(2) as made:
        again = f"tcp://{made.address(0)}:29511"

        def work(rank: int, world: int) -> Any:
            dist.barrier()
            dist.destroy_process_group()
            if rank == 0:
                done = subprocess.run([sys.executable, "-c", code, again], capture_output=True, text=True, timeout=60)
                return done.returncode, done.stderr if done.returncode else ""
            dist.init_process_group("unisono", init_method=again, rank=1, world_size=2)
            dist.all_reduce(torch.ones(1))
            ended = outcome(lambda: dist.recv(torch.zeros(1), 0))
            dist.destroy_process_group()
            return ended[0]

        ranks = machines.Ranks(made, [0, 1], work)
        try:
            assert ranks.results() == [(0, ""), "Aborted"]
        finally:
            ranks.end()


def test_a_forked_child_is_told_and_its_parent_goes_on() -> None:
    def work(rank: int, world: int) -> Any:
        dist.all_reduce(torch.ones(1))
        child = os.fork()
        if child == 0:
            try:
                told = outcome(dist.barrier)[0]
                dist.destroy_process_group()
                os._exit(0 if told == "Forked" else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        tensor = torch.ones(1)
        dist.all_reduce(tensor)
        return os.waitstatus_to_exitcode(status), tensor.item()

    assert machines.run([0, 0, 1], work) == [(0, 3.0)] * 3


def test_ranks_that_leave_take_nothing_from_those_that_read_later() -> None:
    def work(rank: int, world: int) -> Any:
        tensor = torch.full((300_000,), float(rank))
        if rank != 0:
            time.sleep(0.3 * rank)
        dist.broadcast(tensor, 0)
        dist.destroy_process_group()
        return tensor.sum().item()

    assert machines.run([0, 0, 1, 1], work) == [0.0] * 4


def test_no_machine_is_left_behind() -> None:
    left = [file.name for file in Path("/run/netns").glob(f"unisono{os.getpid()}-*p-*")]
    assert not left
