"""What the coverage-guided fuzzer runs: bytes to examine, bytes to begin with, and how to change bytes.

`task` and `manifest` change files and manifests themselves, with hashes repaired, so that what reached new lines is
changed further. The others read decisions from bytes: the mutators are those of the plain fuzzer.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from hostile import canonical, take_apart

from fuzz import seeds, task
from fuzz.json_changes import change_text
from fuzz.source import FromBytes
from fuzz.target import refused, require
from fuzz.targets import TARGETS
from sparsetv.container.limits import MANIFEST_DEPTH
from sparsetv.container.manifest_json import to_json
from sparsetv.container.manifest_parse import from_json
from sparsetv.errors import FormatError
from sparsetv.wire.canonical import dumps, loads

_DECISIONS, _BYTES = 64, 600


@dataclass(frozen=True, slots=True)
class Guided:
    """One target of the guided fuzzer.

    Attributes:
        examine: Raises where the bytes do what no bytes may do.
        corpus: Bytes to begin with.
        mutate: Other bytes; None where the fuzzer's own changes of bytes do.
    """

    examine: Callable[[bytes], object]
    corpus: Callable[[], tuple[bytes, ...]]
    mutate: Callable[[random.Random, bytes], bytes] | None = None


def examine_manifest(data: bytes) -> None:
    """A manifest's text: FormatError, or a manifest that is the same when it is written and read again."""
    try:
        value = loads(data, what="manifest", depth=MANIFEST_DEPTH)
        if dumps(value) != data:
            return
        manifest = from_json(value)
    except FormatError as error:
        refused(error)
        return
    again = from_json(loads(dumps(to_json(manifest)), what="manifest", depth=MANIFEST_DEPTH))
    require(again == manifest, "the manifest changes when it is written again")


def _change_manifest(source: random.Random, data: bytes) -> bytes:
    return canonical_or_not(change_text(source, data))


def canonical_or_not(data: bytes) -> bytes:
    """The canonical text of a value; the bytes themselves where they are none."""
    try:
        return dumps(loads(data, what="manifest", depth=100))
    except (FormatError, RecursionError):
        return data


def _manifests() -> tuple[bytes, ...]:
    return tuple(canonical(take_apart(data).manifest) for data in seeds.seeds())


def _decisions() -> tuple[bytes, ...]:
    return tuple(random.Random(seed).randbytes(_BYTES) for seed in range(_DECISIONS))


def _by_decisions(name: str) -> Guided:
    target = TARGETS[name]
    return Guided(lambda data: target.run(target.make(FromBytes(data))), _decisions)


GUIDED: dict[str, Guided] = {
    "task": Guided(task.TARGET.run, seeds.seeds, task.mutate),
    "manifest": Guided(examine_manifest, _manifests, _change_manifest),
    **{name: _by_decisions(name) for name in TARGETS if name != "task"},
}
