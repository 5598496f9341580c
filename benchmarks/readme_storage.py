"""The rows of the README's tables of storage."""

from typing import Any

from benchmarks.storage_goals import size_of, worst

Row = dict[str, Any]

PAIRS = {
    "AdamW fp32": ("CR fp32", "TREC fp32"),
    "AdamW bf16": ("CR bf16", "TREC bf16"),
    "SGD fp32": ("TREC-sgd fp32",),
    "SGD bf16": ("TREC-sgd bf16",),
    "Llama fp32": ("Llama SFT fp32",),
    "Llama bf16": ("Llama SFT bf16",),
}
"""Columns of sizes, each the mean of these pairs."""

SHOWN = "TREC fp32"
"""The pair that bits, errors, entropy and speeds are shown of."""

HEAD = ["encoding or peer", "what comes back", *PAIRS, "bits per entry: positions + values + rest", "squared error"]
HEAD += ["over entropy", "encode, MB/s: job / codec", "decode, MB/s"]

GOALS = ["goal", "asked", "found where it is worst", "there", "met"]


def encodings(rows: list[Row]) -> list[list[str]]:
    """One line per encoding of ours, then per peer."""
    names = dict.fromkeys((row["by"], row["name"]) for row in rows if row["pair"] == SHOWN)
    return [_line([row for row in rows if (row["by"], row["name"]) == name]) for name in names]


def goals(checked: list[Row]) -> list[list[str]]:
    """One line per kind of goal."""
    return [
        [one["goal"], one["asked"], _number(one["found"]), one["where"], "yes" if one["met"] else "**no**"]
        for one in worst(checked)
    ]


def _line(own: list[Row]) -> list[str]:
    shown = next(row for row in own if row["pair"] == SHOWN)
    name = f"**{shown['name']}**" if shown["by"] == "sparsetv" else shown["name"]
    sizes = [_size([row for row in own if row["pair"] in some]) for some in PAIRS.values()]
    if "bytes" not in shown:
        return [name, shown["fidelity"], *sizes, "", "", "", shown["failed"], ""]
    speeds, ratio = shown["megabytes_per_second"], shown.get("over_entropy", {}).get("both")
    encode = f"{speeds.get('pack', '-')} / {speeds.get('codec', '-')}"
    rest = [_bits(shown), _error(shown), f"{ratio:.3f}" if ratio else "", encode, str(speeds["decode"])]
    return [name, shown["fidelity"], *sizes, *rest]


def _size(own: list[Row]) -> str:
    """Mean percentage: of the scope, or of the checkpoint for what stores all of it."""
    if not all("bytes" in row for row in own):
        return "failed"
    shares = [float(row["percent_of_scope" if "percent_of_scope" in row else "percent_of_checkpoint"]) for row in own]
    mean = sum(shares) / len(shares)
    return f"{mean:.1f}" if mean >= 10 else f"{mean:.3f}"


def _bits(row: Row) -> str:
    bits = row.get("bits_per_entry")
    if bits is None:
        return ""
    parts = [f"{value:.2f}" for value in bits.values()]
    return parts[0] if len(parts) == 1 else f"{8 * size_of(row) / row['kept_entries']:.2f}: " + " + ".join(parts)


def _error(row: Row) -> str:
    if "energy_kept" in row:
        return f"{row['error']:.2g} (keeps {row['energy_kept']:.2f})"
    return f"{row['error']:.2g}" if row["error"] else "0"


def _number(found: float) -> str:
    return f"{found:,}" if isinstance(found, int) else f"{found:,.3f}"
