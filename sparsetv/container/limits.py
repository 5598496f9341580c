"""Limits of the format, each with its clause of formats/SPEC.md."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from sparsetv.errors import LimitError, UsageError

MANIFEST_BYTES = 1 << 26
"""SPEC 3.1: largest decompressed manifest."""

MANIFEST_DEPTH = 12
"""SPEC 3.1: deepest nesting of the manifest."""

TEXT_FREE = 1 << 20
"""SPEC 3.1: bytes of JSON that a frame of any length may hold."""

TEXT_RATIO = 128
"""SPEC 3.1: further bytes of JSON for each byte of the frame."""

NORM = 1e60
"""SPEC 3.5: largest norm of a tensor."""

CARRIED_BYTES = 1 << 40
"""SPEC 3.7: largest carried file."""

FRAME_BYTES = 1 << 48
"""SPEC 4.3: longest frame of a block."""

PROBE_SIDE = 1 << 24
"""SPEC 8.1: most inputs of a probe, and most outputs of one input."""

NAME_CHARS = 128
"""SPEC 6.2: longest task or file name."""

NAME_BYTES = 200
"""SPEC 6.2: longest task or file name in UTF-8."""

TENSOR_NAME_CHARS = 512
"""SPEC 6.1: longest tensor name."""

TENSORS = 1_000_000
"""SPEC 6.1: most tensors of a base."""

BLOCK_ENTRIES = 1 << 17
"""SPEC 4.4: kept entries at which a writer closes a block."""

SECTION_ENTRIES = 1 << 26
"""SPEC 4.4: entries of the scope after which a writer closes a block at the next tensor."""

BLOCK_ENTRIES_READ = (1 << 31) - 1
"""SPEC 4.4: most kept entries of a block that a reader accepts."""

WINDOW_BYTES = 1 << 27
"""SPEC 5.1: largest zstd window."""

DECODED_BYTES = 8 << 30
"""SPEC 5.2: default memory budget of a reader."""

JSON_BYTES = 64
"""SPEC 5.2: what each byte of header and manifest counts against the memory budget."""

ENTRY_BYTES = 64
"""What choosing, gathering and writing one kept entry may take, buffers apart."""

_memory: ContextVar[int] = ContextVar("sparsetv.memory", default=DECODED_BYTES)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader may spend.

    Attributes:
        decoded_bytes: Most bytes that decoding one file may allocate; what `memory_limit` says, else 8 GiB.
    """

    decoded_bytes: int = field(default_factory=_memory.get)

    def allow(self, need: int, *, what: str) -> None:
        """Raise LimitError where `need` bytes are more than may be spent."""
        if need > self.decoded_bytes:
            raise LimitError(
                f"{what}: decoding needs up to {need} bytes, limit {self.decoded_bytes}; raise the limit (--max-memory)"
            )


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Bound what sparsetv spends on task files inside the block, instead of 8 GiB.

    It holds for what a call has of all its task files at once: headers, manifests, kept entries, carried files. What is
    too large is refused before it is allocated. Models that are run, and checkpoints, which stay where they are and are
    read piece by piece, do not count. It holds in the thread that enters the block.

    Args:
        size: Bytes.

    Raises:
        UsageError: `size` is not above 0.
    """
    if size <= 0:
        raise UsageError(f"a memory limit of {size} bytes allows nothing; give more than 0")
    token = _memory.set(size)
    try:
        yield
    finally:
        _memory.reset(token)
