"""Write the tables of the README and of the benchmarks' page from the committed result files.

    python -m benchmarks.readme [--check]

Each table stands between `<!-- NAME -->` and `<!-- /NAME -->`. With `--check` nothing is written, and the exit
code says whether both are what the results give.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import pictures, readme_peers, readme_storage, readme_suites
from benchmarks.common import RESULTS

README = Path(__file__).parent.parent / "README.md"
PAGE = Path(__file__).parent / "README.md"
Rows = list[dict[str, Any]]


def read(name: str) -> dict[str, Any]:
    """A committed result."""
    value: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return value


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def storage() -> str:
    """Every encoding and peer: bytes, error, speed."""
    return markdown(readme_storage.HEAD, readme_storage.encodings(read("storage")["rows"]))


def storage_goals() -> str:
    """What was asked of storage, and what came nearest to missing it."""
    return markdown(readme_storage.GOALS, readme_storage.goals(read("storage")["goals"]))


def headline() -> str:
    """The real result that the README opens with."""
    head = ["fine-tune of MiniLM", "checkpoint", "sparsetv file", "smaller", "base", "fine-tuned", "from the file"]
    rows = []
    for row in read("recovery_budget")["rows"]:
        if (row["kind"], row["budget"]) != ("budget", 0.15):
            continue
        file, checkpoint = row["file_bytes"], row["checkpoint_bytes"]
        rows.append([
            row["task"].replace("-sgd", " (SGD)"),
            f"{checkpoint / 1e6:.1f} MB",
            f"{file / 1e3:.0f} kB",
            f"{checkpoint / file:.0f}x",
            f"{row['base']:.3f}",
            f"{row['finetuned']:.3f}",
            f"{row['accuracy']:.3f}",
        ])  # fmt: skip
    return markdown(head, rows)


def budget() -> str:
    """Accuracy against bytes."""
    result = read("recovery_budget")
    names = list(dict.fromkeys(row["task"] for row in result["rows"]))
    rows = []
    for each in result["summary"]:
        mine = {
            row["task"]: row for row in result["rows"] if (row["kind"], row["budget"]) == (each["kind"], each["budget"])
        }
        scores = [
            f"{each[group]['normalised']:.3f} / {each[group]['gap_closed']:.2f}" for group in ("AdamW", "SGD", "all")
        ]
        size = f"{each['file_bytes'] / 1e3:.0f} kB"
        rows.append(
            [f"{each['budget']:g} %", each["kind"], size, *(f"{mine[n]['accuracy']:.3f}" for n in names), *scores]
        )
    rows.sort(key=lambda row: float(row[0].split()[0]))
    shown = [name.replace("-sgd", " (SGD)") for name in names]
    return markdown(["size", "how", "file", *shown, "AdamW", "SGD", "all five"], rows)


def recovery() -> str:
    """Accuracy per fine-tune and scale."""
    head = ["density, values", "fine-tune", "base", "fine-tuned", "none", "l2", "graft", "match (scale)"]
    head += ["best on the test set (scale)", "stitched, 4 tasks, l2"]
    rows = []
    for setting in read("recovery")["settings"]:
        for row in setting["rows"]:
            grafted = row["grafted"]
            rows.append([
                f"{setting['density']:.0%} {setting['values']}",
                row["task"].replace("-sgd", " (SGD)"),
                f"{row['base']:.3f}",
                f"{row['finetuned']:.3f}",
                *(f"{grafted[policy]:.3f}" for policy in ("none", "l2", "graft")),
                f"{grafted['match']:.3f} ({row['scales']['match']:g})",
                f"{row['best']:.3f} ({row['best_scale']:g})",
                f"{row['stitched']:.3f}",
            ])  # fmt: skip
    return markdown(head, rows)


def averages() -> str:
    """Normalised accuracy and gap closed, AdamW and SGD apart."""
    columns = ("none", "l2", "graft", "match", "best", "stitched")
    rows = []
    for setting in read("recovery")["settings"]:
        for optimizer, values in setting["summary"].items():
            cells = [f"{values[c]['normalised']:.3f} / {values[c]['gap_closed']:.2f}" for c in columns]
            rows.append([f"{setting['density']:.0%} {setting['values']}", optimizer, *cells])
    return markdown(["density, values", "optimizer", *columns], rows)


def refit() -> str:
    """Refitted files: accuracy per fine-tune, averages, size."""
    value = read("recovery_refit")
    kinds = list(value["summary"])
    names = list(dict.fromkeys(row["task"] for row in value["rows"]))
    rows = []
    for kind in kinds:
        own = {row["task"]: row for row in value["rows"] if row["kind"] == kind}
        averages = [value["summary"][kind][optimizer] for optimizer in ("AdamW", "SGD")]
        rows.append([
            _kind(kind),
            f"{sum(row['file_bytes'] for row in own.values()) / len(own) / 1e3:.0f} kB",
            *(f"{own[name]['accuracy']:.3f}" for name in names),
            *(f"{average['normalised']:.3f} / {average['gap_closed']:.2f}" for average in averages),
        ])  # fmt: skip
    any_kind = {row["task"]: row for row in value["rows"] if row["kind"] == kinds[0]}
    rows.append(["fine-tuned", "90.9 MB", *(f"{any_kind[name]['finetuned']:.3f}" for name in names), "", ""])
    head = ["density, values", "file", *(name.replace("-sgd", " (SGD)") for name in names), "AdamW", "SGD"]
    return markdown(head, rows)


def _kind(kind: str) -> str:
    """How a kind of file is called in the table."""
    density, values = kind.split("% ")
    known = {"refit-data": "refit, 64 examples per class", "sign-refit": "signs, refit"}
    known["tensor-refit"] = "refit, `--allocation tensor`"
    return f"{density}% {known.get(values, values)}"


def localizers() -> str:
    """Normalised accuracy and gap closed by localizer, density and scale."""
    value = read("recovery_localizers")
    found = {(row["localizer"], row["density"], row["scale"], row["optimizer"]): row for row in value["summary"]}
    methods = list(dict.fromkeys(row["localizer"] for row in value["rows"]))
    seconds = {m: [c["seconds"] for c in value["costs"] if c["localizer"] == m] for m in methods}
    columns = [(0.001, "l2"), (0.003, "l2"), *((0.01, s) for s in ("none", "l2", "graft", "match", "fit")),
               (0.05, "l2"), (0.1, "l2")]  # fmt: skip
    rows = []
    for optimizer in ("AdamW", "SGD"):
        for method in methods:
            cells = [found[method, density, scale, optimizer] for density, scale in columns]
            rows.append([
                f"{method} ({optimizer})",
                *(f"{cell['normalised']:.2f} / {cell['gap_closed']:.2f}" for cell in cells),
                f"{sum(seconds[method]) / len(seconds[method]):.0f} s" if optimizer == "AdamW" else "",
            ])  # fmt: skip
    return markdown(["localizer", *(f"{100 * d:g} % {scale}" for d, scale in columns), "seconds"], rows)


def localizing() -> str:
    """Learning a mask: time and memory."""
    rows = []
    for row in read("localizing")["rows"]:
        plain, ours = row["plain"], row["released"]
        rows.append([
            f"{row['shape']} ({row['scope_entries'] / 1e6:.0f} M entries), {row['device']}, {row['precision']}",
            f"{ours['seconds']:.1f} s, {ours['copies']:.1f} copies",
            f"{plain['seconds']:.1f} s, {plain['copies']:.1f} copies",
            f"{row['times_faster']:.1f}",
            f"{row['paper']['seconds']:.1f} s, {row['paper']['copies']:.1f} copies",
            f"{row['agreement']:.6f}",
        ])  # fmt: skip
    head = ["model", "`released`", "the plain way", "times faster", "`paper`", "masks agree"]
    return markdown(head, rows)


def runtime() -> str:
    """Time and memory at roberta-base shape."""
    value = read("runtime")
    seconds = value["seconds"]
    rows = [
        ["pack at 1 %, file written", f"{seconds['pack']:.2f} s", "one plain pass that reads both and subtracts",
         f"{seconds['plain_pass']:.2f} s", f"{value['pack_over_plain_pass']:.2f}", "3"],
        [f"pack to {value['budget'].replace('%', ' %')}, file written", f"{seconds['pack_budget']:.2f} s",
         "pack at 1 %", f"{seconds['pack']:.2f} s", f"{value['budget_over_pack']:.2f}", "2"],
        ["stitch to disk", f"{seconds['stitch']:.2f} s", "copy of the base file with fsync",
         f"{seconds['copy_with_fsync']:.2f} s", f"{value['stitch_over_copy']:.2f}", "1.5"],
        ["pack, peak anonymous memory", f"{value['pack_peak_bytes'] / 1e6:.0f} MB", "300 MB + 24 bytes per kept entry",
         f"{value['pack_peak_limit_bytes'] / 1e6:.0f} MB",
         f"{value['pack_peak_bytes'] / value['pack_peak_limit_bytes']:.2f}", "1"],
        ["`sparsetv --help`", f"{value['help_seconds']:.2f} s", "goal", "0.30 s",
         f"{value['help_seconds'] / 0.3:.2f}", "1"],
    ]  # fmt: skip
    return markdown(["what", "measured", "floor", "floor measured", "ratio", "goal"], rows)


def continual() -> str:
    """Adding tasks in memory, and what else one could do."""
    value = read("continual")
    first, last, one = value["first"], value["last"], value["last"]["mean"] / 1e3
    rows = [
        [f"add one of the first ten tasks, mean (median {first['median']:.0f})", f"{first['mean']:.0f} ms", ""],
        [f"add one of the last ten of {value['tasks']}, mean (median {last['median']:.0f})", f"{last['mean']:.0f} ms",
         f"{value['last_over_first_mean']:.2f} of the first ten (goal {value['goal']})"],
        ["remove a task", f"{value['removal']['mean']:.0f} ms", _times(value["removal"]["mean"] / 1e3, one)],
    ]  # fmt: skip
    others = [(f"all {n} tasks onto a fresh base in memory", v) for n, v in value["afresh_in_memory"].items()]
    others.append(("reload the whole checkpoint", value["reload"]))
    others += [(_disk(name), seconds) for name, seconds in value["on_disk"].items() if not name.startswith("library")]
    for name in ("task_arithmetic", "ties"):
        if name in value["mergekit"]:
            version = value["mergekit"]["versions"]["mergekit"]
            others.append((f"mergekit {version}, {name}, 3 tasks", value["mergekit"][name]))
    rows += [[name, f"{found['seconds']:.2f} s", _times(found["seconds"], one)] for name, found in others]
    kept = f"{value['resident_bytes_per_kept_entry']:.1f} bytes per kept entry"
    rows.append([f"memory beside the base, {value['tasks']} tasks", kept, "goal 20"])
    return markdown(["what", "measured", "against one of the last ten additions"], rows)


def _times(seconds: float, one: float) -> str:
    return f"{seconds / one:.1f} times"


def _disk(name: str) -> str:
    kind, _, count = name.partition(" ")
    return f"`sparsetv stitch`, {count} tasks" if kind == "command" else "copy of the base file with fsync"


def swap() -> str:
    """Switching the task of a live model."""
    value = read("swap")
    ours, goal = value["ours"], value["goal_milliseconds"]
    one = ours["switch"]["median"]
    lines = [
        (f"`live.activate`, one task for another (goal {goal:.0f} ms)", ours["switch"]),
        ("task off or on", ours["off or on"]),
        ("second task on or off", ours["second on or off"]),
        ("load a full checkpoint", value["load_checkpoint"]),
    ]
    lora = value["lora"]
    if "merged" in lora:
        name = f"PEFT {lora['versions']['peft']}, LoRA of rank {lora['rank']} ({lora['bytes'] / 1e6:.1f} MB)"
        lines.append((f"{name}, merged", lora["merged"]))
        lines.append((f"{name}, unmerged (slower forward passes)", lora["unmerged"]))
    rows = [
        [what, f"{ms['median']:.0f} ms", f"{ms['worst']:.0f} ms", f"{ms['median'] / one:.1f}"] for what, ms in lines
    ]
    memory = ours["bytes_per_kept_entry"]
    for state in ("one active", "two active"):
        rows.append([f"memory beside the model, {state}", f"{memory[state]:.1f} bytes per kept entry", "", ""])
    return markdown(["what", "median", "worst of 30", "times a switch"], rows)


def lossless() -> str:
    """Lossless archives: share of the checkpoint, and speed."""
    rows = []
    for row in read("lossless")["rows"]:
        recipes, codec, job, peer = row["recipes"], row["codec"], row["job"], row.get("zipnn", {})
        rows.append([
            row["pair"],
            f"{row['changed_percent']:.1f} %",
            f"**{row['percent']:.2f} %**" + (f" ({row['goal_percent']:g})" if row["goal_percent"] else ""),
            *(f"{recipes[name]['percent']:.2f} %" for name in ("xor + byte planes + zstd", "xor + zstd", "zstd alone")),
            f"{peer['percent']:.2f} %" if "percent" in peer else "",
            f"{codec['encode']} / {codec['decode']}",
            f"{job['archive']} / {job['restore']}",
            f"{row['floors']['copy']:,} / {row['floors']['read']:,}",
            f"{max(row['peak_bytes'].values()) / 1e6:.0f} MB",
        ])  # fmt: skip
    head = ["pair", "values changed", "archive (goal)", "xor + byte planes + zstd", "xor + zstd", "zstd alone", "ZipNN"]
    head += ["codec, MB/s", "whole job, MB/s", "copy in memory / read, MB/s", "peak memory"]
    return markdown(head, rows)


def peers_goals() -> str:
    """What was asked of peers in one run."""
    return markdown(readme_peers.GOALS, readme_peers.goals(read("peers")))


def peers() -> str:
    """Whole processes that merge, ours and mergekit's."""
    return markdown(readme_peers.MERGING, readme_peers.merging(read("peers")))


def peers_storing() -> str:
    """Whole processes that store one fine-tune."""
    return markdown(readme_peers.STORING, readme_peers.storing(read("peers")))


Tables = dict[str, Callable[[], str]]

TABLES: Tables = {
    "headline": headline,
    "storage_goals": storage_goals,
    "storage": storage,
    "recovery": recovery,
    "averages": averages,
    "refit": refit,
    "localizers": localizers,
    "localizing": localizing,
    "budget": budget,
    "runtime": runtime,
    "continual": continual,
    "swap": swap,
    "peers_goals": peers_goals,
    "peers": peers,
    "peers_storing": peers_storing,
    "lossless": lossless,
    "merged": lambda: markdown(*readme_suites.merged()),
    "continual_accuracy": lambda: markdown(*readme_suites.continual()),
    "retention": lambda: markdown(*readme_suites.retention()),
}

PAGE_TABLES: Tables = {
    "density": lambda: markdown(*readme_suites.density()),
    "groups": lambda: markdown(*readme_suites.groups()),
    "runtimes": lambda: markdown(*readme_suites.runtimes()),
}

FILES: dict[Path, Tables] = {README: TABLES, PAGE: PAGE_TABLES}


def fill(text: str, tables: Tables) -> str:
    """A text with every table made anew."""
    for name, make in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = text.split(start)
        text = before + start + make() + "\n" + end + rest.split(end)[1]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    for path, tables in FILES.items():
        old = path.read_text()
        new = fill(old, tables)
        if args.check and new != old:
            sys.exit(f"{path} is not what benchmarks/results give; run python -m benchmarks.readme")
        path.write_text(new)
    if not args.check:
        pictures.merging()


if __name__ == "__main__":
    main()
