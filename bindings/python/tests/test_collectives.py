"""Every collective, on every kind of tensor, against a plain loop."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import unisono
from conftest import in_threads

WORLD = 3


def of_numpy(values: np.ndarray) -> Any:
    return values


def of_torch(values: np.ndarray) -> Any:
    return torch.from_numpy(values)


class OnlyDlpack:
    """An array that shows itself by DLPack and nothing else."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.values.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()

    def __array__(self, *arguments: Any, **keywords: Any) -> np.ndarray:
        return self.values


KINDS = [of_numpy, of_torch, OnlyDlpack, memoryview]


def plain(tensor: Any) -> np.ndarray:
    return np.asarray(tensor)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> Callable[[np.ndarray], Any]:
    return request.param


def values(rank: int, count: int = 12, dtype: str = "float32") -> np.ndarray:
    return (np.arange(count) + 10 * rank + 1).astype(dtype)


def test_all_reduce_is_in_place_without_out_and_leaves_the_input_with_it(kind: Any) -> None:
    def work(comm: unisono.Communicator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tensor, out = kind(values(comm.rank)), kind(np.zeros(12, "float32"))
        assert comm.all_reduce(tensor, out=out) is out
        before = plain(tensor).copy()
        assert comm.all_reduce(tensor) is tensor
        return before, plain(out), plain(tensor)

    expected = sum(values(rank) for rank in range(WORLD))
    for rank, (before, out, after) in enumerate(in_threads(WORLD, work)):
        np.testing.assert_array_equal(before, values(rank))
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(after, expected)


@pytest.mark.parametrize("op", list(unisono.ReduceOp))
def test_every_operation_does_what_numpy_does(op: unisono.ReduceOp) -> None:
    folds = {
        "sum": lambda all: sum(all),
        "product": lambda all: np.prod(all, axis=0),
        "min": lambda all: np.min(all, axis=0),
        "max": lambda all: np.max(all, axis=0),
        "average": lambda all: sum(all) // WORLD,
        "and": lambda all: np.bitwise_and.reduce(all),
        "or": lambda all: np.bitwise_or.reduce(all),
        "xor": lambda all: np.bitwise_xor.reduce(all),
    }
    for name in (op, op.value):
        results = in_threads(WORLD, lambda comm: comm.all_reduce(values(comm.rank, dtype="int64"), name))
        expected = folds[op.value]([values(rank, dtype="int64") for rank in range(WORLD)])
        for result in results:
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    "dtype", "f4 f8 f2 i1 i2 i4 i8 u1 u2 u4 u8 c8 c16".split() + [ml_dtypes.bfloat16], ids=str
)
def test_every_type_of_numpys_is_added_up(dtype: Any) -> None:
    results = in_threads(WORLD, lambda comm: comm.all_reduce(values(comm.rank, 5).astype(dtype)))
    expected = sum(values(rank, 5) for rank in range(WORLD))
    for result in results:
        np.testing.assert_array_equal(result.astype("complex128"), expected)


@pytest.mark.parametrize(
    "dtype",
    "float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 complex64 complex128".split(),
)
def test_every_type_of_torchs_is_added_up(dtype: str) -> None:
    def work(comm: unisono.Communicator) -> torch.Tensor:
        return comm.all_reduce(torch.full((2, 3), comm.rank + 1, dtype=getattr(torch, dtype)))

    for result in in_threads(WORLD, work):
        assert result.dtype == getattr(torch, dtype) and torch.equal(result, torch.full_like(result, 6))


@pytest.mark.parametrize("dtype", ["bool", "float8_e4m3fn", "float8_e5m2"])
def test_types_that_are_only_moved_are_moved(dtype: str) -> None:
    def work(comm: unisono.Communicator) -> torch.Tensor:
        mine = torch.tensor([comm.rank == 1, True]).to(getattr(torch, dtype))
        return comm.all_gather(mine)

    for result in in_threads(2, work):
        assert result.to(torch.float32).tolist() == [0, 1, 1, 1]


def test_truth_values_are_reduced_as_truth_values_and_other_bytes_are_refused() -> None:
    def work(comm: unisono.Communicator) -> tuple[torch.Tensor, torch.Tensor]:
        mine = torch.tensor([comm.rank == 0, True, False])
        with pytest.raises(TypeError, match="not defined"):
            comm.all_reduce(mine.to(torch.float8_e5m2))
        return comm.all_reduce(mine.clone(), "sum"), comm.all_reduce(mine.clone(), "min")

    for any_of, all_of in in_threads(2, work):
        assert any_of.tolist() == [True, True, False] and all_of.tolist() == [False, True, False]


def test_reduce_broadcast_gather_and_scatter_have_a_root(kind: Any) -> None:
    def work(comm: unisono.Communicator) -> tuple[Any, ...]:
        root = 1
        reduced = comm.reduce(kind(values(comm.rank)), root)
        sent = comm.broadcast(kind(values(comm.rank)), root)
        gathered = comm.gather(kind(values(comm.rank)), root)
        source = kind(values(7)) if comm.rank == root else None
        out = kind(np.zeros(4, "float32"))
        assert comm.scatter(source, root, out=out) is out
        return plain(reduced), plain(sent), gathered, plain(out)

    for rank, (reduced, sent, gathered, part) in enumerate(in_threads(WORLD, work)):
        if rank == 1:
            np.testing.assert_array_equal(reduced, sum(values(rank) for rank in range(WORLD)))
            expected = np.concatenate([values(rank) for rank in range(WORLD)])
            np.testing.assert_array_equal(plain(gathered), expected)
        else:
            assert gathered is None
        np.testing.assert_array_equal(sent, values(1))
        np.testing.assert_array_equal(part, values(7)[4 * rank : 4 * rank + 4])


def test_reduce_scatter_gathers_back_to_the_sum(kind: Any) -> None:
    def work(comm: unisono.Communicator) -> tuple[np.ndarray, np.ndarray]:
        part = comm.reduce_scatter(kind(values(comm.rank)))
        out = kind(np.zeros(12, "float32"))
        return plain(comm.all_gather(part, out=out)), plain(comm.all_gather(part))

    expected = sum(values(rank) for rank in range(WORLD))
    for given, new in in_threads(WORLD, work):
        np.testing.assert_array_equal(given, expected)
        np.testing.assert_array_equal(new, expected)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("dtype", ["float32", "complex64", "bool"])
def test_all_gather_goes_along_any_dimension(dim: int, dtype: str) -> None:
    shape = (2, 3, 4)
    mine = [values(rank, 24, "float32").reshape(shape).astype(dtype) for rank in range(WORLD)]
    for result in in_threads(WORLD, lambda comm: comm.all_gather(torch.from_numpy(mine[comm.rank]), dim=dim)):
        np.testing.assert_array_equal(result.numpy(), np.concatenate(mine, axis=dim))


def test_all_to_all_transposes_the_blocks(kind: Any) -> None:
    def work(comm: unisono.Communicator) -> tuple[np.ndarray, np.ndarray]:
        tensor, out = kind(values(comm.rank)), kind(np.zeros(12, "float32"))
        comm.all_to_all(tensor, out=out)
        return plain(out), plain(comm.all_to_all(tensor))

    for rank, results in enumerate(in_threads(WORLD, work)):
        expected = np.concatenate([values(peer)[4 * rank : 4 * rank + 4] for peer in range(WORLD)])
        for result in results:
            np.testing.assert_array_equal(result, expected)


def test_uneven_forms_count_rows() -> None:
    counts, columns = [2, 0, 3], 4

    def rows(rank: int, count: int) -> torch.Tensor:
        return torch.arange(count * columns).reshape(count, columns) + 100.0 * rank

    def work(comm: unisono.Communicator) -> tuple[Any, ...]:
        rank = comm.rank
        gathered = comm.all_gather_v(rows(rank, counts[rank]), counts)
        scattered = comm.reduce_scatter_v(rows(rank, sum(counts)), counts)
        exchanged = comm.all_to_all_v(rows(rank, sum(counts)), counts, [counts[rank]] * WORLD)
        at_root = comm.gather_v(rows(rank, counts[rank]), 2, counts if rank == 2 else None)
        source = rows(5, sum(counts)) if rank == 2 else None
        out = torch.zeros(counts[rank], columns)
        comm.scatter_v(source, 2, counts if rank == 2 else None, out=out)
        return gathered, scattered, exchanged, at_root, out

    ends = np.cumsum(counts)
    for rank, (gathered, scattered, exchanged, at_root, out) in enumerate(in_threads(WORLD, work)):
        own = slice(ends[rank] - counts[rank], ends[rank])
        everything = torch.cat([rows(peer, counts[peer]) for peer in range(WORLD)])
        assert torch.equal(gathered, everything)
        assert torch.equal(scattered, sum(rows(peer, sum(counts)) for peer in range(WORLD))[own])
        assert torch.equal(exchanged, torch.cat([rows(peer, sum(counts))[own] for peer in range(WORLD)]))
        assert torch.equal(at_root, everything) if rank == 2 else at_root is None
        assert torch.equal(out, rows(5, sum(counts))[own])


def test_send_and_recv_go_round() -> None:
    def work(comm: unisono.Communicator) -> Any:
        data = array.array("d", [comm.rank, 0.5])
        comm.send(data, (comm.rank + 1) % WORLD)
        received = np.zeros(2)
        return comm.recv(received, (comm.rank - 1) % WORLD)

    for rank, received in enumerate(in_threads(WORLD, work)):
        assert received.tolist() == [(rank - 1) % WORLD, 0.5]


def test_empty_tensors_and_scalars_are_tensors() -> None:
    def work(comm: unisono.Communicator) -> tuple[Any, ...]:
        none = comm.all_reduce(torch.empty(0, 3))
        one = comm.all_reduce(torch.tensor(2.5))
        return none.shape, one.item(), comm.all_gather(torch.tensor(comm.rank)).tolist()

    assert in_threads(2, work) == [(torch.Size([0, 3]), 5.0, [0, 1])] * 2


def test_a_started_operation_holds_its_tensors_and_keeps_the_order() -> None:
    def work(comm: unisono.Communicator) -> Any:
        works = [comm.all_reduce(np.full(1000, comm.rank + k), wait=False) for k in range(10)]
        last = comm.all_reduce(np.array([comm.rank]))
        assert all(work.done() for work in works)
        return [work.wait()[0] for work in works], [work.wait(5.0)[-1] for work in works], last[0]

    for first, again, last in in_threads(2, work):
        assert first == again == [2 * k + 1 for k in range(10)] and last == 1


def test_what_cannot_be_done_is_refused_before_anything_is_sent() -> None:
    def work(comm: unisono.Communicator) -> None:
        square = np.zeros((4, 4), "float32")
        for tensor in (square.T, torch.zeros(4, 4).t(), OnlyDlpack(square.T)):
            with pytest.raises(ValueError, match="not contiguous: pass tensor.contiguous()"):
                comm.all_reduce(tensor)
        conjugate = torch.zeros(4, dtype=torch.complex64).conj()
        with pytest.raises(ValueError, match=r"call \.resolve_conj\(\)"):
            comm.all_reduce(conjugate)
        with pytest.raises(ValueError, match=r"call \.resolve_neg\(\)"):
            comm.all_gather(torch._neg_view(torch.zeros(4)))
        with pytest.raises(ValueError, match="read-only"):
            comm.all_reduce(b"abcd")
        with pytest.raises(TypeError, match="buffer protocol"):
            comm.all_reduce([1.0, 2.0])
        with pytest.raises(TypeError, match="both must be the same"):
            comm.all_reduce(square, out=square.astype("float64"))
        with pytest.raises(ValueError, match="out has 3 elements, but 16 are needed"):
            comm.all_reduce(square, out=np.zeros(3, "float32"))
        with pytest.raises(ValueError, match='no reduce operation is called "plus"'):
            comm.all_reduce(square, "plus")
        with pytest.raises(TypeError, match="elements of format"):
            comm.all_reduce(np.zeros(2, "datetime64[s]").view("V8"))
        with pytest.raises(ValueError, match="cannot be divided among 2"):
            comm.reduce_scatter(np.zeros(3))
        with pytest.raises(ValueError, match="there is no dimension 5"):
            comm.all_gather(square, dim=5)
        with pytest.raises(ValueError, match="1 counts for 2 ranks"):
            comm.all_gather_v(square, [1])
        with pytest.raises(unisono.InvalidArgument, match="root"):
            comm.broadcast(square, 7)
        with pytest.raises(TypeError, match="on meta"):
            comm.all_reduce(torch.zeros(3, device="meta"))
        comm.all_reduce(square)

    in_threads(2, work)


@pytest.mark.parametrize("dtype", ["f32", np.float64, torch.bfloat16, torch.int64, "bf16"], ids=str)
def test_registered_tensors_are_reduced_in_place_whole_and_in_part(dtype: Any) -> None:
    def work(comm: unisono.Communicator) -> Any:
        tensor = comm.empty((64, 1024), dtype)
        assert tensor.shape == (64, 1024) and not np.any(np.asarray(tensor.tolist()))
        tensor[:] = comm.rank + 1
        whole = comm.all_reduce(tensor)
        assert whole is tensor
        comm.all_reduce(tensor[32:], "max")
        comm.broadcast(tensor[:1], 1)
        comm.reduce(tensor, 0)
        comm.barrier()
        return tensor.tolist()[0][0], tensor.tolist()[63][1023]

    assert in_threads(2, work) == [(6, 6), (3, 3)]


def test_registered_memory_lives_as_long_as_a_tensor_over_it() -> None:
    def work(comm: unisono.Communicator) -> Any:
        tensor = comm.empty(1000, torch.float32)
        part = tensor[10:20]
        del tensor
        part[:] = comm.rank
        comm.all_reduce(part)
        comm.barrier()
        assert comm.empty(0, torch.float32).shape == (0,)
        return part.tolist()

    assert in_threads(2, work) == [[1.0] * 10] * 2


def test_sub_groups_are_communicators_of_their_own() -> None:
    def work(comm: unisono.Communicator) -> Any:
        part = comm.split(comm.rank % 2, -comm.rank)
        assert comm.split(None) is None
        assert part is not None and part.size == part.world_size == (2 if comm.rank % 2 == 0 else 1)
        return part.rank, part.all_reduce(np.array([comm.rank]))[0]

    assert in_threads(WORLD, work) == [(1, 2), (0, 1), (0, 2)]


def test_tensors_of_one_process_are_folded_with_the_bits_of_a_reduction_over_ranks() -> None:
    from unisono import _core

    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool):
        parts = [(torch.randn(1001, generator=torch.Generator().manual_seed(rank)) * 100).to(dtype) for rank in range(3)]
        for op in ("sum", "product", "min", "max", "average") if dtype is not torch.bool else ("sum", "product"):
            expected = in_threads(3, lambda comm: comm.all_reduce(parts[comm.rank].clone(), op))[0]
            out = torch.empty_like(parts[0])
            _core.fold(parts, op, out)
            assert torch.equal(out, expected), (dtype, op)
            inside = [part.clone() for part in parts]
            _core.fold(inside, op, inside[1])
            assert torch.equal(inside[1], expected), "into one of them"
    whole = torch.zeros(10)
    for wrong in (
        lambda: _core.fold([], "sum", whole),
        lambda: _core.fold([whole[:5]], "sum", whole),
        lambda: _core.fold([whole[1:]], "sum", whole[:-1]),
    ):
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(TypeError):
        _core.fold([whole], "and", whole)
    with pytest.raises((TypeError, ValueError)):
        _core.fold([whole.double()], "sum", whole)
