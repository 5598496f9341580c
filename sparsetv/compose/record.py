"""`sparsetv.json`: what a stitched directory is made of."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sparsetv import __version__
from sparsetv.checkpoint.locate import stays_inside
from sparsetv.container.names import check_component
from sparsetv.errors import FormatError, NotFoundError
from sparsetv.rules import RULES, Rule
from sparsetv.wire import canonical
from sparsetv.wire.fields import Fields, as_number, as_text
from sparsetv.wire.small import read_small

RECORD = "sparsetv.json"
ROOM = "sparsetv"
"""Folder of a stitched directory that holds the task files, the heads and what is needed to go back."""

MEMORY = "base.safetensors"
_FORMAT = "sparsetv-directory"
_VERSION = 1

RECORD_BYTES = 1 << 26
"""LIMITS 5: largest record."""

RECORD_DEPTH = 6
"""LIMITS 5: deepest nesting of a record."""


@dataclass(frozen=True, slots=True)
class Member:
    """One task of a stitched directory.

    Attributes:
        name, digest: Of the task.
        weight: The user's weight.
        policy, scale: How the scale was found, and the scale.
        file: Task file inside the room.
        factors: What single tensors are multiplied by before; only in records of policies that have them.
    """

    name: str
    digest: str
    weight: float
    policy: str
    scale: float
    file: str
    factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def coefficient(self) -> float:
        """What the task's deltas are multiplied by."""
        return self.weight * self.scale


@dataclass(frozen=True, slots=True)
class Record:
    """How a directory was stitched, and how to go back.

    Attributes:
        base: What the base was called, its hub repository and commit.
        rule: Name of the rule that combines tasks.
        min_tasks: Of the rule `consensus`; the record of another rule does not have it.
        scale: Scale policy that was asked for: a name or a number.
        members: Active tasks in canonical order.
        prefix: (from, to) from base names to the names in the weights.
        replaced: Base files that the task's own replaced; the originals lie in the room.
        added: Files that the base does not have.
        files: The base's other files, by relative path.
        base_digest: Digest over all tensors of the base (SPEC 7.1).
        memory_sha256: SHA-256 of the undo file.
    """

    base: str
    repo: str | None
    commit: str | None
    rule: str
    scale: str | float
    members: tuple[Member, ...]
    prefix: tuple[str, str]
    replaced: tuple[str, ...]
    added: tuple[str, ...]
    files: tuple[str, ...]
    base_digest: str
    memory_sha256: str
    min_tasks: int | None = None

    @property
    def combination(self) -> Rule:
        """The rule."""
        return Rule(self.rule) if self.min_tasks is None else Rule(self.rule, self.min_tasks)

    def to_bytes(self) -> bytes:
        """The record as indented JSON."""
        value = {"format": _FORMAT, "version": _VERSION, "sparsetv": __version__, **asdict(self)}
        if self.min_tasks is None:
            del value["min_tasks"]
        for member in value["members"]:
            if not member["factors"]:
                del member["factors"]
        return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def is_stitched(directory: Path) -> bool:
    """Whether a directory was written by `stitch`."""
    return (directory / RECORD).is_file()


def read_record(directory: Path) -> Record:
    """Read and check a stitched directory's record, and the undo file against it.

    Raises:
        NotFoundError: The directory was not written by `stitch`.
        FormatError: The record is broken, or the undo file is not the one it names.
    """
    check_stitched(directory)
    path, memory = directory / RECORD, directory / ROOM / MEMORY
    while True:
        content = read_small(path, most=RECORD_BYTES)
        fields = Fields(canonical.loads(content, what=str(path), depth=RECORD_DEPTH), where=str(path))
        if fields.text("format") != _FORMAT or fields.integer("version") > _VERSION:
            raise FormatError(f"{path}: not a {_FORMAT} of version {_VERSION}; update sparsetv")
        fields.text("sparsetv")
        record = _parse(fields)
        found = hashlib.sha256(memory.read_bytes()).hexdigest() if memory.is_file() else "no file"
        if found == record.memory_sha256:
            return record
        # A writer may have put another directory in place meanwhile: then look again.
        if read_small(path, most=RECORD_BYTES) == content:
            break
    raise FormatError(f"{memory}: is not the file that {RECORD} names ({found[:12]}…); stitch again from the base")


def check_stitched(directory: Path) -> None:
    """Raise NotFoundError where a directory was not written by `stitch`."""
    if not is_stitched(directory):
        raise NotFoundError(f"{directory}: no {RECORD}; only a directory that `sparsetv stitch` wrote has tasks")


def _parse(fields: Fields) -> Record:
    prefix = fields.texts("prefix")
    if len(prefix) != 2:
        raise FormatError(f"{fields.where}.prefix: expected two strings")
    record = Record(
        base=fields.text("base"),
        repo=fields.optional_text("repo"),
        commit=fields.optional_text("commit"),
        rule=_known_rule(fields),
        scale=_asked_scale(fields),
        members=tuple(_member(item, fields.where) for item in fields.items("members")),
        prefix=(prefix[0], prefix[1]),
        replaced=_components(fields, "replaced"),
        added=_components(fields, "added"),
        files=tuple(_inside(name, fields.where) for name in fields.texts("files")),
        base_digest=fields.digest("base_digest"),
        memory_sha256=fields.digest("memory_sha256"),
        min_tasks=_min_tasks(fields),
    )
    fields.done()
    return record


def _asked_scale(fields: Fields) -> str | float:
    scale, where = fields.take("scale"), f"{fields.where}.scale"
    return as_text(scale, where=where) if isinstance(scale, str) else _finite(scale, where)


def _finite(value: Any, where: str) -> float:
    """A finite number of either sign, as it stands."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise FormatError(f"{where}: expected a finite number, found {str(value)[:20]}")
    number: float = value
    return number


def _known_rule(fields: Fields) -> str:
    rule = fields.text("rule")
    if rule not in RULES:
        raise FormatError(f"{fields.where}: unknown rule {rule!r}; update sparsetv")
    return rule


def _min_tasks(fields: Fields) -> int | None:
    if not fields.has("min_tasks"):
        return None
    count = fields.integer("min_tasks")
    if count < 1:
        raise FormatError(f"{fields.where}.min_tasks: expected 1 or more, found {count}")
    return count


def _components(fields: Fields, key: str) -> tuple[str, ...]:
    return tuple(check_component(name, what="file name") for name in fields.texts(key))


def _inside(name: str, where: str) -> str:
    """A relative path that stays inside the directory."""
    if not stays_inside(name):
        raise FormatError(f"{where}: {name[:120]!r} leaves the directory, or is too long")
    return name


def _member(value: Any, where: str) -> Member:
    fields = Fields(value, where=f"{where}.members")
    weight, scale = (_finite(fields.take(key), f"{fields.where}.{key}") for key in ("weight", "scale"))
    member = Member(
        name=check_component(fields.text("name"), what="task name"),
        digest=fields.digest("digest"),
        weight=float(weight),
        policy=fields.text("policy"),
        scale=float(scale),
        file=check_component(fields.text("file"), what="file name"),
        factors=_factors(fields),
    )
    fields.done()
    return member


def _factors(fields: Fields) -> dict[str, float]:
    if not fields.has("factors"):
        return {}
    given = Fields(fields.take("factors"), where=f"{fields.where}.factors").rest()
    return {name: as_number(value, where=f"{fields.where}.factors") for name, value in given.items()}
