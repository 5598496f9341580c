"""Writing merged weights: shards as in the base, tensor by tensor, chunk by chunk."""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from sparsetv import atomic
from sparsetv.arrays import Bytes
from sparsetv.checkpoint.locate import INDEX_NAME
from sparsetv.checkpoint.reading import CHUNK_BYTES
from sparsetv.compose.base import Base, ShardLayout
from sparsetv.compose.combine import Patch
from sparsetv.compose.mix import Mix
from sparsetv.dtypes import SIZES, bits_dtype, cast
from sparsetv.errors import FormatError
from sparsetv.task_vector import Extra, FineTuned
from sparsetv.wire.header import Entry, encode_header, place

Patches = Callable[[str], Patch | None]
"""Gives what changes in a base tensor; None where nothing does."""

Progress = Callable[[int], None]


class Carrier(Protocol):
    """What of a task says how its model differs from the base's beside the kept entries."""

    @property
    def name(self) -> str:
        """Name of the task."""

    @property
    def extras(self) -> Mapping[str, Extra]:
        """Tensors that the base lacks, by the fine-tune's name."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """Files of the fine-tune's directory that travel, by name."""

    @property
    def finetuned(self) -> FineTuned:
        """Names, and base tensors that the fine-tune lacks."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor of a written shard: its name, dtype, shape and where its bytes come from, in order.

    Attributes:
        base: Base tensor that comes first, patched; empty for none.
        extra: Bytes that follow.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    base: str = ""
    extra: Bytes | None = None


def plan(base: Base, chosen: Mix) -> dict[str, list[Piece]]:
    """What each weight file holds once tasks are on a base: the one task's model, or the base's."""
    if chosen.single is not None:
        return plan_as_task(base, chosen.single)
    return {name: plan_as_base(shard) for name, shard in base.shards.items()}


def plan_as_base(shard: ShardLayout) -> list[Piece]:
    """The tensors of a shard as they are in the base."""
    return [Piece(name, entry.dtype, entry.shape, base=name) for name, entry in shard.tensors.items()]


def plan_as_task(base: Base, task: Carrier) -> dict[str, list[Piece]]:
    """Shards that hold the fine-tune's tensors under the fine-tune's names.

    Base tensors that the fine-tune lacks are left out, added rows are appended, what the base lacks goes into the last
    shard.
    """
    own = {task.finetuned.model_name(name): extra for name, extra in task.extras.items()}
    missing = set(task.finetuned.missing)
    plans: dict[str, list[Piece]] = {}
    for shard_name, shard in base.shards.items():
        kept = [(name, entry) for name, entry in shard.tensors.items() if name not in missing]
        plans[shard_name] = [_renamed(task, own, name, entry) for name, entry in kept]
    last = plans[max(plans)]
    by_name = {piece.name: piece for pieces in plans.values() for piece in pieces}
    last += [_added(by_name, task, name, extra) for name, extra in sorted(own.items()) if name not in by_name]
    return {name: sorted(pieces, key=lambda piece: -SIZES[piece.dtype]) for name, pieces in plans.items()}


def _renamed(task: Carrier, own: Mapping[str, Extra], name: str, entry: Entry) -> Piece:
    """A base tensor under the fine-tune's name, as the fine-tune has it: whole, with added rows, or replaced."""
    old, new = task.finetuned.model_prefix
    target = new + name.removeprefix(old)
    carried = own.get(target)
    if carried is not None and carried.kind == "tensor":
        return Piece(target, carried.dtype, carried.shape, extra=carried.data)
    if carried is not None and carried.kind == "rows" and carried.source == name:
        shape = (entry.shape[0] + carried.shape[0], *entry.shape[1:])
        return Piece(target, entry.dtype, shape, base=name, extra=_cast_rows(carried, entry.dtype))
    return Piece(target, entry.dtype, entry.shape, base=name)


def _cast_rows(rows: Extra, dtype: str) -> Bytes:
    bits = np.frombuffer(rows.data.tobytes(), bits_dtype(rows.dtype))
    return cast(bits, rows.dtype, dtype).view(np.uint8)


def _added(by_name: Mapping[str, Piece], task: Carrier, name: str, extra: Extra) -> Piece:
    if extra.kind == "alias":
        source = task.finetuned.model_name(extra.source)
        if source not in by_name:
            raise FormatError(f"{name}: alias of {extra.source}, which the task's model does not have")
        piece = replace(by_name[source], name=name)
        if piece.shape != extra.shape:
            raise FormatError(f"{name}: alias of {extra.source}, which has another shape")
        return piece
    return Piece(name, extra.dtype, extra.shape, extra=extra.data)


def write_shards(
    directory: Path,
    base: Base,
    plans: Mapping[str, list[Piece]],
    patches: Patches,
    *,
    stays: Mapping[str, Path],
    progress: Progress | None,
) -> None:
    """Write every shard, and the index where the base has several.

    A shard whose tensors are those of the base keeps the base's header, byte for byte. Shards of `stays` are linked
    from where they lie.
    """
    for shard_name, pieces in plans.items():
        if shard_name in stays:
            (directory / shard_name).parent.mkdir(parents=True, exist_ok=True)
            atomic.link_or_copy(stays[shard_name], directory / shard_name)
            continue
        layout = base.shards[shard_name]
        parts = _ahead(_parts(base, layout, pieces, patches))
        path = directory / shard_name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_new_file(path, _counted(parts, progress))
    index = _index(base, plans)
    if index is not None:
        atomic.write_new_file(directory / INDEX_NAME, [index])


def _index(base: Base, plans: Mapping[str, list[Piece]]) -> bytes | None:
    """The shard index: the base's own where every tensor has its name and place, else a new one."""
    weight_map = {piece.name: shard for shard, pieces in plans.items() for piece in pieces}
    as_base = {name: shard_name for shard_name, shard in base.shards.items() for name in shard.tensors}
    if weight_map == as_base:
        return base.index
    if set(plans) == {"model.safetensors"}:
        return None
    total = sum(_size(piece) for pieces in plans.values() for piece in pieces)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(index, indent=2) + "\n").encode()


def _size(piece: Piece) -> int:
    return SIZES[piece.dtype] * int(np.prod(piece.shape, dtype=np.int64))


def _parts(base: Base, layout: ShardLayout, pieces: list[Piece], patches: Patches) -> Iterator[atomic.Part]:
    unchanged = [(piece.name, piece.dtype, piece.shape) for piece in pieces if piece.extra is None]
    as_base = [(name, entry.dtype, entry.shape) for name, entry in layout.tensors.items()]
    if unchanged == as_base and len(pieces) == len(as_base):
        yield layout.header_bytes
    else:
        stored = place((piece.name, piece.dtype, piece.shape) for piece in pieces)
        yield encode_header(stored, dict(layout.metadata) or {"format": "pt"})
    for piece in pieces:
        if piece.base:
            yield from _base_parts(base, piece, patches(piece.base))
        if piece.extra is not None:
            yield piece.extra


def _base_parts(base: Base, piece: Piece, patch: Patch | None) -> Iterator[atomic.Part]:
    """A base tensor with its patch, copied from where it stands: what is not the base's there, then the patch."""
    standing = base.stands(piece.base)
    over = [(standing.positions, standing.bits)]
    if patch is not None:
        over.append((patch.positions, patch.after))
    yield atomic.CopiedRange(standing.path, standing.start, len(standing.data), over)


def patched(raw: Bytes, dtype: str, patch: Patch | None) -> Iterator[Bytes]:
    """The bytes of a tensor with a patch applied, chunk by chunk."""
    if patch is None:
        yield raw
        return
    width = SIZES[dtype]
    step = CHUNK_BYTES // width
    bounds = np.searchsorted(patch.positions, np.arange(0, len(raw) // width + step, step))
    for number, start in enumerate(range(0, len(raw) // width, step)):
        chunk = np.frombuffer(bytearray(raw[start * width : (start + step) * width]), bits_dtype(dtype))
        first, last = bounds[number], bounds[number + 1]
        chunk[patch.positions[first:last] - start] = patch.after[first:last]
        yield chunk.view(np.uint8)


def _ahead(parts: Iterator[atomic.Part]) -> Iterator[atomic.Part]:
    """The same parts, each made in a thread while the one before is written."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, parts, None)
        while (part := coming.result()) is not None:
            coming = pool.submit(next, parts, None)
            yield part


def _counted(parts: Iterator[atomic.Part], progress: Progress | None) -> Iterator[atomic.Part]:
    for part in parts:
        yield part
        if progress is not None:
            progress(len(part))
