"""Numbers that are not ordinary: each row of formats/NUMBERS.md is a test here, through the public interface."""

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ALL, TORCH, Tensors, bits, read_checkpoint, write_checkpoint
from hostile import frame, listing, outcome, put_together, take_apart

from sparsetv import PackOptions, StitchOptions, archive_to, pack_to, read_task, restore, stitch
from sparsetv.dtypes import WEIGHT_DTYPES
from sparsetv.errors import CheckpointError, FormatError, NonFiniteError, SparseTVError, UsageError
from sparsetv.localize.scope import Scope

PAGE = Path(__file__).parents[1] / "formats" / "NUMBERS.md"
NAN = torch.tensor([0x7FC0_0001, 0x7F80_0001, 0xFFFF_FFFF], dtype=torch.uint32).view(torch.float32)
"""NaNs of three payloads: quiet, signalling, negative."""

each_bad = pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
each_side = pytest.mark.parametrize("side", ["base", "tuned"])
each_dtype = pytest.mark.parametrize("dtype", WEIGHT_DTYPES)
exact = PackOptions(density=1.0, scope=ALL, probe=False)


def test_every_row_has_its_test_and_every_test_its_row() -> None:
    rows = re.findall(r"\| `(\w+)` \|$", PAGE.read_text(), re.MULTILINE)
    tree = ast.parse(Path(__file__).read_text())
    tests = [node.name.removeprefix("test_") for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert rows == [name for name in tests if name.startswith(tuple(rows))]
    assert len(rows) == len(set(rows)) >= 17


def test_every_error_of_the_page_exists_with_its_exit_code() -> None:
    found = re.findall(r"\| `(\w+Error)`, (\d) \|", PAGE.read_text())
    assert len(found) >= 8
    from sparsetv import errors

    for name, code in found:
        assert getattr(errors, name).exit_code == int(code)


def write(room: Path, base: Tensors, tuned: Tensors, options: PackOptions = exact) -> Path:
    """Both checkpoints, and the task file."""
    write_checkpoint(room / "base", base)
    write_checkpoint(room / "tuned", tuned)
    pack_to(room / "task.stv", room / "base", room / "tuned", options=options)
    return room / "task.stv"


def grafted(room: Path, base: Tensors, tuned: Tensors, options: PackOptions = exact) -> Tensors:
    """The tensors of a graft, through files."""
    stitch(room / "base", [write(room, base, tuned, options)], room / "out", options=StitchOptions(scale="none"))
    return read_checkpoint(room / "out")


def refused(room: Path, base: Tensors, tuned: Tensors, options: PackOptions = exact) -> SparseTVError:
    """The error of packing, of which nothing is left."""
    write_checkpoint(room / "base", base)
    write_checkpoint(room / "tuned", tuned)
    before = listing(room)
    error = outcome(lambda: pack_to(room / "task.stv", room / "base", room / "tuned", options=options))
    assert listing(room) == before
    assert isinstance(error, SparseTVError)
    return error


def same(found: Tensors, expected: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8), name)


@each_bad
@each_side
@each_dtype
@pytest.mark.parametrize("density", [0.05, 1.0])
def test_nonfinite_in_scope(bad: float, side: str, dtype: str, density: float, tmp_path: Path) -> None:
    base = {"h.0.w": torch.ones(4, 5, dtype=TORCH[dtype])}
    tuned = {"h.0.w": base["h.0.w"] + 1}
    (base if side == "base" else tuned)["h.0.w"][2, 3] = bad
    error = refused(tmp_path, base, tuned, PackOptions(density=density, scope=ALL, probe=False))
    assert isinstance(error, NonFiniteError)
    assert re.fullmatch(r"h\.0\.w: .* NaN or infinite at position 13; repair the checkpoint or leave .*", str(error))


def test_nonfinite_outside_scope(tmp_path: Path) -> None:
    base = {"h.0.w": torch.zeros(6), "embed": torch.cat([NAN, torch.tensor([float("inf"), 1.0])])}
    tuned = {"h.0.w": torch.arange(6.0), "embed": torch.cat([-NAN, torch.tensor([1.0, -float("inf")])])}
    options = PackOptions(density=1.0, scope=Scope("blocks"), probe=False)
    found = grafted(tmp_path, base, tuned, options)
    same(found, {"h.0.w": tuned["h.0.w"], "embed": base["embed"]})
    assert all(np.isfinite(share) for _, share in read_task(tmp_path / "task.stv").finetuned.outside)


def test_nonfinite_carried(tmp_path: Path) -> None:
    base = {"h.0.w": torch.zeros(6), "embed": torch.ones(2, 3)}
    odd = torch.cat([NAN, torch.tensor([float("inf"), -0.0, 1e-45])])
    tuned = {"h.0.w": torch.arange(6.0), "head": odd, "embed": torch.cat([torch.ones(2, 3), NAN[None]])}
    found = grafted(tmp_path, base, tuned)
    same(found, tuned)


@pytest.mark.parametrize("bad", [0x7FC0_0000, 0x7F80_0000, 0xFF80_0000])
def test_nonfinite_in_a_file(bad: int, tmp_path: Path) -> None:
    path = write(tmp_path, {"w": torch.zeros(3)}, {"w": torch.tensor([1.0, 2.0, 3.0])})
    parts = take_apart(path.read_bytes())
    planes = np.array([0x3F80_0000, bad & 0x7FFF_FFFF, 0x4000_0000], "<u4").view(np.uint8).reshape(3, 4).T
    frames = [frame(b"\0"), *(frame(plane.tobytes()) for plane in planes), b"", b""]
    values = {"codec": "exact", "frames": [len(item) for item in frames], "bias": 0, "corrections": 0, "gap_size": 0}
    parts.manifest["blocks"][0]["values"] = values
    path.write_bytes(put_together(replace(parts, stored={**parts.stored, "sparsetv.values": b"".join(frames)})))
    with pytest.raises(FormatError, match=r"task\.stv: values: a value is not finite \(block of w, .*; fetch the file"):
        read_task(path)


def test_nonfinite_in_an_archive(tmp_path: Path) -> None:
    base = {"w": torch.cat([NAN, torch.zeros(4)]), "h": NAN.bfloat16()}
    tuned = {"w": torch.cat([torch.zeros(4), -NAN]), "h": torch.tensor([float("inf"), float("nan"), -0.0]).bfloat16()}
    paths = write_checkpoint(tmp_path / "base", base), write_checkpoint(tmp_path / "tuned", tuned)
    archive_to(tmp_path / "whole.stv", *paths)
    restore(paths[0], tmp_path / "whole.stv", tmp_path / "back")
    name = "model.safetensors"
    assert (tmp_path / "back" / name).read_bytes() == (paths[1] / name).read_bytes()


def test_difference_overflows(tmp_path: Path) -> None:
    error = refused(tmp_path, {"w": torch.tensor([1.0, -3e38])}, {"w": torch.tensor([1.5, 3e38])})
    assert isinstance(error, NonFiniteError)
    assert "w: fine-tuned minus base is NaN or infinite at position 1" in str(error)


@each_dtype
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_stitched_overflows(dtype: str, scale: float, tmp_path: Path) -> None:
    """Two tasks that fit alone overflow together; one does at a scale."""
    large = torch.finfo(TORCH[dtype]).max * 0.6
    tensors = [torch.tensor([1.0, sign * large], dtype=TORCH[dtype]) for sign in (0.0, 1.0, 1.0)]
    tensors[2][0] = 2.0
    paths = [write_checkpoint(tmp_path / str(number), {"w": tensor}) for number, tensor in enumerate(tensors)]
    for number in (1, 2):
        pack_to(tmp_path / f"{number}.stv", paths[0], paths[number], options=exact)
    files = [tmp_path / f"{number}.stv" for number in ((1, 2) if scale == 1.0 else (1,))]
    before = listing(tmp_path)
    with pytest.raises(NonFiniteError, match=rf"w: .* at position 1 overflows {dtype}; use a smaller scale"):
        stitch(paths[0], files, tmp_path / "out", options=StitchOptions(rule="sum", scale=scale))
    assert listing(tmp_path) == before


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e39, 3.1e38])
def test_coefficient_overflows(scale: float, tmp_path: Path) -> None:
    path = write(tmp_path, {"w": torch.zeros(3)}, {"w": torch.ones(3)})
    before = listing(tmp_path)
    for options in (StitchOptions(scale=scale), StitchOptions(scale="none", weights={"task": scale})):
        with pytest.raises(UsageError, match=r"finite"):
            stitch(tmp_path / "base", [path], tmp_path / "out", options=options)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(("dtype", "fits", "too_large"), [("F16", 65504.0, 65520.0), ("BF16", 3.38e38, 3.4e38)])
def test_cast_overflows(dtype: str, fits: float, too_large: float, tmp_path: Path) -> None:
    base = {"w": torch.zeros(3, dtype=TORCH[dtype])}
    found = grafted(tmp_path / "fits", base, {"w": torch.tensor([1.0, 1 / 3, fits])})
    same(found, {"w": torch.tensor([1.0, 1 / 3, fits]).to(TORCH[dtype])})
    error = refused(tmp_path / "not", base, {"w": torch.tensor([1.0, 1 / 3, too_large])})
    assert isinstance(error, NonFiniteError)
    assert "NaN or infinite at position 2" in str(error)


@each_dtype
def test_zeros_keep_their_sign(dtype: str, tmp_path: Path) -> None:
    base = {"w": torch.tensor([0.0, -0.0, 0.0, -0.0, 1.0, -1.0], dtype=TORCH[dtype])}
    tuned = {"w": torch.tensor([-0.0, 0.0, 0.0, -0.0, -0.0, 0.0], dtype=TORCH[dtype])}
    same(grafted(tmp_path / "all", base, tuned), tuned)
    some = PackOptions(density=2 / 6, scope=ALL, probe=False)  # the two entries that really changed
    same(grafted(tmp_path / "some", base, tuned, some), {"w": torch.cat([base["w"][:4], tuned["w"][4:]])})


def test_explicit_zeros_count(tmp_path: Path) -> None:
    base = {"w": torch.arange(10.0)}
    tuned = {"w": torch.arange(10.0)}
    tuned["w"][7] = 9.0
    path = write(tmp_path, base, tuned, PackOptions(density=0.4, scope=ALL, probe=False))
    tensor = read_task(path).tensors["w"]
    assert tensor.positions.tolist() == [0, 1, 2, 7]
    assert tensor.values.tolist() == [0.0, 0.0, 0.0, 2.0]


@each_dtype
def test_subnormals_are_exact(dtype: str, tmp_path: Path) -> None:
    width = torch.int32 if dtype == "F32" else torch.int16
    patterns = torch.arange(64, dtype=torch.int32).to(width)
    sign = torch.tensor(-(2**31) if dtype == "F32" else -(2**15), dtype=width)
    base = {"w": torch.cat([patterns, patterns | sign]).view(TORCH[dtype])}
    tuned = {"w": base["w"].view(width).flip(0).clone().view(TORCH[dtype])}
    same(grafted(tmp_path, base, tuned), tuned)
    assert bits(base["w"]).tolist() != bits(tuned["w"]).tolist()


@pytest.mark.parametrize("values", ["f16", "bf16", "q8", "q4", "q2", "sign"])
def test_lossy_values_are_finite(values: str, tmp_path: Path) -> None:
    deltas = [1e-45, -1e-45, 1e-38, -1e-38, 1e-8, 65504.0, -65520.0, 3.4e38, -3.4e38, 1.0]
    base, tuned = {"w": torch.zeros(len(deltas))}, {"w": torch.tensor(deltas)}
    found = grafted(tmp_path, base, tuned, PackOptions(density=1.0, scope=ALL, probe=False, values=values))["w"]
    assert torch.isfinite(found).all()
    stored = read_task(tmp_path / "task.stv").tensors["w"].values
    assert np.isfinite(stored).all()
    assert np.signbit(stored).tolist() == torch.signbit(tuned["w"]).tolist()


def with_integers(changed: int) -> Tensors:
    flags = torch.tensor([True, changed == 1])
    return {"h.0.w": torch.arange(6.0) * (1 + changed), "ids": torch.arange(5) + changed, "flags": flags}


def test_integers_unchanged(tmp_path: Path) -> None:
    base = with_integers(0)
    tuned = {**base, "h.0.w": base["h.0.w"] + 1}
    same(grafted(tmp_path, base, tuned), tuned)
    assert not read_task(tmp_path / "task.stv").extras


def test_integers_changed(tmp_path: Path) -> None:
    same(grafted(tmp_path, with_integers(0), with_integers(1)), with_integers(1))
    assert read_task(tmp_path / "task.stv").extras.keys() == {"ids", "flags"}
    write_checkpoint(tmp_path / "other", {**with_integers(0), "h.0.w": torch.ones(6)})
    pack_to(tmp_path / "other.stv", tmp_path / "base", tmp_path / "other", options=exact)
    stitch(tmp_path / "base", [tmp_path / "task.stv", tmp_path / "other.stv"], tmp_path / "two")
    found = read_checkpoint(tmp_path / "two")
    same({n: found[n] for n in ("ids", "flags")}, {n: with_integers(0)[n] for n in ("ids", "flags")})


@pytest.mark.parametrize(
    ("dtype", "word"),
    [(torch.float64, "F64"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e5m2, "F8_E5M2"), (torch.int8, "I8"),
     (torch.uint8, "U8")],
)  # fmt: skip
def test_dtypes_refused(dtype: torch.dtype, word: str, tmp_path: Path) -> None:
    base = {"h.0.query.weight": torch.arange(6).reshape(2, 3).to(dtype), "h.0.b": torch.ones(3)}
    tuned = {"h.0.query.weight": torch.arange(1, 7).reshape(2, 3).to(dtype), "h.0.b": torch.zeros(3)}
    error = refused(tmp_path, base, tuned)
    assert isinstance(error, CheckpointError)
    assert re.search(rf"h\.0\.query\.weight.*{word}", str(error))


@each_side
@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors"])
def test_quantized_refused(side: str, method: str, tmp_path: Path) -> None:
    for name in ("base", "tuned"):
        files = {"config.json": b'{"quantization_config": {"quant_method": "%s"}}' % method.encode()}
        write_checkpoint(tmp_path / name, {"w": torch.ones(3)}, files=files if name == side else None)
    before = listing(tmp_path)
    with pytest.raises(
        CheckpointError, match=rf"{side}: quantized \({method}\); .*use the checkpoint that was quantiz"
    ):
        pack_to(tmp_path / "task.stv", tmp_path / "base", tmp_path / "tuned", options=exact)
    assert listing(tmp_path) == before
