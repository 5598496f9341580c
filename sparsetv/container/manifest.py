"""The manifest as values: what the file holds, and how its streams are cut (SPEC 3 and 4)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sparsetv.fingerprint import Fingerprint
from sparsetv.task_vector import Budget, FineTuned, Norms, Recipe

VERSION = "1.1"
"""The newest version that this program writes and knows."""

OLDEST = "1.0"
"""What is written where nothing newer is used, so that old readers go on reading."""

MAJOR = 1

FEATURES = ("cells", "levels", "seeded")
"""Codecs that came after 1.0; a file names those that it uses (SPEC 9.2)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of whole rows of one tensor: index in the scope, first row, number of rows, kept entries."""

    tensor: int
    first_row: int
    rows: int
    nnz: int


@dataclass(frozen=True, slots=True)
class Stream:
    """One codec's frames in a block: compressed lengths (0 for an empty stream) and the codec's parameters."""

    codec: str
    frames: tuple[int, ...]
    parameters: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return sum(self.frames)


@dataclass(frozen=True, slots=True)
class Block:
    """A run of pieces that is coded together."""

    pieces: tuple[Piece, ...]
    positions: Stream
    values: Stream

    @property
    def nnz(self) -> int:
        """Kept entries of the block."""
        return sum(piece.nnz for piece in self.pieces)


def codecs_of(blocks: Iterable[Block]) -> set[str]:
    """Codecs of the streams of some blocks."""
    return {stream.codec for block in blocks for stream in (block.positions, block.values)}


@dataclass(frozen=True, slots=True)
class ExtraEntry:
    """A carried tensor without its bytes (SPEC 3.6)."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    source: str


@dataclass(frozen=True, slots=True)
class ProbeEntry:
    """The probe without its outputs (SPEC 8)."""

    kind: str
    seed: int
    count: int
    width: int
    params: Mapping[str, int | float | str]
    recorded: str
    scale: float
    distance: float


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A carried file: name and size in bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a file says about itself; `scope` holds indices into `base.names`."""

    name: str
    digest: str
    payload_sha256: str
    base: Fingerprint
    scope: tuple[int, ...]
    norms: tuple[Norms, ...]
    blocks: tuple[Block, ...]
    extras: tuple[ExtraEntry, ...]
    files: tuple[FileEntry, ...]
    finetuned: FineTuned
    recipe: Recipe
    probe: ProbeEntry | None
    writer: str
    budget: Budget | None = None
    version: str = OLDEST
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def codecs(self) -> set[str]:
        """Codecs of all its streams."""
        return codecs_of(self.blocks)

    @property
    def nnz(self) -> int:
        """Kept entries of the file."""
        return sum(block.nnz for block in self.blocks)
