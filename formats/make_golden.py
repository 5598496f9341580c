"""Write the golden files: `python formats/make_golden.py`. By hand only; no test runs it.

Golden files are append-only: a file that exists is compared, never replaced, and `golden/SHA256SUMS` grows at its end.
Another zstandard than 0.25 may compress to other bytes; use that one.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from golden_writer import archive_cases, broken_masks, invalid, mask_cases, valid
from golden_writer.archives import base_file
from golden_writer.case import Case
from golden_writer.content import expected, sha256

GOLDEN = Path(__file__).parent / "golden"


def main() -> None:
    """Write what is missing."""
    for name, content, data in valid.files():
        _write_once(GOLDEN / "valid" / f"{name}.stv", data)
        _write_once(GOLDEN / "valid" / f"{name}.json", _json(expected(content)))
    _archives(GOLDEN / "archives")
    _invalid("invalid", invalid.cases())
    _invalid("archives_invalid", archive_cases.invalid())
    _masks(GOLDEN / "masks")
    _invalid("masks_invalid", broken_masks.invalid())
    _write_once(GOLDEN / "masks_invalid" / "scope.json", _json(mask_cases.SCOPE))
    _list(GOLDEN / "SHA256SUMS")


def _list(sums: Path) -> None:
    """Add what is new behind the lines that stand there, which released versions pin (CHANGES.md)."""
    text = sums.read_text()
    listed = {line.split("  ", 1)[1] for line in text.splitlines()}
    files = sorted(file for file in GOLDEN.rglob("*.*") if file.name != "index.json")  # an index grows
    new = [file for file in files if str(file.relative_to(GOLDEN)) not in listed]
    sums.write_text(text + "".join(f"{sha256(file.read_bytes())}  {file.relative_to(GOLDEN)}\n" for file in new))


def _archives(room: Path) -> None:
    """Valid archives, what comes back from each in hex, and the base of all of them."""
    for name, files, data in archive_cases.valid():
        _write_once(room / f"{name}.stv", data)
        _write_once(room / f"{name}.json", _json({file.name: file.whole.hex() for file in files}))
    _write_once(room / "base" / "model.safetensors", base_file(archive_cases.BASE))
    _write_once(room / "base" / "config.json", b"{}")


def _masks(room: Path) -> None:
    """Valid masks, and the scope and kept positions of each."""
    for mask in mask_cases.valid():
        _write_once(room / f"{mask.name}.safetensors", mask.data)
        _write_once(room / f"{mask.name}.json", _json(mask.expected()))


def _invalid(folder: str, cases: Iterable[Case]) -> None:
    index = []
    for case in cases:
        _write_once(GOLDEN / folder / case.file, case.data)
        index.append({"file": case.file, "clause": case.clause, "breaks": case.breaks, "match": case.match})
        if case.error != "FormatError":
            index[-1]["error"] = case.error
    (GOLDEN / folder / "index.json").write_bytes(_json(index))


def _json(value: dict[str, Any] | list[dict[str, Any]]) -> bytes:
    """One item per line."""
    if isinstance(value, list):
        lines = [json.dumps(item, ensure_ascii=False) for item in value]
        return ("[\n" + ",\n".join(lines) + "\n]\n").encode()
    lines = [f"{json.dumps(key)}: {json.dumps(item, ensure_ascii=False)}" for key, item in value.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _write_once(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(data)
    elif path.read_bytes() != data:
        raise SystemExit(f"{path} exists and differs; golden files are append-only, give the new one another name")


if __name__ == "__main__":
    main()
