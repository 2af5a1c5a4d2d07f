"""torch's collectives over the library's: the methods that `torch.distributed` calls on a group, or on a backend of one.

Each comes down to one call of the communicator on contiguous tensors. Where torch passes lists of tensors, or some that are
not contiguous, the data goes through one flat tensor; the rest of the work is done when the operation is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d as _c10d

from .. import Communicator
from ._nodes import FarTransfers, Nodes
from ._transfers import Transfers
from ._work import Work

Tensors = list[torch.Tensor]

# By number: torch takes longer to find one of its operations in a dictionary than a small all-reduce lasts.
_OPERATIONS = {
    dist.ReduceOp.SUM.value: "sum",
    dist.ReduceOp.AVG.value: "average",
    dist.ReduceOp.PRODUCT.value: "product",
    dist.ReduceOp.MIN.value: "min",
    dist.ReduceOp.MAX.value: "max",
    dist.ReduceOp.BAND.value: "and",
    dist.ReduceOp.BOR.value: "or",
    dist.ReduceOp.BXOR.value: "xor",
}


def _operation(op: Any) -> str:
    name = _OPERATIONS.get(getattr(op, "op", op).value)
    if name is None:
        raise ValueError(f"unisono has no reduce operation {op}")
    return name


def _flat(tensors: Tensors) -> torch.Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _spread(flat: torch.Tensor, tensors: Tensors) -> None:
    """Copy what lies one after the other in `flat` to tensors of any shape."""
    at = 0
    for tensor in tensors:
        tensor.copy_(flat[at : at + tensor.numel()].view(tensor.shape))
        at += tensor.numel()


def _counts(tensors: Tensors) -> list[int]:
    return [tensor.numel() for tensor in tensors]


class Collectives:
    """What a group of torch's does, over a communicator."""

    comm: Communicator | Nodes
    _timeout: float
    _transfers: Transfers | FarTransfers
    _coalesced: list[Work] | None = None

    def _prepare(self, comm: Communicator | Nodes, timeout: timedelta) -> None:
        self.comm = comm
        self._timeout = timeout.total_seconds()
        self._transfers = Transfers(comm) if isinstance(comm, Communicator) else comm.transfers()

    def _patience(self, options: Any) -> Any:
        """The communicator with the call's own time-out, if it has one."""
        timeout = getattr(options, "timeout", None)
        if timeout is None or timeout <= timedelta(0):
            return self.comm
        return self.comm.with_timeout(timeout.total_seconds())

    def _start(
        self,
        options: Any,
        tensors: Tensors,
        call: Callable[[Any, bool], Any],
        finish: Callable[[], None] | None = None,
    ) -> Work | None:
        """Make the call: to its end, if the caller wants to wait (it gets `None` then), else start it."""
        comm = self._patience(options)
        if getattr(options, "asyncOp", True) or self._coalesced is not None:
            work = Work([call(comm, False)], tensors, finish)
            if self._coalesced is not None:
                self._coalesced.append(work)
            return work
        call(comm, True)
        if finish is not None:
            finish()
        return None

    def _together(self, options: Any, tensors: Tensors, works: list[Work | None]) -> Work | None:
        """Several operations as one."""
        started = [work for work in works if work is not None]
        return Work([_AsHandle(work) for work in started], tensors) if started else None

    # One tensor each.

    def allreduce(self, tensors: Tensors, opts: Any = _c10d.AllreduceOptions()) -> Work | None:
        if len(tensors) != 1:
            return self._together(opts, tensors, [self.allreduce([tensor], opts) for tensor in tensors])
        (tensor,) = tensors
        if tensor.is_sparse:
            return self._allreduce_sparse(tensor, opts)
        op = _operation(opts.reduceOp)
        if tensor.is_contiguous():
            return self._start(opts, tensors, lambda comm, wait: comm.all_reduce(tensor, op, wait=wait))
        dense = tensor.contiguous()
        return self._start(
            opts,
            tensors,
            lambda comm, wait: comm.all_reduce(dense, op, wait=wait),
            lambda: _spread(dense.view(-1), [tensor]),
        )

    def _allreduce_sparse(self, tensor: torch.Tensor, options: Any) -> Work | None:
        """The sum of sparse tensors: all entries of all ranks, added up where they meet."""
        if _operation(options.reduceOp) != "sum":
            raise ValueError("unisono adds sparse tensors up, and knows no other operation on them")
        comm = self._patience(options)
        mine = tensor.coalesce()
        entries = comm.all_gather(torch.tensor([mine._nnz()])).tolist()
        indices = comm.all_gather_v(mine.indices().t().contiguous(), entries).t()
        values = comm.all_gather_v(mine.values().contiguous(), entries)
        total = torch.sparse_coo_tensor(indices, values, tensor.shape).coalesce()
        tensor.copy_(total)
        return Work([], [tensor]) if getattr(options, "asyncOp", True) else None

    def allreduce_coalesced(
        self, tensors: Tensors, opts: Any = _c10d.AllreduceCoalescedOptions()
    ) -> Work | None:
        op = _operation(opts.reduceOp)
        if any(tensor.dtype != tensors[0].dtype for tensor in tensors):
            raise ValueError("tensors that are reduced together must have one type")
        flat = _flat(tensors)
        return self._start(
            opts,
            tensors,
            lambda comm, wait: comm.all_reduce(flat, op, wait=wait),
            lambda: _spread(flat, tensors),
        )

    def broadcast(self, tensors: Tensors, opts: Any = _c10d.BroadcastOptions()) -> Work | None:
        (tensor,) = tensors
        root, dense = opts.rootRank, tensor.contiguous()
        return self._start(
            opts,
            tensors,
            lambda comm, wait: comm.broadcast(dense, root, wait=wait),
            None if dense is tensor else lambda: _spread(dense.view(-1), [tensor]),
        )

    def reduce(self, tensors: Tensors, opts: Any = _c10d.ReduceOptions()) -> Work | None:
        (tensor,) = tensors
        op, root, dense = _operation(opts.reduceOp), opts.rootRank, tensor.contiguous()
        return self._start(
            opts,
            tensors,
            lambda comm, wait: comm.reduce(dense, root, op, wait=wait),
            None if dense is tensor else lambda: _spread(dense.view(-1), [tensor]),
        )

    def barrier(self, opts: Any = _c10d.BarrierOptions()) -> Work | None:
        return self._start(opts, [], lambda comm, wait: comm.barrier(wait=wait))

    # One tensor in, one out.

    def all_gather_single(
        self, output: torch.Tensor, input: torch.Tensor, opts: Any = _c10d.AllgatherOptions()
    ) -> Work | None:
        if output.dtype != input.dtype or output.numel() != input.numel() * self.comm.size:
            raise ValueError(
                f"all_gather: {input.numel()} elements of {input.dtype} from each of {self.comm.size} ranks do not make "
                f"{output.numel()} of {output.dtype}"
            )
        source, target = input.contiguous(), output.contiguous()
        return self._start(
            opts,
            [output],
            lambda comm, wait: comm.all_gather(source, out=target, wait=wait),
            None if target is output else lambda: _spread(target.view(-1), [output]),
        )

    def reduce_scatter_single(
        self, output: torch.Tensor, input: torch.Tensor, opts: Any = _c10d.ReduceScatterOptions()
    ) -> Work | None:
        if output.dtype != input.dtype or input.numel() != output.numel() * self.comm.size:
            raise ValueError(
                f"reduce_scatter: {input.numel()} elements of {input.dtype} are not {output.numel()} of {output.dtype} "
                f"for each of {self.comm.size} ranks"
            )
        op, source, target = _operation(opts.reduceOp), input.contiguous(), output.contiguous()
        return self._start(
            opts,
            [output],
            lambda comm, wait: comm.reduce_scatter(source, op, out=target, wait=wait),
            None if target is output else lambda: _spread(target.view(-1), [output]),
        )

    def all_to_all_single(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        output_split_sizes: list[int] | None = None,
        input_split_sizes: list[int] | None = None,
        opts: Any = _c10d.AllToAllOptions(),
    ) -> Work | None:
        source, target = input.contiguous(), output.contiguous()
        finish = None if target is output else lambda: _spread(target.view(-1), [output])
        if not output_split_sizes and not input_split_sizes:
            return self._start(
                opts, [output], lambda comm, wait: comm.all_to_all(source, out=target, wait=wait), finish
            )
        sent = _rows_as_counts(source, input_split_sizes, self.comm.size)
        received = _rows_as_counts(target, output_split_sizes, self.comm.size)
        return self._start(
            opts,
            [output],
            lambda comm, wait: comm.all_to_all_v(
                source.view(-1), sent, received, out=target.view(-1), wait=wait
            ),
            finish,
        )

    # Lists of tensors.

    def allgather(
        self, outputs: list[Tensors], inputs: Tensors, opts: Any = _c10d.AllgatherOptions()
    ) -> Work | None:
        if len(inputs) != 1:
            works = [self.allgather([out], [one], opts) for out, one in zip(outputs, inputs, strict=True)]
            return self._together(opts, [tensor for out in outputs for tensor in out], works)
        (targets,), (input,) = outputs, inputs
        counts = _counts(targets)
        source, flat = input.contiguous().view(-1), input.new_empty(sum(counts))

        def call(comm: Any, wait: bool) -> Any:
            if len(set(counts)) == 1:
                return comm.all_gather(source, out=flat, wait=wait)
            return comm.all_gather_v(source, counts, out=flat, wait=wait)

        return self._start(opts, targets, call, lambda: _spread(flat, targets))

    def allgather_coalesced(
        self, outputs: list[Tensors], inputs: Tensors, opts: Any = _c10d.AllgatherOptions()
    ) -> Work | None:
        """`outputs[rank][k]` gets the rank's `inputs[k]`."""
        per_input = [list(column) for column in zip(*outputs, strict=True)]
        works = [self.allgather([out], [one], opts) for out, one in zip(per_input, inputs, strict=True)]
        return self._together(opts, [tensor for out in outputs for tensor in out], works)

    def reduce_scatter(
        self, outputs: Tensors, inputs: list[Tensors], opts: Any = _c10d.ReduceScatterOptions()
    ) -> Work | None:
        if len(outputs) != 1:
            works = [self.reduce_scatter([out], [some], opts) for out, some in zip(outputs, inputs, strict=True)]
            return self._together(opts, outputs, works)
        (output,), (sources,) = outputs, inputs
        op, counts, flat = _operation(opts.reduceOp), _counts(sources), _flat(sources)
        target = output.contiguous()
        return self._start(
            opts,
            outputs,
            lambda comm, wait: comm.reduce_scatter_v(flat, counts, op, out=target.view(-1), wait=wait),
            None if target is output else lambda: _spread(target.view(-1), [output]),
        )

    def gather(
        self, outputs: list[Tensors], inputs: Tensors, opts: Any = _c10d.GatherOptions()
    ) -> Work | None:
        (input,) = inputs
        root, source = opts.rootRank, input.contiguous().view(-1)
        if self.comm.rank != root:
            return self._start(opts, [], lambda comm, wait: comm.gather_v(source, root, wait=wait))
        (targets,) = outputs
        counts = _counts(targets)
        flat = input.new_empty(sum(counts))
        return self._start(
            opts,
            targets,
            lambda comm, wait: comm.gather_v(source, root, counts, out=flat, wait=wait),
            lambda: _spread(flat, targets),
        )

    def scatter(
        self, outputs: Tensors, inputs: list[Tensors], opts: Any = _c10d.ScatterOptions()
    ) -> Work | None:
        (output,) = outputs
        root, target = opts.rootRank, output.contiguous()
        finish = None if target is output else lambda: _spread(target.view(-1), [output])
        flat, counts = None, None
        if self.comm.rank == root:
            (sources,) = inputs
            flat, counts = _flat(sources), _counts(sources)
        return self._start(
            opts,
            outputs,
            lambda comm, wait: comm.scatter_v(flat, root, counts, out=target.view(-1), wait=wait),
            finish,
        )

    def alltoall(
        self, outputs: Tensors, inputs: Tensors, opts: Any = _c10d.AllToAllOptions()
    ) -> Work | None:
        sent, received = _counts(inputs), _counts(outputs)
        source, flat = _flat(inputs), outputs[0].new_empty(sum(received))
        return self._start(
            opts,
            outputs,
            lambda comm, wait: comm.all_to_all_v(source, sent, received, out=flat, wait=wait),
            lambda: _spread(flat, outputs),
        )

    def all_gather_single_coalesced(
        self, outputs: Tensors, inputs: Tensors, opts: Any = _c10d.AllgatherOptions()
    ) -> Work | None:
        works = [self.all_gather_single(out, one, opts) for out, one in zip(outputs, inputs, strict=True)]
        return self._together(opts, outputs, works)

    def reduce_scatter_single_coalesced(
        self, outputs: Tensors, inputs: Tensors, opts: Any = _c10d.ReduceScatterOptions()
    ) -> Work | None:
        works = [self.reduce_scatter_single(out, one, opts) for out, one in zip(outputs, inputs, strict=True)]
        return self._together(opts, outputs, works)

    # From one rank to one other.

    def send(self, tensors: Tensors, dst: int, tag: int = 0) -> Work:
        (tensor,) = tensors
        return Work([self._transfers.send(tensor.contiguous(), dst, tag, self._timeout)], tensors)

    def recv(self, tensors: Tensors, src: int, tag: int = 0) -> Work:
        return self._recv(tensors, src, tag)

    def recv_anysource(self, tensors: Tensors, tag: int = 0) -> Work:
        return self._recv(tensors, None, tag)

    def _recv(self, tensors: Tensors, source: int | None, tag: int) -> Work:
        (tensor,) = tensors
        target = tensor.contiguous()
        transfer = self._transfers.recv(target, source, tag, self._timeout)
        finish = None if target is tensor else lambda: _spread(target.view(-1), [tensor])
        return Work([transfer], tensors, finish, lambda: -1 if transfer.source is None else transfer.source)

    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        """A barrier that names who did not come. Every barrier of the library's does."""
        comm = self.comm if timeout is None else self.comm.with_timeout(timeout.total_seconds())
        comm.barrier()

    # The names that older and other callers use.

    _allgather_base = all_gather_single
    _reduce_scatter_base = reduce_scatter_single
    alltoall_base = all_to_all_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    # Coalescing: what is started in between is one operation.

    def _start_coalescing(self, device: Any = None) -> None:
        self._coalesced = []

    def _end_coalescing(self, device: Any = None) -> Work:
        works, self._coalesced = self._coalesced or [], None
        return Work([_AsHandle(work) for work in works], [])

    # The end.

    def abort(self) -> None:
        self.comm.abort()

    def _leave(self) -> None:
        """This rank needs the others no more. Its threads end with what they wait for."""
        self._transfers.end()
        self.comm.leave()

    def getBackendName(self) -> str:
        return "unisono"


class _AsHandle:
    """A work of torch's, waited for as one of several."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def wait(self, timeout: float | None = None) -> Any:
        return self._work.wait(None if timeout is None else timedelta(seconds=timeout))

    def done(self) -> bool:
        return self._work.is_completed()


def _rows_as_counts(tensor: torch.Tensor, rows: list[int] | None, world: int) -> list[int]:
    """How many elements go to each rank, by rows of the first dimension; the same for each if nothing is said."""
    extent = tensor.shape[0] if tensor.dim() else 1
    if not rows:
        if extent % world:
            raise ValueError(f"all_to_all: {extent} rows cannot be divided among {world} ranks")
        rows = [extent // world] * world
    if len(rows) != world or sum(rows) != extent:
        raise ValueError(f"all_to_all: splits {rows} for {extent} rows and {world} ranks")
    each = tensor.numel() // extent if extent else 0
    return [count * each for count in rows]
