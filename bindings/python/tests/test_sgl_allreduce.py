"""`unisono.sgl_kernel.allreduce` on simulated devices: a process per rank, the shipped kernels executed on the CPU."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
import pytest
import unisono

torch = pytest.importorskip("torch")

MOST = 16 << 10
ROWS = 16


def gpu(surface: str = "cuda") -> tuple[Any, Any]:
    """The module as it is on a platform, and that of device memory; on a simulated device."""
    os.environ["UNISONO_GPU_DRIVER"] = "sim"
    os.environ["UNISONO_GPU_SURFACE"] = surface
    allreduce = importlib.import_module("unisono.sgl_kernel.allreduce")
    return allreduce, importlib.import_module("unisono.sgl_kernel.memory")


def exchanged(comm: unisono.Communicator, own: bytes) -> list[bytes]:
    everybodys = comm.all_gather(np.frombuffer(own, dtype=np.uint8).copy())
    return [bytes(one) for one in np.asarray(everybodys).reshape(comm.world_size, -1)]


def shared(comm: unisono.Communicator, memory: Any, size: int) -> list[int]:
    """The same allocation on every rank; where each is, as seen here."""
    own = memory.allocate(size)
    handles = exchanged(comm, memory.export(own))
    return [own if peer == comm.rank else memory.open(handle) for peer, handle in enumerate(handles)]


def begun(comm: unisono.Communicator) -> tuple[Any, Any, int, list[int], Any]:
    """An all-reduce, as an engine begins it."""
    allreduce, memory = gpu()
    metas = shared(comm, memory, allreduce.meta_size() + MOST)
    staging = shared(comm, memory, MOST)
    table = torch.zeros(64 * ROWS, dtype=torch.uint8)
    fa = allreduce.init_custom_ar(metas, table, comm.rank, True)
    allreduce.register_buffer(fa, staging)
    comm.barrier()
    return allreduce, memory, fa, staging, table


def inputs(world: int, count: int, dtype: Any, seed: int) -> list[Any]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 16, (count,), generator=draw).to(dtype) for _ in range(world)]


def everybody_gets_the_sum(comm: unisono.Communicator) -> None:
    allreduce, _, fa, staging, _table = begun(comm)
    for seed, (count, dtype) in enumerate([(1, torch.float32), (515, torch.float16), (2048, torch.bfloat16)]):
        all_inputs = inputs(comm.world_size, count, dtype, seed)
        # Input and output are ordinary tensors, gone after the call.
        inp, out = all_inputs[comm.rank].clone(), torch.empty(count, dtype=dtype)
        allreduce.all_reduce(fa, inp, out, staging[comm.rank], MOST)
        assert torch.equal(out, sum(one.float() for one in all_inputs).to(dtype)), (count, dtype)
        torch.ops.unisono.all_reduce(fa, inp, inp, staging[comm.rank], MOST)
        assert torch.equal(inp, out), "in place, as torch's operator"
    allreduce.check(fa)
    comm.barrier()
    allreduce.dispose(fa)
    with pytest.raises(unisono.InvalidArgument, match="disposed"):
        allreduce.dispose(fa)


@pytest.mark.parametrize("world", [2, 3])
def test_every_rank_gets_the_sum(ranks: Any, world: int) -> None:
    ranks(world, everybody_gets_the_sum).results()


def a_graph(comm: unisono.Communicator) -> None:
    allreduce, memory, fa, _, _table = begun(comm)
    base = memory.allocate(4096)
    inp = memory.view(base + 64 * comm.rank, (300,), torch.float32)
    out = torch.zeros(300)
    with memory.capture() as graph:
        allreduce.all_reduce(fa, inp, out, 0, 0)
    handles, offsets = allreduce.get_graph_buffer_ipc_meta(fa)
    assert len(handles) == 64 and offsets == [64 * comm.rank]
    assert all(0 <= byte < 256 for byte in handles)
    all_handles = [list(one) for one in exchanged(comm, bytes(handles))]
    all_offsets = [[64 * peer] for peer in range(comm.world_size)]
    with pytest.raises(unisono.InvalidArgument, match="lists of offsets"):
        allreduce.register_graph_buffers(fa, all_handles, all_offsets[:1])
    allreduce.register_graph_buffers(fa, all_handles, all_offsets)
    comm.barrier()
    for seed in range(3):
        all_inputs = inputs(comm.world_size, 300, torch.float32, seed)
        inp.copy_(all_inputs[comm.rank])
        comm.barrier()
        graph.replay()
        assert torch.equal(out, sum(all_inputs)), seed
        comm.barrier()
    allreduce.dispose(fa)


def test_a_graph_is_captured_registered_and_replayed(ranks: Any) -> None:
    ranks(2, a_graph).results()


def refused(comm: unisono.Communicator) -> None:
    allreduce, memory, fa, staging, table = begun(comm)
    one, half = torch.ones(8), torch.ones(8, dtype=torch.float16)
    at = staging[comm.rank]
    with pytest.raises(unisono.InvalidArgument, match="different types"):
        allreduce.all_reduce(fa, one, half, at, MOST)
    with pytest.raises(unisono.InvalidArgument, match="8 elements, the output 7"):
        allreduce.all_reduce(fa, one, torch.ones(7), at, MOST)
    with pytest.raises(unisono.InvalidArgument, match="make it contiguous"):
        allreduce.all_reduce(fa, torch.ones(8, 3)[:, 0], one, at, MOST)
    with pytest.raises(unisono.InvalidArgument, match="only float32"):
        allreduce.all_reduce(fa, one.double(), one.double(), at, MOST)
    with pytest.raises(unisono.InvalidArgument, match="never registered"):
        allreduce.all_reduce(fa, one, one, 0, 0)
    with pytest.raises(unisono.InvalidArgument, match="has 31 bytes, 32 are needed"):
        allreduce.all_reduce(fa, one, one, at, 31)
    with pytest.raises(unisono.InvalidArgument, match="never made here"):
        allreduce.all_reduce(fa + 1, one, one, at, MOST)
    with pytest.raises(unisono.InvalidArgument, match="not all connected"):
        allreduce.init_custom_ar([1, 2, 3], table, 0, False)
    with pytest.raises(unisono.DeviceError, match="no handle"):
        memory.open(bytes(64))
    # A transposed tensor fills its storage: its elements may be in any order.
    turned = torch.arange(6.0).reshape(2, 3).t()
    out = torch.empty_like(turned)
    allreduce.all_reduce(fa, turned, out, at, MOST)
    assert torch.equal(out, 2 * turned)
    comm.barrier()


def test_what_does_not_fit_is_refused_and_nothing_is_lost(ranks: Any) -> None:
    ranks(2, refused).results()


def overdue(comm: unisono.Communicator) -> None:
    allreduce, _, fa, staging, _table = begun(comm)
    if comm.rank == 0:
        allreduce.set_patience(fa, 0.05)
        tensor = torch.ones(64)
        allreduce.all_reduce(fa, tensor, tensor, staging[0], MOST)
        with pytest.raises(unisono.Overdue, match="rank 0 waited for rank 1") as caught:
            allreduce.all_reduce(fa, tensor, tensor, staging[0], MOST)
        found = caught.value
        assert (found.rank, found.peer, found.block, found.expected, found.found) == (0, 1, 0, 1, 0)
        assert isinstance(found, TimeoutError) and found.waited == pytest.approx(0.05)
    comm.barrier()


def test_a_rank_that_never_comes_is_named_at_the_next_call(ranks: Any) -> None:
    ranks(2, overdue).results()


def on_amds_platform(comm: unisono.Communicator) -> None:
    allreduce, _ = gpu("rocm")
    assert allreduce.meta_size() == torch.ops.unisono.meta_size() == 4352, "what engines reserve on AMD's platform"
    meta = allreduce.allocate_meta_buffer(allreduce.meta_size() + MOST)
    assert meta.dtype == torch.int8 and not meta.any()
    handles = exchanged(comm, bytes(allreduce.get_meta_buffer_ipc_handle(meta).tolist()))
    table = torch.zeros(64 * ROWS, dtype=torch.uint8)
    # As SGLang calls it: handles are bytes of any value.
    begin = torch.ops.unisono.init_custom_ar.default
    fa = begin(meta, table, handles, [0] * comm.world_size, comm.rank, True)
    staging = allreduce.allocate_meta_buffer(MOST)
    handles = exchanged(comm, bytes(allreduce.get_meta_buffer_ipc_handle(staging).tolist()))
    # Text of one character per byte is the same.
    text = [handle.decode("latin-1") for handle in handles]
    allreduce.register_buffer(fa, staging, text, [0] * comm.world_size)
    torch.ops.unisono.register_buffer(fa, staging, handles, [0] * comm.world_size)
    comm.barrier()
    all_inputs = inputs(comm.world_size, 500, torch.bfloat16, 3)
    expected = sum(one.float() for one in all_inputs).to(torch.bfloat16)
    for reduce in (
        allreduce.all_reduce_unreg,
        allreduce.deterministic_all_reduce_unreg,
        torch.ops.unisono.all_reduce_unreg,
    ):
        out = torch.empty(500, dtype=torch.bfloat16)
        reduce(fa, all_inputs[comm.rank], staging, out)
        assert torch.equal(out, expected)
        comm.barrier()
    registered = staging.view(torch.bfloat16)[:500]
    for reduce in (allreduce.all_reduce_reg, allreduce.deterministic_all_reduce_reg):
        registered.copy_(all_inputs[comm.rank])
        comm.barrier()
        out = torch.empty(500, dtype=torch.bfloat16)
        reduce(fa, registered, out)
        assert torch.equal(out, expected)
        comm.barrier()
    packed, offsets = allreduce.get_graph_buffer_ipc_meta(fa)
    assert packed.shape == (0,) and packed.dtype == torch.uint8 and offsets == []
    allreduce.dispose(fa)


def test_amds_functions_take_handles(ranks: Any) -> None:
    ranks(2, on_amds_platform).results()


def quick(comm: unisono.Communicator) -> None:
    allreduce, _ = gpu("rocm")
    assert allreduce.qr_max_size() == 2 << 30
    fa = allreduce.init_custom_qr(comm.rank, comm.world_size, 1 << 20)
    handles = exchanged(comm, bytes(allreduce.qr_get_handle(fa).tolist()))
    with pytest.raises(unisono.InvalidArgument, match="handles"):
        allreduce.qr_open_handles(fa, [torch.frombuffer(bytearray(handles[0]), dtype=torch.uint8)])
    torch.ops.unisono.qr_open_handles(fa, [torch.tensor(list(one), dtype=torch.uint8) for one in handles])
    comm.barrier()
    all_inputs = inputs(comm.world_size, 600, torch.float16, 7)
    inp, exact = all_inputs[comm.rank], sum(one.float() for one in all_inputs)
    outputs = []
    for level in range(4):
        out = torch.empty_like(inp)
        allreduce.qr_all_reduce(fa, inp, out, level)
        outputs.append(out)
    assert torch.equal(outputs[0].float(), exact)
    # Small integers travel as 8 bits without much of an error, and with fewer bits with more.
    errors = [(out.float() - exact).abs().max().item() for out in outputs]
    assert errors[1] <= 0.5 and errors[2] <= 2 and errors[3] <= 8, errors
    swapped = torch.empty_like(inp)
    allreduce.qr_all_reduce(fa, 1, inp, swapped, False)
    assert torch.equal(swapped, outputs[1]), "the wrapper's order"
    torch.ops.unisono.qr_all_reduce(fa, inp, swapped, 3)
    assert torch.equal(swapped, outputs[3])
    with pytest.raises(unisono.InvalidArgument, match="no quantisation level 4"):
        allreduce.qr_all_reduce(fa, inp, swapped, 4)
    with pytest.raises(unisono.InvalidArgument, match="f16 and bf16"):
        allreduce.qr_all_reduce(fa, inp.float(), swapped.float(), 0)
    with pytest.raises(TypeError, match="lacks quant_level"):
        allreduce.qr_all_reduce(fa, inp, swapped)
    allreduce.qr_check(fa)
    comm.barrier()
    allreduce.qr_destroy(fa)


def test_quick_all_reduce(ranks: Any) -> None:
    ranks(2, quick).results()


def packets(comm: unisono.Communicator) -> None:
    allreduce, _ = gpu("cuda")
    rocm = importlib.import_module("unisono.sgl_kernel._allreduce_rocm")
    unique_id = torch.zeros(128, dtype=torch.uint8)
    if comm.rank == 0:
        unique_id = allreduce.mscclpp_generate_unique_id()
    unique_id = torch.frombuffer(bytearray(exchanged(comm, bytes(unique_id.tolist()))[0]), dtype=torch.uint8)
    scratch, put = rocm.allocate_meta_buffer(8 * 4096), torch.zeros(4096, dtype=torch.uint8)
    world = comm.world_size
    begin = lambda selection: allreduce.mscclpp_init_context(  # noqa: E731
        unique_id, comm.rank, world, scratch, put, world, [0] * world, [0] * world, selection
    )
    with pytest.raises(unisono.InvalidArgument, match="between two nodes of 1 to 8 ranks each"):
        begin(2)
    context = begin(1)
    for seed in range(3):
        all_inputs = inputs(world, 1024, torch.bfloat16, seed)
        out = torch.empty(1024, dtype=torch.bfloat16)
        allreduce.mscclpp_allreduce(context, all_inputs[comm.rank], out, 512, 21)
        assert torch.equal(out, sum(one.float() for one in all_inputs).to(torch.bfloat16))
    allreduce.mscclpp_check(context)
    comm.barrier()
    allreduce.mscclpp_dispose(context)


def test_all_reduce_by_packets(ranks: Any) -> None:
    ranks(2, packets).results()


def packets_between_two_nodes(comm: unisono.Communicator) -> None:
    os.environ["UNISONO_GPU_ADDRESS"] = "127.0.0.1"
    allreduce, _ = gpu("cuda")
    rocm = importlib.import_module("unisono.sgl_kernel._allreduce_rocm")
    drawn = allreduce.mscclpp_generate_unique_id() if comm.rank == 0 else torch.zeros(128, dtype=torch.uint8)
    unique_id = torch.frombuffer(bytearray(exchanged(comm, bytes(drawn.tolist()))[0]), dtype=torch.uint8)
    scratch, put = rocm.allocate_meta_buffer(8 * 4096), torch.zeros(8 * 4096, dtype=torch.uint8)
    nodes = [0, 1]
    context = allreduce.mscclpp_init_context(unique_id, comm.rank, 2, scratch, put, 1, nodes, [0, 0], 2)
    for seed, count in enumerate([1, 1000, 2048]):
        all_inputs = inputs(2, count, torch.float16, seed)
        out = torch.empty(count, dtype=torch.float16)
        torch.ops.unisono.mscclpp_allreduce(context, all_inputs[comm.rank], out, 512, 21)
        assert torch.equal(out, all_inputs[0] + all_inputs[1]), count
    allreduce.mscclpp_check(context)
    comm.barrier()
    allreduce.mscclpp_dispose(context)


def test_packets_between_two_nodes(ranks: Any) -> None:
    ranks(2, packets_between_two_nodes).results()


def compiled(comm: unisono.Communicator) -> None:
    allreduce, _, fa, staging, _table = begun(comm)

    def step(x: Any) -> Any:
        out = torch.empty_like(x)
        torch.ops.unisono.all_reduce(fa, x * 2, out, staging[comm.rank], MOST)
        return out + 1

    # Without a fake kernel there would be a break in the graph, which is an error here.
    quick: Any = torch.compile(step, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        all_inputs = inputs(comm.world_size, 100, torch.float32, seed)
        assert torch.equal(quick(all_inputs[comm.rank]), 2 * sum(all_inputs) + 1)
    comm.barrier()
    allreduce.dispose(fa)


def test_torch_compile_knows_what_the_operators_give(ranks: Any) -> None:
    ranks(2, compiled).results()


def without_a_driver(comm: unisono.Communicator) -> None:
    os.environ["UNISONO_CUDA_LIBRARY"] = "/nowhere/libcuda.so"
    os.environ["UNISONO_HIP_LIBRARY"] = "/nowhere/libamdhip64.so"
    from unisono.sgl_kernel import memory

    for driver, found in [("", "no GPU driver"), ("cuda", "libcuda.so"), ("hip", "libamdhip64"), ("gpu", "cuda, hip or sim")]:
        os.environ["UNISONO_GPU_DRIVER"] = driver
        with pytest.raises(unisono.Error, match=found):
            memory.platform(comm.rank)


def test_without_a_driver_all_that_was_looked_for_is_named(ranks: Any) -> None:
    ranks(2, without_a_driver).results()


def registered_under_another_name(comm: unisono.Communicator) -> None:
    allreduce, _ = gpu()
    from unisono.sgl_kernel import all_reduce, dispose, init_custom_ar

    assert (init_custom_ar, all_reduce, dispose) == (
        allreduce.init_custom_ar,
        allreduce.all_reduce,
        allreduce.dispose,
    )
    added = allreduce.register_operators("sgl_kernel")
    assert {"all_reduce", "init_custom_ar", "dispose", "meta_size"} <= set(added)
    assert torch.ops.sgl_kernel.meta_size() == allreduce.meta_size() == 3456
    assert allreduce.register_operators("sgl_kernel") == []
    schema = torch.ops.sgl_kernel.all_reduce.default._schema
    assert [argument.name for argument in schema.arguments] == ["fa", "inp", "out", "reg_buffer", "reg_buffer_sz_bytes"]
    with pytest.raises(unisono.InvalidArgument, match="disposed"):
        torch.ops.sgl_kernel.dispose(99)


def test_operators_are_registered_where_sglang_looks(ranks: Any) -> None:
    ranks(1, registered_under_another_name).results()
