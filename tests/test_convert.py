"""Pickled weights become safetensors when asked, and run nothing; no other command opens a pickle."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import read_checkpoint, tree
from hostile import listing, outcome, run

from sparsetv import convert
from sparsetv.errors import CheckpointError, FormatError, LimitError, NotFoundError, OutputError

TENSORS = {
    "h.0.w": torch.arange(12.0).reshape(3, 4), "h.0.b": torch.tensor([-0.0, float("nan"), 1e-45]),
    "half": torch.arange(5).bfloat16(), "ids": torch.arange(4), "flag": torch.tensor([True, False]),
    "scalar": torch.tensor(2.0), "empty": torch.zeros(0, 3),
}  # fmt: skip


class Evil:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(Path(os.environ["EVIL_PATH"])),)


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What would be there if a pickle had run."""
    monkeypatch.setenv("EVIL_PATH", str(tmp_path / "ran"))
    return tmp_path / "ran"


def pickled(path: Path, value: object, **options: bool) -> Path:
    path.mkdir(exist_ok=True)
    torch.save(value, path / "pytorch_model.bin", **options)
    (path / "config.json").write_text("{}")
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_every_bit_arrives(zipped: bool, tmp_path: Path) -> None:
    source = pickled(tmp_path / "old", TENSORS, _use_new_zipfile_serialization=zipped)
    assert convert(source, tmp_path / "new") == tuple(sorted(TENSORS))
    found = read_checkpoint(tmp_path / "new")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"model.safetensors", "config.json"}


def test_shards_and_their_index_arrive(tmp_path: Path) -> None:
    source = tmp_path / "old"
    source.mkdir()
    names, weight_map = sorted(TENSORS), {}
    for number in range(2):
        shard = f"pytorch_model-0000{number + 1}-of-00002.bin"
        torch.save({name: TENSORS[name] for name in names[number::2]}, source / shard)
        weight_map.update(dict.fromkeys(names[number::2], shard))
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    result = run("convert", source, "-o", tmp_path / "new")
    assert result.output == f"{tmp_path / 'new'}: {len(TENSORS)} tensors\n"
    assert read_checkpoint(tmp_path / "new").keys() == TENSORS.keys()


def test_tensors_that_share_memory_or_are_views_arrive(tmp_path: Path) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    source = pickled(tmp_path / "old", {"a": table, "tied": table, "view": table.T, "tail": table[1:]})
    convert(source, tmp_path / "new")
    found = read_checkpoint(tmp_path / "new")
    assert torch.equal(found["a"], table)
    assert torch.equal(found["tied"], table)
    assert torch.equal(found["view"], table.T)
    assert torch.equal(found["tail"], table[1:])


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, evil: Path) -> None:
    with DangerousPickle(tmp_path / "old") as source:
        before = listing(tmp_path)
        for path in (source, source / "pytorch_model.bin"):
            with pytest.raises(FormatError, match=r"\.bin: is broken, or holds more than tensors and would run"):
                convert(path, tmp_path / "new")
    assert not evil.exists()
    assert listing(tmp_path) == before


class DangerousPickle:
    """A checkpoint whose pickle runs code; proves that it would."""

    def __init__(self, path: Path) -> None:
        self.path = pickled(path, {"a": Evil()})

    def __enter__(self) -> Path:
        ran = Path(os.environ["EVIL_PATH"])
        torch.load(self.path / "pytorch_model.bin", weights_only=False)
        assert ran.is_dir(), "the pickle is harmless, so the test shows nothing"
        ran.rmdir()
        return self.path

    def __exit__(self, *_: object) -> None:
        return


@pytest.mark.parametrize("command", ["pack", "stitch", "verify", "localize", "evaluate"])
def test_no_other_command_opens_a_pickle(command: str, tmp_path: Path, evil: Path) -> None:
    with DangerousPickle(tmp_path / "old") as source:
        file = source / "pytorch_model.bin"
        words: dict[str, tuple[object, ...]] = {
            "pack": (source, source, "-o", tmp_path / "x.stv"), "stitch": (file, "-o", tmp_path / "out"),
            "verify": (file,), "localize": (file, file, "-o", tmp_path / "m.safetensors"),
            "evaluate": (source, "--data", tmp_path / "none.jsonl"),
        }  # fmt: skip
        (tmp_path / "none.jsonl").write_text('{"text": "a", "label": 0}\n')
        before = listing(tmp_path)
        result = run(command, *words[command] if command != "stitch" else (file, file, "-o", tmp_path / "out"))
    assert result.exception is not None
    assert "sparsetv convert" in str(result.exception)
    assert not evil.exists()
    assert listing(tmp_path) == before


BROKEN: dict[str, object] = {
    "a list": [torch.zeros(2)], "numbers": {"a": 1}, "nested": {"state_dict": {"a": torch.zeros(2)}}, "empty": {},
    "keys": {1: torch.zeros(2)}, "sparse": {"a": torch.eye(2).to_sparse()},
    "no data": {"a": torch.zeros(2, device="meta")}, "torch's dtype": {"a": torch.zeros(2, dtype=torch.complex128)},
    "a dtype that nothing reads": {"a": torch.zeros(2).to(torch.float8_e4m3fnuz)}, "deep": {"a": torch.zeros([1] * 17)},
    "the name of metadata": {"__metadata__": torch.zeros(2)}, "half a character": {"a\ud800": torch.zeros(2)},
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_flat_dict_of_dense_tensors_is_refused(case: str, tmp_path: Path) -> None:
    source = pickled(tmp_path / "old", BROKEN[case])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: .*; save "):
        convert(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("part", ["data.pkl", "data/0"])
def test_a_zip_with_compressed_parts_is_refused(part: str, tmp_path: Path) -> None:
    source = pickled(tmp_path / "old", TENSORS) / "pytorch_model.bin"
    with zipfile.ZipFile(source) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(source, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if name.endswith(part) else zipfile.ZIP_STORED)
    with pytest.raises(FormatError, match=r"pytorch_model\.bin: part .* is compressed, .*; fetch it again"):
        convert(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_tensor_that_repeats_a_byte_without_end_is_refused(tmp_path: Path) -> None:
    source = pickled(tmp_path / "old", {"a": torch.zeros(1).expand(1 << 44)})
    with pytest.raises(LimitError, match=r"pytorch_model\.bin: .* would become 70368744177664, limit 64 times"):
        convert(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("size", [0, 1, 10, 300])
def test_a_file_that_is_cut_off_is_refused(size: int, tmp_path: Path) -> None:
    source = pickled(tmp_path / "old", TENSORS)
    file = source / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(FormatError, match=r"pytorch_model\.bin: .*; (fetch it again|get the checkpoint)"):
        convert(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_does_not_run(protocol: int, tmp_path: Path, evil: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(Evil(), protocol=protocol))
    assert isinstance(outcome(lambda: convert(path, tmp_path / "new")), FormatError)
    assert not evil.exists()


@pytest.mark.parametrize("shard", ["../secret.bin", "/etc/passwd", "a/b.bin", "c:x.bin", "gone.bin", "x.safetensors"])
def test_an_index_cannot_reach_outside_its_directory(shard: str, tmp_path: Path) -> None:
    source = tmp_path / "old"
    source.mkdir()
    torch.save({"a": torch.zeros(2)}, tmp_path / "secret.bin")
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(FormatError, match=r"shard"):
        convert(source, tmp_path / "new")


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "old"
    source.mkdir()
    torch.save({"a": torch.zeros(2)}, tmp_path / "secret.bin")
    (source / "a.bin").symlink_to(tmp_path / "secret.bin")
    (source / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "a.bin"}}')
    with pytest.raises(FormatError, match="leaves the directory"):
        convert(source, tmp_path / "new")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = pickled(tmp_path / "old", TENSORS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    before = tree(tmp_path)
    for target in (source, tmp_path / "full", source / "config.json"):
        with pytest.raises(OutputError, match="exists; name a new directory"):
            convert(source, target)
    with pytest.raises(NotFoundError, match=r"no pytorch_model\.bin"):
        convert(tmp_path / "full", tmp_path / "new")
    with pytest.raises(CheckpointError, match="has none of the suffixes"):
        convert(tmp_path / "full" / "mine", tmp_path / "new")
    assert tree(tmp_path) == before
