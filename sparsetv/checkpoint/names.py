"""Which tensor of a fine-tune belongs to which tensor of the base.

The rule: a base name becomes the fine-tune's by replacing one leading prefix with another. Of all prefixes that occur
(whole dotted components, at most three, no layer numbers), the pair that brings together the most tensors of
equal name and fitting shape wins; among equals the shortest; two different winners are refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sparsetv.errors import NamesError

Shapes = Mapping[str, tuple[int, ...]]

_DEPTH = 3
_SHOWN = 4
_MANY = 0.25  # a prefix that fewer names share is no wrapper of the model


@dataclass(frozen=True, slots=True)
class Pairing:
    """Base and fine-tune, name by name.

    Attributes:
        prefix: (from, to) as the rule found it.
        shared: Fine-tuned name per base name, same shape.
        grown: Fine-tuned name per base name, where the fine-tune has more rows and otherwise the same shape.
        reshaped: Fine-tuned name per base name, where shapes differ in any other way.
        missing: Base names that the fine-tune lacks, ascending.
        added: Fine-tuned names that the base lacks, ascending.
    """

    prefix: tuple[str, str]
    shared: Mapping[str, str]
    grown: Mapping[str, str]
    reshaped: Mapping[str, str]
    missing: tuple[str, ...]
    added: tuple[str, ...]


def pair_names(base: Shapes, finetuned: Shapes, *, prefix: tuple[str, str] | None = None) -> Pairing:
    """Match names of base and fine-tune.

    Args:
        base: Shape per tensor of the base.
        finetuned: Shape per tensor of the fine-tune.
        prefix: (from, to) where the caller knows better than the rule.

    Raises:
        NamesError: No prefix brings any tensors together, or two do equally well; both name lists are in the message.
    """
    found = prefix if prefix is not None else _find_prefix(base, finetuned)
    if _collides(base, found):
        raise NamesError(f"prefix {found} gives two tensors of the base one name; {_both(base, finetuned)}")
    shared: dict[str, str] = {}
    grown: dict[str, str] = {}
    reshaped: dict[str, str] = {}
    for name, shape in base.items():
        other = _rename(name, found)
        if other in finetuned:
            kind = {True: shared}.get(finetuned[other] == shape)
            target = kind if kind is not None else (grown if _has_grown(shape, finetuned[other]) else reshaped)
            target[name] = other
    if not shared:
        raise NamesError(f"no tensor of base and fine-tune has the same name and shape; {_both(base, finetuned)}")
    taken = {*shared.values(), *grown.values(), *reshaped.values()}
    return Pairing(
        prefix=found,
        shared=shared,
        grown=grown,
        reshaped=reshaped,
        missing=tuple(sorted(name for name in base if _rename(name, found) not in finetuned)),
        added=tuple(sorted(name for name in finetuned if name not in taken)),
    )


def _rename(name: str, prefix: tuple[str, str]) -> str:
    return prefix[1] + name.removeprefix(prefix[0])


def _collides(base: Iterable[str], prefix: tuple[str, str]) -> bool:
    """Whether two base names become one."""
    renamed = [_rename(name, prefix) for name in base]
    return len(set(renamed)) < len(renamed)


def _has_grown(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return 2 <= len(shape) == len(other) and other[0] > shape[0] and other[1:] == shape[1:]


def _fits(shape: tuple[int, ...], other: tuple[int, ...] | None) -> bool:
    return other is not None and (shape == other or _has_grown(shape, other))


def _find_prefix(base: Shapes, finetuned: Shapes) -> tuple[str, str]:
    scores: dict[frozenset[tuple[str, str]], tuple[str, str]] = {}
    for old in _prefixes(base):
        for new in _prefixes(finetuned):
            if _collides(base, (old, new)):
                continue
            pairs = ((name, _rename(name, (old, new))) for name in base)
            matched = frozenset(pair for pair in pairs if _fits(base[pair[0]], finetuned.get(pair[1])))
            scores.setdefault(matched, (old, new))
    most = max(map(len, scores))
    best = [prefix for matched, prefix in scores.items() if len(matched) == most]
    if not most:
        raise NamesError(f"no prefix makes tensor names of base and fine-tune agree; {_both(base, finetuned)}")
    if len(best) > 1:
        raise NamesError(
            f"prefixes {best[0]} and {best[1]} fit equally well; pass the right one as (from, to); "
            f"{_both(base, finetuned)}"
        )
    return best[0]


def _prefixes(names: Iterable[str]) -> list[str]:
    """Candidate prefixes, shortest first; the empty one always."""
    counts: dict[str, int] = {}
    total = 0
    for name in names:
        total += 1
        parts = name.split(".")[:-1][:_DEPTH]
        for depth in range(1, len(parts) + 1):
            if parts[depth - 1].isdigit():
                break
            prefix = ".".join(parts[:depth]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    common = [prefix for prefix, count in counts.items() if count >= _MANY * total]
    return ["", *sorted(common, key=lambda prefix: (len(prefix), prefix))]


def _both(base: Iterable[str], finetuned: Iterable[str]) -> str:
    return f"base has {_listed(base)}; fine-tune has {_listed(finetuned)}"


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f", … ({len(ordered)} in all)" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more if ordered else "no tensors"
