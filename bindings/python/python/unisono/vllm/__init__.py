"""vLLM's message queue, over the library's: `from unisono.vllm import MessageQueue`.

`MessageQueue`, `Handle` and `ShmRingBuffer` have the names, arguments and behaviour of vLLM's
`vllm.distributed.device_communicators.shm_broadcast`; `unisono.vllm.shm_broadcast` stands in for that module as a whole.
docs/vllm.md says what is the same, what is better, and what is left out.
"""

from __future__ import annotations

from .shm_broadcast import Handle, MessageQueue, ShmRingBuffer

__all__ = ["Handle", "MessageQueue", "ShmRingBuffer"]
