"""SGLang's shared-memory operators: what they compute, in whatever order, and what they refuse."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
import unisono
import unisono.sgl_kernel as shm
from shm_ranks import IN_PYTHON, run
from unisono.sgl_kernel._operators import SCHEMAS

LIBRARIES = ["unisono", IN_PYTHON]
SUMMED = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int32, torch.int64, torch.uint8]


def ops(library: str) -> Any:
    return getattr(torch.ops, library)


def part(rank: int, count: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """What a rank brings: numbers whose sum depends on the order and on where it is rounded."""
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    return (torch.randn(count, generator=generator, dtype=torch.float64) * 10.0 ** (rank - 1) * 3).to(dtype)


def summed(parts: list[torch.Tensor]) -> torch.Tensor:
    """In the order of the ranks; the half types in f32, rounded once."""
    dtype = parts[0].dtype
    wide = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    total = parts[0].to(wide)
    for one in parts[1:]:
        total = total + one.to(wide)
    return total.to(dtype)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def test_names_and_schemas_are_those_that_engines_call() -> None:
    for call in (
        "initialize(int size, int rank) -> ()",
        "shm_allreduce(Tensor(a!) data, int reduce_op, int handle=0) -> ()",
        "shm_allgather(Tensor data, int dim, int handle=0) -> Tensor",
        "shm_allgather_into_tensor(Tensor(a!) out, Tensor data, int handle=0) -> ()",
        "shm_reduce_scatter_tensor(Tensor(a!) out, Tensor data, int op, int handle=0) -> ()",
        "shm_group_initialize(str name, int size, int rank) -> int",
        "shm_group_allreduce(int handle, Tensor(a!) data) -> ()",
        "shm_group_allgather(int handle, Tensor(a!) out, Tensor data) -> ()",
        "shm_group_alltoall(int handle, Tensor(a!) out, Tensor data) -> ()",
    ):
        name = call.split("(")[0]
        for library in LIBRARIES:
            schema = str(getattr(ops(library), name).default._schema)
            assert schema.replace("(a! -> )", "(a!)").replace("($0! -> )", "(a!)") == f"{library}::{call}"


def test_the_kernels_are_compiled_where_torch_has_the_stable_interface() -> None:
    assert shm._REGISTERED.interface == "stable"
    assert shm.register("unisono").added == []


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_sums_have_the_bits_of_a_plain_loop_on_every_rank(library: str, world: int) -> None:
    def work(rank: int) -> None:
        for seed, dtype in enumerate(SUMMED):
            for count in (0, 1, 7, 33, 2048, 70_001):
                data = part(rank, count, dtype, seed)
                ops(library).shm_allreduce(data, 0)
                assert same_bits(data, summed([part(one, count, dtype, seed) for one in range(world)])), (dtype, count)

    run(world, work)


def test_more_than_32_mib_is_reduced_gathered_and_scattered_whole() -> None:
    count = (36 << 20) // 4

    def work(rank: int) -> None:
        parts = [torch.arange(count, dtype=torch.float32) * (one + 1) for one in range(2)]
        data = parts[rank].clone()
        torch.ops.unisono.shm_allreduce(data, 0)
        assert torch.equal(data, parts[0] + parts[1])
        gathered = torch.ops.unisono.shm_allgather(parts[rank], 0)
        assert torch.equal(gathered, torch.cat(parts))
        around = torch.full((count // 2 + 64,), -1.0)
        torch.ops.unisono.shm_reduce_scatter_tensor(around[32:-32], parts[rank], 0)
        half = slice(rank * count // 2, (rank + 1) * count // 2)
        assert torch.equal(around[32:-32], parts[0][half] + parts[1][half])
        assert (around[:32] == -1).all() and (around[-32:] == -1).all()

    run(2, work)


def test_every_reduce_operation_has_the_number_of_torch_distributed() -> None:
    from torch.distributed import ReduceOp

    def work(rank: int) -> None:
        parts = [torch.tensor([6, 3, 12], dtype=torch.int32), torch.tensor([5, 9, -4], dtype=torch.int32)]
        for op, expected in (
            (ReduceOp.SUM, parts[0] + parts[1]),
            (ReduceOp.AVG, torch.div(parts[0] + parts[1], 2, rounding_mode="trunc")),
            (ReduceOp.PRODUCT, parts[0] * parts[1]),
            (ReduceOp.MIN, torch.minimum(*parts)),
            (ReduceOp.MAX, torch.maximum(*parts)),
            (ReduceOp.BAND, parts[0] & parts[1]),
            (ReduceOp.BOR, parts[0] | parts[1]),
            (ReduceOp.BXOR, parts[0] ^ parts[1]),
        ):
            data = parts[rank].clone()
            torch.ops.unisono.shm_allreduce(data, int(op))
            assert torch.equal(data, expected), op

    run(2, work)


@pytest.mark.parametrize("library", LIBRARIES)
def test_gathers_go_along_any_dimension_for_any_type(library: str) -> None:
    types = [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]

    def work(rank: int) -> None:
        for dtype in types:
            for shape in ((3, 4, 5), (0, 4), (2, 0, 3), (1,), (5, 1)):
                parts = [(torch.arange(torch.Size(shape).numel()).reshape(shape) * (one + 2) % 7).to(dtype) for one in range(3)]
                for dim in range(-len(shape), len(shape)):
                    expected = torch.cat([one.view(torch.uint8) if dtype.itemsize == 1 else one for one in parts], dim)
                    gathered = ops(library).shm_allgather(parts[rank], dim)
                    assert gathered.dtype == dtype
                    assert torch.equal(gathered.view(torch.uint8) if dtype.itemsize == 1 else gathered, expected)
        assert ops(library).shm_allgather(torch.tensor(rank), 0).tolist() == [0, 1, 2]
        # Extents of 1 have any stride in torch's eyes.
        assert ops(library).shm_allgather(torch.arange(6).reshape(6, 1).t().as_strided((1, 6), (99, 1)), 0).shape == (3, 6)

    run(3, work)


@pytest.mark.parametrize("library", LIBRARIES)
def test_operations_may_be_mixed_in_any_order(library: str) -> None:
    world = 3

    def work(rank: int) -> None:
        op = ops(library)
        for step in range(60):
            count = (step * 37) % 500 * world
            parts = [part(one, count, torch.float32, step) for one in range(world)]
            if step % 5 == 0:
                data = parts[rank].clone()
                op.shm_allreduce(data, 0)
                assert same_bits(data, summed(parts))
            if step % 2 == 0:
                assert same_bits(op.shm_allgather(parts[rank], 0), torch.cat(parts))
            if step % 3 == 0:
                out = torch.empty(count * world)
                op.shm_allgather_into_tensor(out, parts[rank])
                assert same_bits(out, torch.cat(parts))
            if step % 7 == 0:
                mine = torch.empty(count // world)
                op.shm_reduce_scatter_tensor(mine, parts[rank], 0)
                assert same_bits(mine, summed(parts).chunk(world)[rank] if count else mine)
            if step % 11 == 0:
                out = torch.empty(count)
                op.shm_alltoall(out, parts[rank])
                blocks = [one.reshape(world, -1)[rank] for one in parts]
                assert same_bits(out, torch.cat(blocks))

    run(world, work)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_process_may_be_in_several_groups_at_once(library: str) -> None:
    def work(rank: int) -> None:
        op = ops(library)
        pairs = op.shm_group_initialize(f"pair-{rank // 2}", 2, rank % 2)
        across = op.shm_group_initialize(f"across-{rank % 2}", 2, rank // 2)
        assert pairs == shm.shm_group_initialize(f"pair-{rank // 2}", 2, rank % 2) != across
        for _ in range(20):
            data = torch.tensor([10.0**rank])
            op.shm_group_allreduce(pairs, data)
            op.shm_group_allreduce(across, data)
            assert data.item() == 1111
            everybody = torch.tensor([1.0])
            op.shm_allreduce(everybody, 0)
            assert everybody.item() == 4
        ids = torch.tensor([rank, rank + 10])
        out = torch.empty(4, dtype=torch.int64)
        op.shm_group_allgather(across, out, ids)
        low = rank % 2
        assert out.tolist() == [low, low + 10, low + 2, low + 12]
        assert op.shm_allgather(ids, 0, across).tolist() == out.tolist()
        swapped = torch.empty(2, dtype=torch.int64)
        op.shm_group_alltoall(pairs, swapped, ids)
        first = rank // 2 * 2
        assert swapped.tolist() == ([first, first + 1] if rank % 2 == 0 else [first + 10, first + 11])
        average = torch.tensor([float(rank)])
        op.shm_allreduce(average, 1, pairs)
        assert average.item() == first + 0.5
        shm.communicator().barrier()
        shm.close(pairs)
        with pytest.raises(ValueError, match=f"no group has handle {pairs}"):
            op.shm_group_allreduce(pairs, data)
        op.shm_group_allreduce(across, data)

    run(4, work)


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_is_refused_is_refused_before_anybody_waits(library: str) -> None:
    def work(rank: int) -> None:
        op = ops(library)
        if rank == 0:
            good, wide = torch.ones(4), torch.ones(4, 6)
            place = "on rank 0 of 2"
            for problem, error, call in (
                ("not contiguous", ValueError, lambda: op.shm_allreduce(wide.t(), 0)),
                ("not contiguous", ValueError, lambda: op.shm_allgather(wide[:, ::2], 1)),
                ("not contiguous", ValueError, lambda: op.shm_allgather_into_tensor(torch.ones(12, 4).t(), wide)),
                ("dimension 2", ValueError, lambda: op.shm_allgather(wide, 2)),
                ("dimension -3", ValueError, lambda: op.shm_allgather(wide, -3)),
                ("number 8", ValueError, lambda: op.shm_allreduce(good, 8)),
                ("number -1", ValueError, lambda: op.shm_reduce_scatter_tensor(good, torch.ones(8), -1)),
                ("elements", ValueError, lambda: op.shm_allgather_into_tensor(torch.ones(9), good)),
                ("elements", ValueError, lambda: op.shm_reduce_scatter_tensor(good, torch.ones(9), 0)),
                ("elements", ValueError, lambda: op.shm_alltoall(good, torch.ones(6))),
                ("divided among 2", ValueError, lambda: op.shm_alltoall(torch.ones(3), torch.ones(3))),
                ("elements", TypeError, lambda: op.shm_allgather_into_tensor(torch.ones(8).double(), good)),
                ("not defined", TypeError, lambda: op.shm_allreduce(good.to(torch.float8_e5m2), 0)),
                ("cannot be moved", TypeError, lambda: op.shm_allgather(good.to(torch.complex32), 0)),
            ):
                with pytest.raises(error, match=problem) as raised:
                    call()
                assert place in str(raised.value) and str(raised.value).startswith("shm_"), raised.value
            with pytest.raises(ValueError, match="handle 7"):
                op.shm_allreduce(good, 0, 7)
            with pytest.raises(ValueError, match="handle -1"):
                op.shm_group_allreduce(-1, good)
            # torch itself knows no kernel for these.
            with pytest.raises(NotImplementedError):
                op.shm_allreduce(wide.to_sparse(), 0)
        # The group goes on.
        data = torch.ones(4)
        op.shm_allreduce(data, 0)
        assert data.tolist() == [2.0] * 4

    run(2, work)


def test_memory_that_all_ranks_have_mapped_needs_no_staging_and_has_the_same_bits() -> None:
    count = 100_000

    def work(rank: int) -> None:
        data = shm.communicator().empty(count, torch.float32)
        data.copy_(part(rank, count, torch.float32))
        torch.ops.unisono.shm_allreduce(data, 0)
        assert same_bits(data, summed([part(one, count, torch.float32) for one in range(2)]))

    run(2, work)


def test_conjugate_and_negated_views_are_what_they_show() -> None:
    def work(rank: int) -> None:
        data = torch.tensor([1 + 2j, 3 - 1j]) * (rank + 1)
        gathered = torch.ops.unisono.shm_allgather(data.conj(), 0)
        assert torch.equal(gathered, torch.cat([torch.tensor([1 + 2j, 3 - 1j]).conj() * one for one in (1, 2)]))

    run(2, work)


def test_compiled_code_is_whole_and_gives_the_same() -> None:
    def layer(data: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        partial = data @ weight
        torch.ops.unisono.shm_allreduce(partial, 0)
        shm.shm_allreduce(partial, 4)
        gathered = torch.ops.unisono.shm_allgather(partial.relu(), -1)
        mine = partial.new_empty(partial.shape[0] // 2, partial.shape[1])
        torch.ops.unisono.shm_reduce_scatter_tensor(mine, partial, 0)
        return partial + 1, gathered * 2, mine

    def work(rank: int) -> None:
        weight = torch.randn(8, 6, generator=torch.Generator().manual_seed(rank))
        compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
        for rows in (4, 10, 2):
            data = torch.randn(rows, 8, generator=torch.Generator().manual_seed(rows))
            for ours, expected in zip(compiled(data, weight), layer(data, weight), strict=True):
                assert torch.equal(ours, expected)

    run(2, work)


def test_an_operator_that_is_there_already_stays_unless_it_is_to_be_replaced() -> None:
    engine = torch.library.Library("engine_of_a_test", "FRAGMENT")
    engine.define("shm_allreduce(Tensor(a!) data, int reduce_op) -> ()")
    engine.define("initialize(int size, int rank) -> ()")

    def minus_five(data: torch.Tensor, reduce_op: int) -> None:
        data.fill_(-5)

    engine.impl("shm_allreduce", minus_five, "CPU")
    engine.impl("initialize", lambda size, rank: None, "CompositeExplicitAutograd")

    done = shm.register("engine_of_a_test")
    assert sorted(done.kept) == ["initialize", "shm_allreduce"] and not done.replaced
    assert sorted(done.added + done.kept) == sorted(SCHEMAS)

    def as_it_was(rank: int) -> None:
        data = torch.ones(3)
        torch.ops.engine_of_a_test.shm_allreduce(data, 0)
        assert data.tolist() == [-5.0] * 3
        assert torch.ops.engine_of_a_test.shm_allgather(data, 0).shape == (6,)

    def replaced(rank: int) -> None:
        done = shm.register("engine_of_a_test", replace=True)
        assert sorted(done.replaced) == ["initialize", "shm_allreduce"] and not done.added
        torch.ops.engine_of_a_test.initialize(2, rank)
        data = torch.ones(3)
        torch.ops.engine_of_a_test.shm_allreduce(data, 0)
        assert data.tolist() == [2.0] * 3

    run(2, as_it_was)
    run(2, replaced)


def test_an_operator_with_other_arguments_or_results_is_not_replaced() -> None:
    engine = torch.library.Library("other_engine_of_a_test", "FRAGMENT")
    engine.define("shm_allreduce(int reduce_op, Tensor(a!) data) -> ()")
    engine.define("shm_alltoall(Tensor(a!) out, Tensor data) -> Tensor")
    engine.define("shm_group_allreduce.named(int handle, Tensor(a!) data) -> ()")
    engine.impl("shm_allreduce", lambda reduce_op, data: data.fill_(-5) and None, "CPU")
    engine.impl("shm_alltoall", lambda out, data: data.clone(), "CPU")
    done = shm.register("other_engine_of_a_test", replace=True, fakes=False)
    assert sorted(done.kept) == ["shm_allreduce", "shm_alltoall", "shm_group_allreduce"] and not done.replaced
    assert torch.ops.other_engine_of_a_test.shm_alltoall(torch.empty(2), torch.ones(2)).tolist() == [1.0, 1.0]


def test_the_interface_is_chosen_by_name_only() -> None:
    with pytest.raises(unisono.SettingError, match="expected auto, stable, or python"):
        shm.register("library_of_nobody", interface="fast")


def test_other_names_come_from_the_gpu_half_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    half: Any = types.ModuleType("unisono.sgl_kernel.allreduce")
    half.__all__ = ["init_custom_ar"]
    half.init_custom_ar = lambda: "here"
    half._private = 1
    monkeypatch.setitem(sys.modules, half.__name__, half)
    from unisono.sgl_kernel import init_custom_ar  # type: ignore[attr-defined]

    assert init_custom_ar() == "here"
    for name in ("_private", "nothing"):
        with pytest.raises(AttributeError, match=name):
            getattr(shm, name)
