"""The backend of torch.distributed: what torch offers on CPU tensors, compared with plain arithmetic."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import unisono
import unisono.torch
from groups import rank_of, run


def test_collectives_synchronous_and_started() -> None:
    def work(rank: int, world: int) -> None:
        ranks = torch.arange(world, dtype=torch.float32)
        for async_op in (False, True):

            def done(handle: Any) -> None:
                if async_op:
                    assert handle.wait()
                    # A newer torch forwards nothing else.
                    assert not unisono.torch._IS_WHOLE_GROUP or handle.is_completed() and handle.is_success()

            tensor = torch.full((5,), float(rank))
            done(dist.all_reduce(tensor, async_op=async_op))
            assert torch.equal(tensor, torch.full((5,), ranks.sum()))
            tensor = torch.full((4, 4), float(rank)).t()[1:, ::2]
            done(dist.all_reduce(tensor, dist.ReduceOp.MAX, async_op=async_op))
            assert torch.equal(tensor, torch.full((3, 2), world - 1.0)), "not contiguous"
            tensor = torch.full((5,), float(rank))
            done(dist.broadcast(tensor, 1, async_op=async_op))
            assert torch.equal(tensor, torch.ones(5))
            tensor = torch.full((5,), float(rank))
            done(dist.reduce(tensor, 2, async_op=async_op))
            assert rank != 2 or torch.equal(tensor, torch.full((5,), ranks.sum()))
            tensors = [torch.zeros(2, 2) for _ in range(world)]
            done(dist.all_gather(tensors, torch.full((2, 2), float(rank)), async_op=async_op))
            assert [tensor[0, 0].item() for tensor in tensors] == ranks.tolist()
            gathered = torch.zeros(world * 2)
            done(dist.all_gather_into_tensor(gathered, torch.full((2,), float(rank)), async_op=async_op))
            assert torch.equal(gathered, ranks.repeat_interleave(2))
            part = torch.zeros(2)
            done(dist.reduce_scatter_tensor(part, torch.ones(2 * world) * rank, async_op=async_op))
            assert torch.equal(part, torch.full((2,), ranks.sum()))
            done(dist.reduce_scatter(part, [torch.ones(2)] * world, async_op=async_op))
            assert torch.equal(part, torch.full((2,), float(world)))
            lists = [torch.zeros(2) for _ in range(world)] if rank == 0 else None
            done(dist.gather(torch.full((2,), float(rank)), lists, dst=0, async_op=async_op))
            assert lists is None or [tensor[0].item() for tensor in lists] == ranks.tolist()
            done(dist.scatter(part, [ranks[:2] + r for r in range(world)] if rank == 0 else None, async_op=async_op))
            assert torch.equal(part, ranks[:2] + rank)
            out = torch.zeros(world)
            done(dist.all_to_all_single(out, ranks + 10 * rank, async_op=async_op))
            assert torch.equal(out, 10 * ranks + rank)
            out = torch.zeros(world * (rank + 1))
            splits = [r + 1 for r in range(world)]
            done(
                dist.all_to_all_single(
                    out, torch.full((sum(splits),), float(rank)), [rank + 1] * world, splits, async_op=async_op
                )
            )
            assert torch.equal(out, ranks.repeat_interleave(rank + 1))
            outs = [torch.zeros(rank + 1) for _ in range(world)]
            done(dist.all_to_all(outs, [torch.full((r + 1,), float(rank)) for r in range(world)], async_op=async_op))
            assert [tensor[0].item() for tensor in outs] == ranks.tolist()
            done(dist.barrier(async_op=async_op))

    run(work)


def test_objects() -> None:
    def work(rank: int, world: int) -> Any:
        everything: list[Any] = [None] * world
        dist.all_gather_object(everything, {"rank": rank, "pad": "x" * rank})
        sent = ["from", rank]
        dist.broadcast_object_list(sent, 1)
        scattered: list[Any] = [None]
        dist.scatter_object_list(scattered, list("abc") if rank == 0 else None, 0)
        return [one["rank"] for one in everything], sent, scattered

    assert run(work) == [([0, 1, 2], ["from", 1], [letter]) for letter in "abc"]


def test_transfers_of_any_size_with_tags_in_any_order_and_from_anybody() -> None:
    def work(rank: int, world: int) -> None:
        right, left = (rank + 1) % world, (rank - 1) % world
        for count in (0, 1, 1000, 3_000_000):
            # A ring in which everybody sends before anybody receives.
            got = torch.zeros(count)
            operations = [
                dist.P2POp(dist.isend, torch.full((count,), float(rank)), right),
                dist.P2POp(dist.irecv, got, left),
            ]
            for handle in dist.batch_isend_irecv(operations):
                handle.wait()
            assert torch.equal(got, torch.full((count,), float(left)))
        if rank == 0:
            for tag in range(5):
                dist.send(torch.tensor([tag]), 1, tag=tag)
        elif rank == 1:
            for tag in reversed(range(5)):
                got = torch.zeros(1, dtype=torch.int64)
                assert dist.recv(got, 0, tag=tag) == 0 and got.item() == tag
        dist.barrier()
        if not unisono.torch._IS_WHOLE_GROUP:
            return  # where torch does not ask a handle whom it was from
        if rank == 0:
            seen = []
            for _ in range(world - 1):
                got = torch.zeros(2)
                source = dist.recv(got)
                assert got[0] == source
                seen.append(source)
            assert sorted(seen) == list(range(1, world))
        else:
            dist.send(torch.full((2,), float(rank)), 0)

    run(work)


@pytest.mark.parametrize("window", ["128", "1K", "16K"])
def test_transfers_fit_any_window(window: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rank: int, world: int) -> None:
        for count in (1, 15, 16, 60, 200, 255, 256, 1000, 4000, 5000):
            handles = [dist.isend(torch.full((count,), float(k)), 1 - rank) for k in range(20)]
            for k in range(20):
                got = torch.zeros(count)
                dist.recv(got, 1 - rank)
                assert torch.equal(got, torch.full((count,), float(k)))
            for handle in handles:
                assert handle is not None and handle.wait()

    monkeypatch.setenv("UNISONO_WINDOW_BYTES", window)
    run(work, 2)


def test_sub_groups_and_device_meshes() -> None:
    def work(rank: int, world: int) -> Any:
        pair = dist.new_group([0, 2])
        tensor = torch.tensor([rank])
        if rank in (0, 2):
            dist.all_reduce(tensor, group=pair)
            assert dist.get_backend(pair) == "unisono"
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp")) if world == 4 else None
        if mesh is not None:
            row = torch.tensor([rank])
            dist.all_reduce(row, group=mesh.get_group("tp"))
            return tensor.item(), row.item()
        return tensor.item()

    assert run(work) == [2, 1, 2]
    assert run(work, 4) == [(2, 1), (1, 1), (2, 5), (3, 5)]


def test_functional_collectives_and_torch_compile() -> None:
    import torch.distributed._functional_collectives as funcol

    def work(rank: int, world: int) -> None:
        group = dist.group.WORLD
        mine = torch.full((world, 2), float(rank))
        assert torch.equal(funcol.all_reduce(mine, "sum", group), torch.full((world, 2), 3.0))
        assert funcol.all_gather_tensor(mine, 0, group)[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert torch.equal(funcol.reduce_scatter_tensor(mine, "sum", 0, group), torch.full((1, 2), 3.0))
        assert torch.equal(
            funcol.all_to_all_single(mine, None, None, group)[:, 0], torch.arange(float(world))
        )

        @torch.compile(fullgraph=True, backend="aot_eager")
        def compiled(tensor: torch.Tensor) -> torch.Tensor:
            return funcol.all_reduce(tensor * 2, "sum", group) + 1

        assert torch.equal(compiled(mine), torch.full((world, 2), 7.0))

    run(work)


def test_dtensor() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    def work(rank: int, world: int) -> None:
        mesh = init_device_mesh("cpu", (world,))
        torch.manual_seed(0)
        left, right = torch.randn(6, 6), torch.randn(6, 6)
        product = distribute_tensor(left, mesh, [Shard(1)]) @ distribute_tensor(right, mesh, [Shard(0)])
        whole = product.redistribute(mesh, [Replicate()]).to_local()
        torch.testing.assert_close(whole, left @ right)
        torch.testing.assert_close(product.redistribute(mesh, [Shard(0)]).full_tensor(), left @ right)

    run(work)


def test_distributed_data_parallel() -> None:
    def work(rank: int, world: int) -> Any:
        torch.manual_seed(rank)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            model(torch.full((1, 4), float(rank + step))).sum().backward()
            optimizer.step()
        return [parameter.tolist() for parameter in model.parameters()]

    first, *others = run(work)
    assert all(other == first for other in others)


def test_coalesced() -> None:
    def work(rank: int, world: int) -> None:
        tensors = [torch.full((k + 1,), float(rank)) for k in range(3)]
        with dist._coalescing_manager() as manager:
            for tensor in tensors:
                dist.all_reduce(tensor)
        assert all(torch.equal(tensor, torch.full_like(tensor, 3.0)) for tensor in tensors)
        with dist._coalescing_manager(async_ops=True) as manager:
            outs = [torch.zeros(world) for _ in range(2)]
            for out in outs:
                dist.all_gather_into_tensor(out, torch.tensor([float(rank)]))
        manager.wait()
        assert all(torch.equal(out, torch.arange(float(world))) for out in outs)

    run(work)


def test_a_mixed_group_is_refused_where_torch_would_forget_half_of_it_and_works_elsewhere() -> None:
    if unisono.torch._IS_WHOLE_GROUP:
        with pytest.raises(ValueError, match="would forget"):
            dist.init_process_group("cpu:unisono,cuda:gloo", store=dist.HashStore(), rank=0, world_size=1)
        return

    def work(rank: int, world: int) -> Any:
        tensor = torch.ones(3)
        dist.all_reduce(tensor)
        backends = [dist.group.WORLD._get_backend(torch.device(device)) for device in ("cpu", "cuda")]
        return tensor.tolist(), [type(backend).__name__ for backend in backends]

    assert run(work, 2, "cpu:unisono,cuda:gloo") == [([2.0] * 3, ["Backend", "ProcessGroupGloo"])] * 2


def test_it_works_under_torchs_own_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rank: int, world: int) -> Any:
        dist.set_debug_level_from_env()
        part = dist.new_group()
        everything: list[Any] = [None] * world
        dist.all_gather_object(everything, rank, group=part)
        return everything

    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "DETAIL")
    assert run(work, 2) == [[0, 1]] * 2


def test_install_makes_it_the_default_for_cpu_tensors() -> None:
    def work(rank: int, world: int) -> Any:
        tensor = torch.ones(3)
        dist.all_reduce(tensor)
        return str(dist.get_backend_config()), tensor.tolist()

    before = dist.Backend.default_device_backend_map["cpu"]
    unisono.torch.install()
    try:
        results = run(work, 2, backend=None)
    finally:
        dist.Backend.default_device_backend_map["cpu"] = before
    assert results == [("cpu:unisono", [2.0, 2.0, 2.0])] * 2


def test_a_dead_rank_is_named_by_torchs_operations_too() -> None:
    context = mp.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:

        def work(rank: int, world: int) -> Any:
            dist.barrier()
            if rank == 1:
                os._exit(0)
            try:
                dist.all_reduce(torch.ones(3))
            except RuntimeError as error:
                Path(folder, str(rank)).write_text(f"{type(error).__name__}: {error}")
            # Whoever goes without a word counts as dead, too: not before the other has its error.
            deadline = time.monotonic() + 60
            while not Path(folder, str(2 - rank)).exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            os._exit(0)

        pipe, _ = context.Pipe()
        processes = [
            context.Process(target=rank_of, args=(rank, 3, f"{folder}/store", work, pipe, "unisono"))
            for rank in range(3)
        ]
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(90)
        finally:
            for process in processes:
                process.kill()
        for rank in (0, 2):
            assert Path(folder, str(rank)).read_text().startswith("PeerDied: rank 1 (pid ")
