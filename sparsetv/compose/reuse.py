"""What a change of a stitched directory can take over from it as it is, instead of writing it again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparsetv.arrays import Bits, Positions
from sparsetv.compose.base import Base
from sparsetv.compose.directory import Stitched
from sparsetv.compose.mix import Active, Mix, mix
from sparsetv.compose.record import ROOM
from sparsetv.compose.weights import Piece, plan
from sparsetv.errors import FormatError, LimitError, NotFoundError
from sparsetv.fingerprint import TensorIdentity


@dataclass(frozen=True, slots=True)
class Reuse:
    """Files of a stitched directory that stay, and what is known of the tensors in them.

    Attributes:
        shards: Weight files that would come out the same, by name.
        saved: Positions and the base's bits there, per tensor in those files that a task touches.
        identities: The base's tensors in those files.
        tasks: Task files by digest.
    """

    shards: Mapping[str, Path] = field(default_factory=dict)
    saved: Mapping[str, tuple[Positions, Bits]] = field(default_factory=dict)
    identities: Mapping[str, TensorIdentity] = field(default_factory=dict)
    tasks: Mapping[str, Path] = field(default_factory=dict)


def find_reuse(stitched: Stitched, base: Base, staying: Sequence[Active], new: Mix) -> Reuse:
    """What stays when the tasks of a stitched directory change.

    Args:
        stitched: The directory.
        base: The base that it holds.
        staying: Tasks that are on it and stay, as they are on it now.
        new: Tasks that shall be on it; the same rule.
    """
    room = stitched.path / ROOM / "tasks"
    tasks = {member.digest: room / member.file for member in stitched.record.members}
    identities, old = stitched.memory.identities(), _before(stitched, staying)
    if identities is None or old is None:
        return Reuse(tasks=tasks)
    before, after = plan(base, old), plan(base, new)
    shards = {
        name: stitched.path / name
        for name in after
        if name in before and _same(before[name], after[name]) and not _touched(before[name], old, new)
    }
    names = [name for shard in shards for name in base.shards[shard].tensors]
    return Reuse(
        shards=shards,
        saved={name: pair for name in names if (pair := stitched.memory.saved(name)) is not None},
        identities={name: identities[name] for name in names},
        tasks=tasks,
    )


def _before(stitched: Stitched, staying: Sequence[Active]) -> Mix | None:
    """What is on a directory now; None where a task that goes is broken, which must not keep it there."""
    record, known = stitched.record, {item.task.name: item for item in staying}
    going = [member for member in record.members if member.name not in known]
    try:
        gone = stitched.active(going, held=[item.task for item in staying])
    except (FormatError, LimitError, NotFoundError):
        return None
    known |= {item.task.name: item for item in gone}
    active = [known[member.name] for member in record.members]
    digests = {member.name: member.digest for member in record.members}
    return mix(active, rule=record.combination, scale=record.scale, digests=digests)


def _same(before: list[Piece], after: list[Piece]) -> bool:
    """Whether two plans of a weight file are one."""
    return len(before) == len(after) and all(
        (one.name, one.dtype, one.shape, one.base) == (two.name, two.dtype, two.shape, two.base)
        and (one.extra is None) == (two.extra is None)
        and (one.extra is None or two.extra is None or np.array_equal(one.extra, two.extra))
        for one, two in zip(before, after, strict=True)
    )


def _touched(pieces: list[Piece], old: Mix, new: Mix) -> bool:
    """Whether a tensor of a weight file has other tasks, or the same at other coefficients, than before."""
    return any(old.terms(piece.base) != new.terms(piece.base) for piece in pieces if piece.base)
