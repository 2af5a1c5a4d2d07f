import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, Self, TypeVar, final, overload

from ._errors import PeerStatus
from ._queue_errors import ReaderStatus

# A torch tensor on the host, a numpy array, or anything with the buffer protocol or DLPack; contiguous.
_T = TypeVar("_T")
_R_co = TypeVar("_R_co", covariant=True)

__version__: str

@final
class Work(Generic[_R_co]):
    """An operation that was started. It holds its tensors until it is over; nobody may touch them meanwhile."""

    def wait(self, timeout: float | None = None) -> _R_co:
        """Wait for its end; gives what the operation returns. `Busy` if it is not over within `timeout` seconds: it goes on."""

    def done(self) -> bool:
        """Whether it is over, so that `wait` returns at once."""

@final
class RegisteredBuffer:
    """A rank's piece of registered memory, as writable bytes with the buffer protocol."""

    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Communicator:
    """A rank's handle on its group.

    Every rank makes the same collective calls in the same order. Tensors are contiguous and on the host. An operation whose
    result has the shape of its input works in place, unless it is given an `out`; others return a new tensor of the same
    kind, unless they are given one. `op` is the name of a `ReduceOp`. Ranks' blocks lie one after the other along the
    first dimension; `counts` are rows of it.

    With `wait=False` an operation is started and a `Work` returned at once. Operations are carried out in the order in
    which they were started; a call that waits comes after them.

    A communicator may be used from several threads. It does not survive fork. Used as a context manager it is closed at the
    end, or, after an exception, aborted.
    """

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def size(self) -> int:
        """The same as `world_size`."""
    @property
    def name(self) -> str:
        """What the group is called in messages."""
    @property
    def window_bytes(self) -> int:
        """What lies between a rank that sends and one that receives: a send of up to this size returns at once."""
    @property
    def timeout(self) -> float:
        """How long an operation on this handle may wait, in seconds; `inf` is for ever."""
    def with_timeout(self, timeout: float) -> Communicator:
        """A handle on the same group whose operations may wait this long."""
    def peers(self) -> list[PeerStatus]:
        """What each rank is and last did, as far as this rank can see."""
    def empty(self, shape: int | Sequence[int], dtype: Any = None) -> Any:
        """A tensor over registered memory, zeroed: torch's if `dtype` is a `torch.dtype`, else numpy's. A collective call.

        An all_reduce, reduce or broadcast in place on it, or on a contiguous part of it, needs no staging: large ones are
        faster. All ranks pass the same part. The memory must not be touched in a forked child.
        """
    def allocate(self, count: int, dtype: str) -> RegisteredBuffer:
        """Registered memory for `count` elements of the type with this name: what `empty` makes its tensors over."""
    @overload
    def all_reduce(self, tensor: _T, op: str = "sum", *, out: None = None, wait: Literal[True] = True) -> _T: ...
    @overload
    def all_reduce(self, tensor: Any, op: str = "sum", *, out: _T, wait: Literal[True] = True) -> _T: ...
    @overload
    def all_reduce(self, tensor: Any, op: str = "sum", *, out: Any = None, wait: Literal[False]) -> Work[Any]: ...
    @overload
    def reduce(
        self, tensor: _T, root: int, op: str = "sum", *, out: _T | None = None, wait: Literal[True] = True
    ) -> _T: ...
    @overload
    def reduce(
        self, tensor: Any, root: int, op: str = "sum", *, out: Any = None, wait: Literal[False]
    ) -> Work[Any]: ...
    @overload
    def broadcast(self, tensor: _T, root: int, *, wait: Literal[True] = True) -> _T: ...
    @overload
    def broadcast(self, tensor: _T, root: int, *, wait: Literal[False]) -> Work[_T]: ...
    @overload
    def reduce_scatter(
        self, tensor: _T, op: str = "sum", *, out: _T | None = None, wait: Literal[True] = True
    ) -> _T: ...
    @overload
    def reduce_scatter(
        self, tensor: Any, op: str = "sum", *, out: Any = None, wait: Literal[False]
    ) -> Work[Any]: ...
    @overload
    def all_gather(
        self, tensor: _T, *, dim: int = 0, out: _T | None = None, wait: Literal[True] = True
    ) -> _T: ...
    @overload
    def all_gather(
        self, tensor: Any, *, dim: int = 0, out: Any = None, wait: Literal[False]
    ) -> Work[Any]: ...
    @overload
    def gather(
        self, tensor: _T, root: int, *, out: _T | None = None, wait: Literal[True] = True
    ) -> _T | None:
        """At the root the blocks of all ranks; elsewhere `None`."""
    @overload
    def gather(self, tensor: Any, root: int, *, out: Any = None, wait: Literal[False]) -> Work[Any]: ...
    @overload
    def scatter(
        self, tensor: _T | None, root: int, *, out: _T | None = None, wait: Literal[True] = True
    ) -> _T:
        """This rank's block of the root's tensor. Every rank but the root passes an `out`."""
    @overload
    def scatter(self, tensor: Any, root: int, *, out: Any = None, wait: Literal[False]) -> Work[Any]: ...
    @overload
    def all_to_all(self, tensor: _T, *, out: _T | None = None, wait: Literal[True] = True) -> _T: ...
    @overload
    def all_to_all(self, tensor: Any, *, out: Any = None, wait: Literal[False]) -> Work[Any]: ...
    @overload
    def all_gather_v(
        self, tensor: _T, counts: Sequence[int], *, out: _T | None = None, wait: Literal[True] = True
    ) -> _T: ...
    @overload
    def all_gather_v(
        self, tensor: Any, counts: Sequence[int], *, out: Any = None, wait: Literal[False]
    ) -> Work[Any]: ...
    @overload
    def reduce_scatter_v(
        self,
        tensor: _T,
        counts: Sequence[int],
        op: str = "sum",
        *,
        out: _T | None = None,
        wait: Literal[True] = True,
    ) -> _T: ...
    @overload
    def reduce_scatter_v(
        self, tensor: Any, counts: Sequence[int], op: str = "sum", *, out: Any = None, wait: Literal[False]
    ) -> Work[Any]: ...
    @overload
    def all_to_all_v(
        self,
        tensor: _T,
        send_counts: Sequence[int],
        recv_counts: Sequence[int],
        *,
        out: _T | None = None,
        wait: Literal[True] = True,
    ) -> _T: ...
    @overload
    def all_to_all_v(
        self,
        tensor: Any,
        send_counts: Sequence[int],
        recv_counts: Sequence[int],
        *,
        out: Any = None,
        wait: Literal[False],
    ) -> Work[Any]: ...
    @overload
    def gather_v(
        self,
        tensor: _T,
        root: int,
        counts: Sequence[int] | None = None,
        *,
        out: _T | None = None,
        wait: Literal[True] = True,
    ) -> _T | None:
        """As `gather`; the counts matter at the root."""
    @overload
    def gather_v(
        self,
        tensor: Any,
        root: int,
        counts: Sequence[int] | None = None,
        *,
        out: Any = None,
        wait: Literal[False],
    ) -> Work[Any]: ...
    @overload
    def scatter_v(
        self,
        tensor: _T | None,
        root: int,
        counts: Sequence[int] | None = None,
        *,
        out: _T | None = None,
        wait: Literal[True] = True,
    ) -> _T:
        """As `scatter`; the counts matter at the root."""
    @overload
    def scatter_v(
        self,
        tensor: Any,
        root: int,
        counts: Sequence[int] | None = None,
        *,
        out: Any = None,
        wait: Literal[False],
    ) -> Work[Any]: ...
    @overload
    def barrier(self, *, wait: Literal[True] = True) -> None:
        """Nobody leaves before all have come."""
    @overload
    def barrier(self, *, wait: Literal[False]) -> Work[None]: ...
    def send(self, tensor: Any, to: int) -> None:
        """Returns once the data is on its way; what is larger than the window waits for the receiver."""
    def recv(self, tensor: _T, source: int) -> _T: ...
    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """Form sub-groups of the ranks that pass the same color, in the order of `key`, then rank; `None`: in none of them."""
    def abort(self) -> None:
        """Stop the group, from any thread: every operation on every rank ends with `Aborted`."""
    def close(self, timeout: float = 60.0) -> None:
        """Leave together. Dropping the last handle instead leaves at once, and alone."""
    def leave(self) -> None:
        """Leave at once, and alone: a rank that still needs this one gets `PeerLeft`."""
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: object, _value: object, _traceback: object) -> None: ...

def init(
    *,
    rank: int | None = None,
    world_size: int | None = None,
    address: str | None = None,
    port: int | None = None,
    group: str | None = None,
    run_id: str | None = None,
    timeout: float | None = None,
    rendezvous_timeout: float | None = None,
    threads: int | None = None,
    exchange: Callable[[bytes], Sequence[bytes]] | None = None,
) -> Communicator: ...
def in_process(world_size: int) -> list[Communicator]: ...
def fold(tensors: Sequence[Any], op: str, out: Any) -> None:
    """Fold tensors of this process, in their order, into `out`, which may be one of them, as a reduction over ranks does."""

def end_started(seconds: float) -> None: ...
def collect_records() -> None: ...
def next_record(seconds: float) -> tuple[int, str] | None: ...

_Described = tuple[int, int, int, str, bool, int]

@final
class GpuGraph: ...

def gpu_meta_size(rocm: bool = False) -> int: ...
def gpu_init_custom_ar(
    device: int, ipc_tensors: Sequence[int], rank_data: _Described, rank: int, full_nvlink: bool
) -> int: ...
def gpu_init_custom_ar_rocm(
    device: int, meta: _Described, rank_data: _Described,
    handles: Sequence[bytes], offsets: Sequence[int], rank: int, full_nvlink: bool,
) -> int: ...
def gpu_all_reduce(
    fa: int, inp: _Described, out: _Described, reg_buffer: int, reg_buffer_sz_bytes: int, stream: int
) -> None: ...
def gpu_all_reduce_unreg(
    fa: int, inp: _Described, reg_buffer: _Described, out: _Described, stream: int
) -> None: ...
def gpu_register_buffer(fa: int, fake_ipc_ptrs: Sequence[int]) -> None: ...
def gpu_register_buffer_rocm(
    fa: int, t: _Described, handles: Sequence[bytes], offsets: Sequence[int]
) -> None: ...
def gpu_get_graph_buffer_ipc_meta(fa: int) -> tuple[bytes, list[int]]: ...
def gpu_register_graph_buffers(fa: int, handles: Sequence[bytes], offsets: Sequence[Sequence[int]]) -> None: ...
def gpu_dispose(fa: int) -> None: ...
def gpu_check(fa: int) -> None: ...
def gpu_set_patience(fa: int, seconds: float) -> None: ...
def gpu_platform(device: int) -> str: ...
def gpu_allocate(device: int, size: int, uncached: bool) -> int: ...
def gpu_free(device: int, address: int) -> None: ...
def gpu_export(device: int, address: int) -> bytes: ...
def gpu_open(device: int, handle: bytes) -> int: ...
def gpu_close(device: int, address: int) -> None: ...
def gpu_identity(device: int) -> str: ...
def gpu_is_direct(device: int, identities: Sequence[str]) -> bool: ...
def gpu_synchronize(device: int, stream: int) -> None: ...
def gpu_begin_capture(device: int) -> None: ...
def gpu_end_capture(device: int) -> GpuGraph: ...
def gpu_replay(device: int, graph: GpuGraph) -> None: ...
def gpu_init_custom_qr(device: int, rank: int, world_size: int, qr_max_size: int | None) -> int: ...
def gpu_qr_get_handle(fa: int) -> bytes: ...
def gpu_qr_open_handles(fa: int, handles: Sequence[bytes]) -> None: ...
def gpu_qr_all_reduce(
    fa: int, inp: _Described, out: _Described, quant_level: int, cast_bf2half: bool, stream: int
) -> None: ...
def gpu_qr_check(fa: int) -> None: ...
def gpu_qr_destroy(fa: int) -> None: ...
def gpu_qr_max_size() -> int: ...
def gpu_mscclpp_generate_unique_id() -> bytes: ...
def gpu_mscclpp_init_context(
    device: int,
    unique_id: bytes,
    rank: int,
    world_size: int,
    scratch: _Described,
    put_buffer: _Described,
    nranks_per_node: int,
    rank_to_node: Sequence[int],
    context_selection: int,
) -> int: ...
def gpu_mscclpp_allreduce(
    context: int, inp: _Described, out: _Described, nthreads: int, nblocks: int, stream: int
) -> None: ...
def gpu_mscclpp_check(context: int) -> None: ...
def gpu_mscclpp_dispose(context: int) -> None: ...
def shm_schemas() -> list[tuple[str, str]]:
    """Every shared-memory operator, as its name and its schema."""

def shm_register(library: str, define: Sequence[str], implement: Sequence[str]) -> None:
    """Define and implement shared-memory operators in a library of torch's."""

def shm_adopt(comm: Communicator, default: bool) -> int:
    """Make a communicator a group that operators know by the handle that this gives."""

def shm_release(handle: int) -> bool:
    """Forget a group."""

def take_failure(text: str) -> BaseException | None:
    """The exception that a kernel of this thread meant by this text, once."""

def caller(operator: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls a compiled operator of torch's, and raises what its kernel meant."""

@final
class QueueHandle:
    """What a reader finds its queue's writer with. Picklable; with readers elsewhere it holds their key."""

    def __new__(cls, data: bytes) -> Self: ...
    def to_bytes(self) -> bytes: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]
    @property
    def name(self) -> str:
        """A short name of the queue, for messages."""
    @property
    def nonce(self) -> bytes:
        """What tells this queue from every other."""
    @property
    def writer_rank(self) -> int: ...
    @property
    def local_ranks(self) -> list[int]: ...
    @property
    def remote_ranks(self) -> list[int]: ...
    @property
    def remote_address(self) -> tuple[str, int] | None:
        """The ip and port at which readers elsewhere find the writer."""
    @property
    def remote_key(self) -> bytes | None:
        """What both sides sign with: for readers that are not of this library."""

@final
class QueueWriter:
    """The side of a queue that writes. Dropped, it says goodbye; readers still get everything that was sent.

    - `reader_ranks`, `remote_ranks`: who may read, in this machine's memory and over tcp; `connect_ip` is this machine's address for
      the latter. `rank` is the writer's own, for messages.
    - `ring_bytes`: the ring's length, 4 MiB by default. A message of more than `max_chunk_bytes`, by default and at most a quarter of
      the ring, has memory of its own. At most `max_chunks` messages are unread by anybody before sending waits.
    - `when_gone`: what becomes of the queue when a reader is: `"fail"`, `"go_on"` without it, or `"await_return"`.
    - `directory`: listen at a socket file there, too, for readers in other network namespaces.

    Time-outs are seconds; `None` is for ever, 0 does not wait. A `QueueTimeout` names those who are too far behind. It may be used
    from several threads, one call at a time.
    """

    def __new__(
        cls,
        reader_ranks: Sequence[int],
        *,
        remote_ranks: Sequence[int] | None = None,
        rank: int = 0,
        ring_bytes: int | None = None,
        max_chunks: int | None = None,
        max_chunk_bytes: int | None = None,
        when_gone: Literal["fail", "go_on", "await_return"] = "fail",
        connect_ip: str | None = None,
        directory: str | None = None,
    ) -> Self: ...
    @property
    def handle(self) -> QueueHandle: ...
    @property
    def messages(self) -> int:
        """How many messages have been sent."""
    def readers(self) -> list[ReaderStatus]:
        """What is known of every reader."""
    def wait_until_ready(self, timeout: float | None = None) -> None: ...
    def send(self, data: Any, timeout: float | None = None) -> None:
        """Send a copy of the bytes of `data`, anything contiguous with the buffer protocol."""
    def send_pickled(self, pickled: Pickled, chunk_bytes: int, timeout: float | None = None) -> None:
        """Send what was pickled; it stays in `pickled` until that is cleared. From `chunk_bytes` on the message is marked."""
    def reserve(self, size: int, timeout: float | None = None) -> QueueSlot:
        """Room for a message of `size` bytes, to be filled in place. Until it is committed or discarded there is no other call."""
    def cancel(self) -> None:
        """End the wait that is under way with `QueueCancelled`, from another thread."""
    def shut_down(self) -> None:
        """End every wait of this side with `QueueShutDown`, now and from now on, from any thread."""
    def close(self) -> None: ...

@final
class QueueSlot:
    """Room for one message, with the buffer protocol. Dropped, it never was. What is not written is whatever stood there."""

    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

    def view(self) -> memoryview:
        """Its bytes, to be written."""
    def commit(self) -> None:
        """Send it. `BufferError` while there are views of it."""
    def discard(self) -> None: ...

@final
class QueueReader:
    """The side of a queue that reads; `timeout` is how long the writer may take to let it in, 30 s by default. Dropped, it leaves.

    Time-outs are as a writer's. What was sent before the writer left or died is received before that is told.
    """

    def __new__(cls, handle: QueueHandle, rank: int, *, timeout: float | None = None) -> Self: ...
    @property
    def rank(self) -> int: ...
    @property
    def next_number(self) -> int:
        """The number of the message after the last one that was received; 0 before the first."""
    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Wait until every reader of the queue has come."""
    def recv(self, timeout: float | None = None) -> QueueMessage:
        """The next message, where it lies. Until it is released or kept there is no other call."""
    def recv_bytes(self, timeout: float | None = None) -> bytes: ...
    def recv_pickled(self, timeout: float | None = None) -> bytes | QueueMessage:
        """The next message of `send_pickled`: a copy of its only part, if that is short; otherwise the message."""
    def cancel(self) -> None: ...
    def shut_down(self) -> None: ...
    def close(self) -> None: ...

@final
class QueueMessage:
    """A message where it lies, with the buffer protocol, for reading. Dropped, it is taken, and its room goes back to the writer.

    It lives as long as there are views of it.
    """

    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

    @property
    def number(self) -> int:
        """The same for every reader; the queue's first message is 0."""
    def view(self) -> memoryview:
        """Its bytes, to be read."""
    def to_bytes(self) -> bytes: ...
    def parts(self) -> tuple[bool, memoryview, list[bytearray]]:
        """Of `send_pickled`: whether it is marked, the pickle where it lies, and copies of the buffers beside it."""
    def release(self) -> None:
        """Take it. `BufferError` while there are views of it."""
    def keep(self) -> None:
        """Do not take it: it stays the next message."""

@final
class Pickled:
    """A pickler's file, and its `buffer_callback`: buffers of a MiB and more are left beside the pickle."""

    def __new__(cls) -> Self: ...
    def write(self, data: Any) -> int: ...
    def __call__(self, buffer: Any) -> bool: ...
    def clear(self) -> None: ...

@final
class SharedMemory:
    """Named shared memory, with the buffer protocol: made with a `size`, opened without. The name stays until it is unlinked."""

    def __new__(cls, name: str, size: int | None = None) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def buf(self) -> memoryview: ...
    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

    def unlink(self) -> None: ...

def check_headroom(what: str, size: int) -> None: ...
