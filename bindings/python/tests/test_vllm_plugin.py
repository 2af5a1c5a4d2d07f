"""vLLM uses unisono if the user says so, and if that cannot be, goes on as if there were none. All without vLLM."""

from __future__ import annotations

import importlib
import io
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType, SimpleNamespace
from typing import Any

import groups
import pytest
import torch
import torch.distributed as dist
import vllm_stand_in
from unisono.vllm import _plugin

WORLD = 3


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.setenv("UNISONO_VLLM", "1")
    with vllm_stand_in.installed() as modules:
        yield modules


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "vllm.unisono"]


# Whether it is used at all.


@pytest.mark.parametrize(
    ("group", "function"), [("vllm.platform_plugins", "platform"), ("vllm.general_plugins", "activate")]
)
def test_the_wheel_tells_vllm_where_the_plug_in_is(group: str, function: str) -> None:
    (found,) = [entry for entry in entry_points(group=group) if entry.name == "unisono"]
    assert found.load() is getattr(_plugin, function)


@pytest.mark.parametrize("value", [None, "", "0", "off", "no"])
def test_nothing_happens_unless_the_user_says_so(
    value: str | None, vllm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNISONO_VLLM")
    if value is not None:
        monkeypatch.setenv("UNISONO_VLLM", value)
    assert _plugin.platform() is None
    _plugin.activate()
    assert vllm.communicators.CpuCommunicator is vllm_stand_in.CpuCommunicator
    assert vllm.queues.MessageQueue is vllm_stand_in.MessageQueue


def test_a_vllm_that_does_not_use_it_loads_neither_torch_nor_numpy_for_it() -> None:
    program = "import sys; from unisono.vllm._plugin import activate, platform; platform(); activate(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "vllm"} & set(done.stdout.split())


# How it gets in.


def test_the_platform_is_vllms_own_but_for_its_communicators(vllm: SimpleNamespace) -> None:
    name = _plugin.platform()
    assert name is not None
    module, _, attribute = name.rpartition(".")
    platform = getattr(importlib.import_module(module), attribute)
    assert issubclass(platform, vllm_stand_in.CpuPlatform) and platform.device_name == "cpu"
    assert platform.get_device_communicator_cls() == "unisono.vllm._communicator.Communicator"
    vllm.platforms.current_platform = platform()
    _plugin.activate()
    assert vllm.communicators.CpuCommunicator is vllm_stand_in.CpuCommunicator  # nothing was left to replace


def test_beside_another_platform_the_class_is_replaced_instead(
    vllm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [EntryPoint("unisono", "here:platform", "g"), EntryPoint("other", "there:platform", "g")]
    monkeypatch.setattr(_plugin, "entry_points", lambda group: others)
    assert _plugin.platform() is None
    for _ in range(2):  # vLLM may load plug-ins more than once
        _plugin.activate()
        replaced = vllm.communicators.CpuCommunicator
        assert replaced.__module__ == "unisono.vllm._communicator"
        assert issubclass(replaced, vllm_stand_in.CpuCommunicator)


def test_the_queue_stands_wherever_vllm_has_its_name(
    vllm: SimpleNamespace, our_queue: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        _plugin.activate()
        assert issubclass(vllm.queues.MessageQueue, our_queue)
        assert vllm.executor.MessageQueue is vllm.queues.MessageQueue


# What happens if it cannot be.


def test_without_vllm_one_line_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("UNISONO_VLLM", "1")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with caplog.at_level(logging.INFO, "vllm.unisono"):
        _plugin.activate()
    (line,) = said(caplog)
    assert "vLLM's own path" in line and "vllm" in line


def test_on_another_platform_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UNISONO_VLLM", "1")
    with vllm_stand_in.installed(is_cpu=False) as modules, caplog.at_level(logging.INFO, "vllm.unisono"):
        assert _plugin.platform() is None
        _plugin.activate()
        assert modules.communicators.CpuCommunicator is vllm_stand_in.CpuCommunicator
    (line,) = said(caplog)
    assert "is for CPUs, and this is tpu" in line


def test_a_vllm_with_other_names_keeps_its_own(vllm: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    del vllm.communicators.CpuCommunicator
    name = _plugin.platform()
    assert name is not None
    platform = importlib.import_module("unisono.vllm._platform").Platform
    assert platform.get_device_communicator_cls() == vllm_stand_in.CpuPlatform.get_device_communicator_cls()
    vllm.platforms.current_platform = platform()
    with caplog.at_level(logging.INFO, "vllm.unisono"):
        _plugin.activate()
    (line,) = said(caplog)
    assert "vLLM's own path" in line and "CpuCommunicator" in line


class OurQueue:
    """A queue like ours, that cannot be made for 13 readers."""

    def __init__(self, n_reader: int, n_local_reader: int) -> None:
        if n_reader == 13:
            raise MemoryError("no room for 13 readers")

    @staticmethod
    def create_from_handle(handle: Any, rank: int) -> str:
        return f"our reader {rank}"


@pytest.fixture
def our_queue(monkeypatch: pytest.MonkeyPatch) -> type:
    package: ModuleType = importlib.import_module("unisono.vllm")
    monkeypatch.setattr(package, "MessageQueue", OurQueue, raising=False)
    return OurQueue


def test_a_queue_that_cannot_be_made_is_vllms_and_one_line_says_why(
    vllm: SimpleNamespace, our_queue: type, caplog: pytest.LogCaptureFixture
) -> None:
    _plugin.activate()
    assert type(vllm.queues.MessageQueue(2, 2)) is our_queue
    with caplog.at_level(logging.INFO, "vllm.unisono"):
        queue = vllm.queues.MessageQueue(13, 13)
    assert type(queue) is vllm_stand_in.MessageQueue and queue.made_with == (13, 13)
    (line,) = said(caplog)
    assert "MemoryError: no room for 13 readers" in line


def test_a_reader_is_of_the_kind_of_its_writer(vllm: SimpleNamespace, our_queue: type) -> None:
    _plugin.activate()
    create = vllm.queues.MessageQueue.create_from_handle
    assert create(vllm_stand_in.Handle(), 1) == "vLLM's reader 1"
    assert create(object(), 1) == "our reader 1"


# The communicator, on ranks that are processes with a group of Gloo's, as vLLM's are.


def communicator(name: str = "tp:0") -> Any:
    ours = importlib.import_module("unisono.vllm._communicator")
    return ours.Communicator(cpu_group=dist.group.WORLD, device_group=dist.group.WORLD, unique_name=name)


def as_ranks(work: Any, world: int = WORLD) -> list[Any]:
    def with_vllm(rank: int, size: int) -> bytes:
        result = io.BytesIO()
        with vllm_stand_in.installed():
            # As bytes: tensors would have to be fetched from the rank, which ends.
            torch.save(work(rank, size), result)
        return result.getvalue()

    return [torch.load(io.BytesIO(found)) for found in groups.run(with_vllm, world, backend="gloo")]


def block(rank: int) -> torch.Tensor:
    return (torch.arange(24, dtype=torch.float32) + 100 * rank).view(2, 3, 4)


BLOCKS = [block(rank) for rank in range(WORLD)]


def collectives(rank: int, world: int) -> dict[str, Any]:
    comm = communicator()
    reduced = block(rank)
    strided = block(rank).transpose(0, 2)
    found = {
        "kind": type(comm).__module__,
        "name": comm.unique_name,
        "memory": comm.has_memory_of_its_own,
        "in place": comm.all_reduce(reduced) is reduced and reduced,
        "strided": comm.all_reduce(strided),
        "bf16": comm.all_reduce(block(rank).bfloat16()),
        "all_gather": [comm.all_gather(block(rank), dim) for dim in (0, 1, 2, -1)],
        "all_gather strided": comm.all_gather(block(rank).transpose(0, 2), 1),
        "gather": [comm.gather(block(rank), 1, dim) for dim in (0, 1, -1)],
        "reduce_scatter": [comm.reduce_scatter(block(rank), dim) for dim in (1, -2)],
        "broadcast": comm.broadcast(block(rank), 2),
    }
    if rank == 0:
        comm.send(block(7))
        comm.send_tensor_dict({"a": block(8).bfloat16(), "none": torch.empty(0, 5), "b": torch.arange(9)[::2]}, 2)
    if rank == 1:
        found["received"] = comm.recv(torch.Size((2, 3, 4)), torch.float32)
    if rank == 2:
        found["tensors"] = comm.recv_tensor_dict(0)
    dist.barrier()
    comm.destroy()
    return found


def test_every_collective_does_what_vllms_does() -> None:
    ranks = as_ranks(collectives)
    total = torch.stack(BLOCKS).sum(0)
    for rank, found in enumerate(ranks):
        assert found["kind"] == "unisono.vllm._communicator" and found["name"] == "tp:0"
        assert not found["memory"]
        assert torch.equal(found["in place"], total)
        assert torch.equal(found["strided"], total.transpose(0, 2))
        assert torch.equal(found["bf16"], torch.stack([one.bfloat16().float() for one in BLOCKS]).sum(0).bfloat16())
        for dim, gathered in zip((0, 1, 2, -1), found["all_gather"], strict=True):
            assert torch.equal(gathered, torch.cat(BLOCKS, dim))
        assert torch.equal(found["all_gather strided"], torch.cat([one.transpose(0, 2) for one in BLOCKS], 1))
        for dim, gathered in zip((0, 1, -1), found["gather"], strict=True):
            assert torch.equal(gathered, torch.cat(BLOCKS, dim)) if rank == 1 else gathered is None
        for mine in found["reduce_scatter"]:
            assert torch.equal(mine, total[:, rank : rank + 1])
        assert torch.equal(found["broadcast"], block(2))
    assert torch.equal(ranks[1]["received"], block(7))
    tensors = ranks[2]["tensors"]
    assert list(tensors) == ["a", "none", "b"]
    assert torch.equal(tensors["a"], block(8).bfloat16()) and tensors["none"].shape == (0, 5)
    assert torch.equal(tensors["b"], torch.arange(9)[::2])


def compiled(rank: int, world: int) -> list[torch.Tensor]:
    comm = communicator()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def layer(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return comm.all_reduce(x * 2) + 1, comm.all_gather(x, -1), comm.reduce_scatter(x, 1)

    return list(layer(block(rank)))


def test_torch_compile_sees_through_it() -> None:
    total = torch.stack(BLOCKS).sum(0)
    for rank, (reduced, gathered, mine) in enumerate(as_ranks(compiled)):
        assert torch.equal(reduced, 2 * total + 1)
        assert torch.equal(gathered, torch.cat(BLOCKS, -1))
        assert torch.equal(mine, total[:, rank : rank + 1])


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def refused(rank: int, world: int, failing: int, at_once: bool) -> tuple[str, bool, list[str], torch.Tensor]:
    meeting = importlib.import_module("unisono.vllm._meeting")
    true_init = meeting.init

    def init(**arguments: Any) -> Any:
        if rank == failing and at_once:
            raise MemoryError("no memory here")
        comm = true_init(**arguments)
        if rank == failing:
            raise MemoryError("no memory here")
        return comm

    meeting.init = init
    kept = Kept()
    _plugin.log.addHandler(kept)
    _plugin.log.setLevel(logging.INFO)
    comm = communicator()
    return type(comm).__name__, comm.has_memory_of_its_own, kept.lines, comm.all_reduce(block(rank))


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("at_once", [True, False])
def test_if_one_rank_cannot_all_use_vllms_own_and_one_line_says_why(failing: int, at_once: bool) -> None:
    ranks = as_ranks(lambda rank, world: refused(rank, world, failing, at_once))
    for kind, memory, _, reduced in ranks:
        assert kind == "CpuCommunicator" and memory
        assert torch.equal(reduced, torch.stack(BLOCKS).sum(0))
    (line,) = [line for _, _, lines, _ in ranks for line in lines]
    assert f"rank {failing}: MemoryError: no memory here" in line and "tp:0" in line


def every_type(rank: int, world: int) -> list[str]:
    """All types of torch's that a tensor in memory can have, also those that the library knows nothing of."""
    tensor_dict = importlib.import_module("unisono.vllm._tensor_dict")
    made: dict[str, torch.Tensor] = {}
    for name, dtype in sorted(vars(torch).items()):
        if isinstance(dtype, torch.dtype) and not re.fullmatch("q.*|u?int[1-7]", name):
            made[name] = torch.empty(3, 2, dtype=dtype)
            made[name].view(torch.uint8).copy_(torch.arange(made[name].nbytes).reshape(3, -1) % 2)
    made |= {"scalar": torch.tensor(3.5), "learnt": torch.ones(2, requires_grad=True), "conjugate": torch.tensor([1 + 2j]).conj()}
    comm = communicator()._comm
    if rank == 0:
        tensor_dict.send(comm, made, 1)
        return sorted(made)
    received = tensor_dict.recv(comm, 0)
    for name, tensor in received.items():
        sent = made[name].detach().resolve_conj()
        assert (tensor.dtype, tensor.shape) == (sent.dtype, sent.shape)
        assert torch.equal(tensor.reshape(-1).view(torch.uint8), sent.reshape(-1).view(torch.uint8)), name
    return sorted(received)


def test_tensors_of_every_type_are_sent() -> None:
    sent, received = as_ranks(every_type, 2)
    assert sent == received and {"bool", "float8_e4m3fn", "uint16", "bits8", "chalf"} <= set(sent)


def hostile(rank: int, world: int) -> str:
    comm = communicator()._comm
    tensor_dict = importlib.import_module("unisono.vllm._tensor_dict")
    said_: list[str] = []
    if rank == 0:
        # Refused before anything is sent: what follows is understood.
        with pytest.raises(TypeError, match="only plain tensors"):
            tensor_dict.send(comm, {"here": torch.ones(1), "nowhere": torch.empty(2, device="meta")}, 1)
    announced = [b"{]", b'[["a","Tensor",[1]]]\n', b'[["a","float32",[-1]]]', b'[["a","float32",[1e999]]]']
    announced += [b"[" * 100_000, b'[["a","float32",[%d,%d]]]' % (1 << 40, 1 << 40), b'[["a","float32",[%d]]]' % (1 << 55)]
    for length, text in ((1 << 40, b""), *((len(text), text) for text in announced)):
        if rank == 0:
            comm.send(torch.tensor([length]), 1)
            if text:
                comm.send(torch.frombuffer(bytearray(text), dtype=torch.uint8), 1)
        else:
            with pytest.raises(Exception, match="recv_tensor_dict: ") as problem:
                tensor_dict.recv(comm, 0)
            said_.append(str(problem.value))
    return "\n".join(said_)


def test_what_another_rank_says_of_its_tensors_is_checked() -> None:
    _, found = as_ranks(hostile, 2)
    lines = found.splitlines()
    assert "announced a description of 1099511627776 bytes" in lines[0]
    assert "is not understood" in lines[1]
    assert "with type <class 'torch.Tensor'>" in lines[2]
    assert "shape [-1]" in lines[3]
    assert "is not understood" in lines[4] and "is not understood" in lines[5]
    assert "shape [1099511627776, 1099511627776]" in lines[6]
    assert "there is no memory" in lines[7]
