"""The valid golden masks, each with its scope and what it keeps."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from golden_writer.masks import Shapes, Stored, as_sparsetv_writes, boolean, marked, positions, seal

SCOPE: Shapes = {"a.weight": [3, 4], "b.bias": [5], "c": []}
"""The scope that most masks are read for."""


@dataclass(frozen=True)
class Golden:
    """A valid mask; `localizer` where the file is as sparsetv itself writes it, byte for byte."""

    name: str
    data: bytes
    scope: Shapes
    kept: dict[str, list[int]]
    localizer: dict[str, Any] | None = None

    def expected(self) -> dict[str, Any]:
        """What any reader must find in the file, as JSON."""
        own = {} if self.localizer is None else {"localizer": self.localizer}
        return {"scope": self.scope, "kept": {name: self.kept.get(name, []) for name in sorted(self.scope)}, **own}


def valid() -> Iterator[Golden]:
    """Every valid golden mask: one idea each."""
    yield from _written()
    yield from _of_others()
    yield from _metadata()


def _written() -> Iterator[Golden]:
    def written(name: str, scope: Shapes, kept: dict[str, list[int]], localizer: dict[str, Any]) -> Golden:
        return Golden(name, as_sparsetv_writes(kept, scope, localizer), scope, kept, localizer)

    yield written("positions", SCOPE, {"a.weight": [0, 5, 6, 11], "c": [0]}, {"localizer": "magnitude"})
    ranks: Shapes = {"r0": [], "r1": [3], "r2": [2, 3], "r2.empty": [0, 3], "r3": [2, 2, 3], "r16": [1] * 15 + [2]}
    kept = {"r0": [0], "r1": [2], "r2": [0, 1, 2, 3, 4, 5], "r3": [11], "r16": [1]}
    yield written("ranks", dict(sorted(ranks.items())), kept, {})
    names = ['a"quote\\slash/x', "größe", "中文.重み", "\uff5e above the surrogates", "\U0001d400 astral"]
    told = {"localizer": "tall", "of": "tâche", "factor": 0.4}
    unicode: Shapes = {name: [4] for name in names}
    yield written("unicode_names", unicode, {name: [i % 4] for i, name in enumerate(names)}, told)
    huge: Shapes = {"head": [128256, 32768], "huge": [2**31, 2**30]}
    yield written("huge_shapes", huge, {"head": [0, 2**31 + 5, 128256 * 32768 - 1], "huge": [2**40, 2**61 - 1]}, {})
    long: Shapes = {"n" * 512: [1]}
    yield written("name_of_512_characters", long, {"n" * 512: [0]}, {})


def _of_others() -> Iterator[Golden]:
    def other(name: str, tensors: list[Stored], kept: dict[str, list[int]], scope: Shapes = SCOPE) -> Golden:
        return Golden(name, seal(tensors, marked()), scope, kept)

    whole = [boolean("a.weight", [3, 4], [0, 7]), boolean("b.bias", [5], []), boolean("c", [], [0])]
    yield other("boolean", whole, {"a.weight": [0, 7], "c": [0]})
    yield other(
        "both_forms", [boolean("a.weight", [3, 4], [7]), positions("b.bias", [4])], {"a.weight": [7], "b.bias": [4]}
    )
    yield other("descending_names", [positions("c", [0]), positions("b.bias", [0, 4])], {"b.bias": [0, 4], "c": [0]})
    yield other("no_positions", [positions("b.bias", [1]), positions("c", [])], {"b.bias": [1]})
    outside = [positions("b.bias", [1]), positions("other", []), boolean("z", [2], [])]
    yield other("outside_keeps_nothing", outside, {"b.bias": [1]})
    empty: Shapes = {"a": [0, 3], "b": [2]}
    yield other("boolean_of_no_entries", [boolean("a", [0, 3], []), boolean("b", [2], [0])], {"b": [0]}, empty)


def _metadata() -> Iterator[Golden]:
    def told(name: str, **more: str) -> Golden:
        return Golden(name, seal([positions("b.bias", [1, 3])], marked(**more)), SCOPE, {"b.bias": [1, 3]})

    yield told("newer_minor_version", version="1.7", hint="of a later version")
    yield told("unknown_key", author="somebody")
    yield told("localizer_is_no_json", localizer="{by hand")
    yield told("shapes_not_canonical", shapes='{"b.bias": [5],  "a.weight": [3, 4]}')
    yield told("shapes_of_others", shapes='{"b.bias":[5],"z":[7,7]}')
    yield told("shapes_of_nothing", shapes="{}")
    loose = lambda header: json.dumps(dict(reversed(header.items())), indent=1).encode() + b"   "  # noqa: E731
    data = seal(
        [positions("b.bias", [1, 3])], marked(), changes={"header": lambda h: h, "text": lambda t: loose(json.loads(t))}
    )
    yield Golden("header_not_canonical", data, SCOPE, {"b.bias": [1, 3]})
