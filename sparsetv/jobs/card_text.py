"""What model cards say, as Markdown."""

import re
from collections.abc import Iterable, Mapping

from sparsetv.compose.record import Record
from sparsetv.jobs.inspect import Summary
from sparsetv.units import human_bytes

MARK = "<!-- made by sparsetv, which may replace it; take this line out to keep the card as it is -->"
"""Last line of every card: `push` replaces no card without it."""

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_.-]{1,96}(@[A-Za-z0-9_./-]+)?")


def is_repo(text: str) -> bool:
    """Whether text is a hub repository's name, `org/name`."""
    return _HUB_ID.fullmatch(text) is not None and "@" not in text


def task_text(summary: Summary, accuracy: Mapping[str, float]) -> str:
    """The card of a task file, without its metadata."""
    base = _base(summary.base["repo"], summary.base["commit"])
    source, named = summary.path, base or "BASE"
    return f"""# {_plain(summary.name)}

One fine-tune as a sparse task vector: a sparsetv task file, to be put onto its base.

{_table(_facts(summary, base))}{_scores(accuracy)}
## Use

    sparsetv stitch {named} {source} -o {_folder(summary.name)}

writes an ordinary checkpoint directory, which `from_pretrained` of transformers loads. Further tasks can follow the
first. In Python:

```python
import sparsetv

task = sparsetv.SparseTaskVector.from_pretrained("{source}")
sparsetv.stitch("{named}", [task], "{_folder(summary.name)}")
```

`sparsetv verify {source} --base {named}` checks every hash.
"""


def stitched_text(title: str, record: Record, accuracy: Mapping[str, float]) -> str:
    """The card of a stitched directory, without its metadata."""
    base = _base(record.repo, record.commit)
    rule = record.rule if record.min_tasks is None else f"{record.rule}, at least {record.min_tasks} tasks"
    facts = [
        ("base", (f"{_code(base)}, " if base else "") + f"digest `{record.base_digest}`"),
        ("rule", _plain(rule)),
        ("scale asked for", _plain(str(record.scale))),
    ]
    tasks = [
        f"| {_plain(one.name)} | {one.weight:g} | {one.scale:.6g} ({_plain(one.policy)}) | `{one.digest}` |"
        for one in record.members
    ]
    head = ["| task | weight | scale | digest |", "|---|---|---|---|"]
    table = "\n".join([*head, *tasks]) if tasks else "No task is on it."
    return f"""# {_plain(title)}

A checkpoint that sparsetv stitched: the base, and tasks on it. What no task touches is the base, bit for bit.

{_table(facts)}
## Tasks

{table}
{_scores(accuracy)}
## Use

It is an ordinary checkpoint directory, which `from_pretrained` of transformers loads. `sparsetv tasks DIR` lists its
tasks, and `sparsetv remove DIR NAME` takes one out, bit for bit.
"""


def _facts(summary: Summary, base: str | None) -> Iterable[tuple[str, str]]:
    split, recipe, scope = summary.sizes, summary.recipe, summary.scope_entries
    whole = summary.checkpoint_bytes
    share = f", {100 * split.file / whole:.3f} % of the base checkpoint's {human_bytes(whole)}" if whole else ""
    yield "file", f"{split.file:,} bytes{share}"
    yield "kept", f"{summary.kept_entries:,} of {scope:,} entries, density {summary.density:.6g}"
    yield (
        "values",
        f"{_plain(recipe['values'])}, {sum(summary.bits.values()):.2f} bits per kept entry, positions included",
    )
    yield "chosen by", f"{_plain(recipe['localizer'])}, {_plain(recipe['allocation'])} threshold"
    if summary.energy is not None:
        yield "keeps", f"{summary.energy:.2%} of the squared L2 norm of the change in its scope"
    if summary.extras:
        yield "carries", ", ".join(_code(extra["name"]) for extra in summary.extras)
    named = f"{_code(base)}, " if base else ""
    yield "base", f"{named}{summary.base['tensors']} tensors, digest `{summary.base['digest']}`"
    yield "digest", f"`{summary.digest}`"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]) + "\n"


def _scores(accuracy: Mapping[str, float]) -> str:
    if not accuracy:
        return ""
    rows = [f"| {_plain(name)} | {value:g} |" for name, value in sorted(accuracy.items())]
    return "\n".join(["", "| data | accuracy, as given |", "|---|---|", *rows]) + "\n"


def _base(repo: str | None, commit: str | None) -> str | None:
    """The base's hub id, where the record of one can be typed as it is."""
    if repo is None or not is_repo(repo):
        return None
    whole = repo if commit is None else f"{repo}@{commit}"
    return whole if _HUB_ID.fullmatch(whole) else repo


def _folder(name: str) -> str:
    """A folder's name that needs no quotes in a shell."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "DIR"


def _plain(text: str) -> str:
    """Text that Markdown and HTML take for nothing else."""
    line = "".join(char if char.isprintable() else "?" for char in text)
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", line)


def _code(text: str) -> str:
    """Text in a code span, in a table."""
    line = "".join(char if char.isprintable() else "?" for char in text)
    return "`" + line.replace("`", "'").replace("|", "/") + "`"
