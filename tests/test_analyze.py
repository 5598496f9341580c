"""Where masks fall and what tasks share, against dense oracles; real names; commands and pictures."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from helpers import hide
from hostile import base_tensors, checkpoint, make_pair, pack_to, run, tuned_tensors
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open

import sparsetv
from sparsetv import Store
from sparsetv.analyze.components import COMPONENTS, OTHER, place_of
from sparsetv.analyze.overlap import compare
from sparsetv.analyze.where import OUTSIDE, locate
from sparsetv.csr import SparseTensor
from sparsetv.errors import BaseMismatchError, FormatError, NotFoundError, OutputError, UsageError
from sparsetv.models import quiet
from sparsetv.task_vector import SparseTaskVector

pytestmark = pytest.mark.usefixtures("no_sync")

SHAPES: dict[str, tuple[int, ...]] = {
    "embeddings.word_embeddings.weight": (3, 4),
    "encoder.layer.0.attention.self.query.weight": (4, 4),
    "encoder.layer.0.output.LayerNorm.bias": (4,),
    "encoder.layer.10.intermediate.dense.weight": (2, 5),
    "encoder.layer.2.strange.weight": (0, 3),
    "encoder.layer.2.strange.gain": (),
}


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> SparseTaskVector:
    """A task whose tensors are replaced."""
    room = tmp_path_factory.mktemp("pattern")
    pair = make_pair(room)
    return sparsetv.read_task(pack_to(room / "task.stv", pair.base, pair.tuned))


Dense = dict[str, NDArray[np.float32]]
"""Kept values per tensor, flat, NaN where nothing is kept."""


@st.composite
def dense_tasks(draw: st.DrawFn) -> list[Dense]:
    values = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e30, -1e-40]), st.floats(-4, 4, width=32))
    tasks = []
    for _ in range(draw(st.integers(1, 6))):
        names = draw(st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, unique=True))
        task = {}
        for name in names:
            size = int(np.prod(SHAPES[name], dtype=np.int64))
            cells = st.lists(st.one_of(st.none(), values), min_size=size, max_size=size)
            task[name] = np.array([np.nan if cell is None else cell for cell in draw(cells)], np.float32)
        tasks.append(task)
    return tasks


def sparse(pattern: SparseTaskVector, dense: Sequence[Dense]) -> list[SparseTaskVector]:
    tasks = []
    for number, cells in enumerate(dense):
        tensors = {}
        for name in sorted(cells):
            positions = np.flatnonzero(~np.isnan(cells[name]))
            tensors[name] = SparseTensor("F32", SHAPES[name], positions, cells[name][positions])
        tasks.append(replace(pattern, name=f"task {number}", tensors=tensors))
    return tasks


def flat(dense: Dense) -> NDArray[np.float64]:
    """The whole model as one vector, NaN where nothing is kept."""
    parts = [dense.get(name, np.full(int(np.prod(shape)), np.nan)) for name, shape in SHAPES.items()]
    return np.concatenate(parts).astype(np.float64)


def angle(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    if not first.any() or not second.any():
        return None
    return float(first / np.linalg.norm(first) @ (second / np.linalg.norm(second)))


@given(dense_tasks())
def test_overlap_is_that_of_dense_masks(pattern: SparseTaskVector, dense: list[Dense]) -> None:
    found = compare(sparse(pattern, dense))
    whole = [flat(task) for task in dense]
    keeps = np.array([~np.isnan(vector) for vector in whole])
    by = keeps.sum(axis=0)
    assert [row.entries for row in found.coverage] == [int((by == n).sum()) for n in range(1, len(dense) + 1)]
    assert found.union == int((by > 0).sum())
    sizes = {name: task[name].size for task in dense for name in task}
    assert found.scope == sum(sizes.values())
    assert [(task.kept, task.entries) for task in found.tasks] == [
        (int(mask.sum()), sum(cells.size for cells in task.values())) for mask, task in zip(keeps, dense, strict=True)
    ]
    assert len(found.pairs) == len(dense) * (len(dense) - 1) // 2
    for pair in found.pairs:
        i, j = (int(name.split()[1]) for name in (pair.first, pair.second))
        both, either = keeps[i] & keeps[j], keeps[i] | keeps[j]
        assert pair.shared == both.sum()
        assert pair.jaccard == pytest.approx(both.sum() / either.sum() if either.any() else 0.0)
        mine, theirs = whole[i][both], whole[j][both]
        assert pair.cosine == pytest.approx(angle(np.nan_to_num(whole[i]), np.nan_to_num(whole[j])), abs=1e-9)
        assert pair.cosine_shared == pytest.approx(angle(mine, theirs), abs=1e-9)
        same = (np.sign(mine) == np.sign(theirs)) & (mine != 0)
        assert pair.agree == (pytest.approx(same.mean()) if both.any() else None)
        meet = sum(
            float((~np.isnan(dense[i][name])).sum() * (~np.isnan(dense[j][name])).mean())
            for name in dense[i].keys() & dense[j].keys()
            if dense[i][name].size
        )
        rest = keeps[i].sum() + keeps[j].sum() - meet
        assert pair.expected == pytest.approx(meet / rest if rest else 0.0)


@given(dense_tasks(), st.randoms(use_true_random=False))
def test_the_order_of_tasks_changes_no_count_and_no_cosine(
    pattern: SparseTaskVector, dense: list[Dense], random: Any
) -> None:
    tasks = sparse(pattern, dense)
    mixed = random.sample(tasks, len(tasks))
    once, again = compare(tasks), compare(mixed)
    assert once == compare(tasks)
    assert once.coverage == again.coverage
    known = {frozenset((pair.first, pair.second)): pair for pair in again.pairs}
    for pair in once.pairs:
        other = known[frozenset((pair.first, pair.second))]
        assert (pair.shared, pair.jaccard, pair.agree) == (other.shared, other.jaccard, other.agree)
        assert pair.cosine_shared == pytest.approx(other.cosine_shared, abs=1e-12)


def test_random_masks_overlap_as_much_as_is_expected_of_them(pattern: SparseTaskVector) -> None:
    random = np.random.default_rng(0)
    sizes, tasks = {"a": (20000, 0.3), "b": (80000, 0.02)}, []
    for number in range(50):
        tensors = {}
        for name, (size, density) in sizes.items():
            positions = np.sort(random.choice(size, round(density * size), replace=False))
            tensors[name] = SparseTensor("F32", (size,), positions, np.ones(len(positions), np.float32))
        tasks.append(replace(pattern, name=str(number), tensors=tensors))
    found = compare(tasks)
    assert len(found.pairs) == 50 * 49 // 2
    assert np.mean([pair.jaccard for pair in found.pairs]) == pytest.approx(found.pairs[0].expected, rel=0.005)
    one_density = found.tasks[0].density / (2 - found.tasks[0].density)
    assert found.pairs[0].expected > 1.9 * one_density
    assert sum(row.entries for row in found.coverage) == found.union


@given(dense_tasks())
def test_groups_are_counts_by_name(pattern: SparseTaskVector, dense: list[Dense]) -> None:
    found = locate(sparse(pattern, dense))
    groups = {
        "embeddings.word_embeddings.weight": (OUTSIDE, "embeddings"),
        "encoder.layer.0.attention.self.query.weight": ("encoder.layer.0", "query"),
        "encoder.layer.0.output.LayerNorm.bias": ("encoder.layer.0", "norm bias"),
        "encoder.layer.10.intermediate.dense.weight": ("encoder.layer.10", "feed-forward up"),
        "encoder.layer.2.strange.weight": ("encoder.layer.2", "other"),
        "encoder.layer.2.strange.gain": ("encoder.layer.2", "other"),
    }
    order = ["encoder.layer.0", "encoder.layer.2", "encoder.layer.10", OUTSIDE]
    there = {group for task in dense for name in task for group in groups[name]}
    for profile, mine in [*zip(found.tasks, ([task] for task in dense), strict=True), (found.together, dense)]:
        assert [group.name for group in profile.layers] == [name for name in order if name in there]
        assert [group.name for group in profile.components] == [name for name in COMPONENTS if name in there]
        kept = sum(int((~np.isnan(cells)).sum()) for task in mine for cells in task.values())
        entries = sum(cells.size for task in mine for cells in task.values())
        assert (profile.kept, profile.entries) == (kept, entries)
        for group in (*profile.layers, *profile.components):
            cells = [values for task in mine for name, values in task.items() if group.name in groups[name]]
            count = sum(int((~np.isnan(values)).sum()) for values in cells)
            size = sum(values.size for values in cells)
            assert (group.kept, group.entries) == (count, size)
            assert group.share == pytest.approx(count / kept if kept else 0)
            assert group.density == pytest.approx(count / size if size else 0)
            assert group.lift == pytest.approx(count / size / (kept / entries) if size and kept else 0)


SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 30,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
IMAGES: dict[str, Any] = {**SMALL, "image_size": 8, "patch_size": 4}
GROUPED: dict[str, Any] = {**SMALL, "num_key_value_heads": 1}
T5: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 30}

ATTENTION = {"query", "key", "value", "attention output"}
FEED_FORWARD = {"feed-forward up", "feed-forward down"}
GATED = FEED_FORWARD | {"feed-forward gate"}
NORMS = {"norm weight", "norm bias"}
ENDS = {"embeddings", "head"}
PLAIN = ATTENTION | FEED_FORWARD | NORMS | ENDS
LLAMA = ATTENTION | GATED | ENDS | {"norm weight"}

ARCHITECTURES: Mapping[str, tuple[Any, dict[str, Any], set[str]]] = {
    "BertForSequenceClassification": (transformers.BertConfig, SMALL, PLAIN | {"pooler"}),
    "BertForMaskedLM": (transformers.BertConfig, SMALL, PLAIN),
    "RobertaForSequenceClassification": (transformers.RobertaConfig, SMALL, PLAIN),
    "DistilBertForSequenceClassification": (
        transformers.DistilBertConfig,
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 30},
        PLAIN,
    ),
    "ViTForImageClassification": (transformers.ViTConfig, IMAGES, PLAIN),
    "CLIPModel": (
        transformers.CLIPConfig, {"text_config": SMALL, "vision_config": IMAGES}, PLAIN,
    ),
    "GPT2LMHeadModel": (
        transformers.GPT2Config,
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 30, "bos_token_id": 1, "eos_token_id": 2},
        {"query, key and value", "attention output", "embeddings"} | FEED_FORWARD | NORMS,
    ),
    "LlamaForCausalLM": (transformers.LlamaConfig, GROUPED, LLAMA),
    "Qwen2ForCausalLM": (transformers.Qwen2Config, GROUPED, LLAMA),
    "Qwen3ForCausalLM": (transformers.Qwen3Config, GROUPED, LLAMA),
    "MistralForCausalLM": (transformers.MistralConfig, GROUPED, LLAMA),
    "MixtralForCausalLM": (
        transformers.MixtralConfig, {**GROUPED, "num_local_experts": 2}, LLAMA | {"router"},
    ),
    "T5ForConditionalGeneration": (transformers.T5Config, T5, ATTENTION | FEED_FORWARD | {"norm weight", "embeddings"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_of_real_architectures_are_known(tmp_path: Path, name: str) -> None:
    config, values, expected = ARCHITECTURES[name]
    with quiet():
        getattr(transformers, name)(config(**values)).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        names = list(file.keys())
    places = {key: place_of(key) for key in names}
    assert [key for key, place in places.items() if place.component == OTHER] == []
    assert {place.component for place in places.values()} == expected
    numbered = {key for key in names if re.search(r"\.(layers?|h|block)\.\d", key)}
    assert {key for key, place in places.items() if place.layer is not None} == numbered
    assert {place.layer for place in places.values()} == {0, 1, None}
    towers = {"CLIPModel": 2, "T5ForConditionalGeneration": 2}.get(name, 1)
    assert len({place.stack for place in places.values() if place.layer is not None}) == towers


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("decoder.block.1.layer.2.DenseReluDense.wi_0.weight", "feed-forward gate"),
        ("decoder.block.1.layer.2.DenseReluDense.wi_1.weight", "feed-forward up"),
        ("model.layers.3.block_sparse_moe.experts.7.w1.weight", "feed-forward gate"),
        ("model.layers.3.block_sparse_moe.experts.7.w2.weight", "feed-forward down"),
        ("model.layers.3.block_sparse_moe.experts.7.w3.weight", "feed-forward up"),
        ("bert.encoder.layer.0.attention.output.dense.bias", "attention output"),
        ("bert.encoder.layer.0.output.dense.bias", "feed-forward down"),
        ("encoder.layer.0.attention.output.LayerNorm.gamma", "norm weight"),
        ("encoder.layer.0.attention.output.LayerNorm.beta", "norm bias"),
        ("h.0.attn.c_proj.weight", "attention output"),
        ("h.0.mlp.c_proj.weight", "feed-forward down"),
        ("model.layers.0.mlp.gate_up_proj.weight", "other"),
        ("model.layers.0.query", "other"),
        ("backbone.mixer.query.weight", "other"),
        ("conv1.weight", "other"),
        ("", "other"),
    ],
)
def test_components_are_told_by_patterns_and_never_guessed(name: str, component: str) -> None:
    assert place_of(name).component == component


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, tasks `a` and `b` of it in files and in a store, and task `c` of another base."""
    base = base_tensors()
    checkpoint(tmp_path / "base", base)
    store = Store.init(tmp_path / "tasks", tmp_path / "base")
    for seed, name in enumerate("ab", start=1):
        checkpoint(tmp_path / name, tuned_tensors(base, seed))
        store.add(pack_to(tmp_path / f"{name}.stv", tmp_path / "base", tmp_path / name))
    other = {**base, "pooler.dense.weight": base["pooler.dense.weight"] + 1}
    checkpoint(tmp_path / "other", other)
    checkpoint(tmp_path / "c", tuned_tensors(other, 3))
    pack_to(tmp_path / "c.stv", tmp_path / "other", tmp_path / "c")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["overlap", "where"])
@pytest.mark.parametrize("words", [["a.stv"], ["a.stv", "b.stv"], ["tasks:*"], ["tasks:b", "a.stv"]])
def test_commands_print_what_the_library_finds(room: Path, command: str, words: list[str]) -> None:
    found = getattr(sparsetv, command)(words)
    shown = run(command, *words, "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout) == json.loads(json.dumps(asdict(found)))
    text = run(command, *words).stdout
    names = [task.name for task in found.tasks]
    assert all(name in text for name in names) or (command == "where" and len(names) == 1)
    assert f"{found.tasks[0].kept:,}" in text or command == "where"


def test_text_says_what_is_undefined(room: Path) -> None:
    a = sparsetv.read_task("a.stv")
    nothing, no_values = np.zeros(0, np.int64), np.zeros(0, np.float32)
    tensors = {name: SparseTensor(t.dtype, t.shape, nothing, no_values) for name, t in a.tensors.items()}
    sparsetv.write_task("empty.stv", replace(a, name="empty", tensors=tensors))
    text = run("overlap", "a.stv", "empty.stv").stdout
    assert re.search(r"^a +empty +0 +0\.0000 +0\.0000 +- +- +-$", text, re.MULTILINE)
    assert run("where", "empty.stv", "--plot", "empty.png").exit_code == 0
    assert run("overlap", "empty.stv", "--plot", "empty.png").exit_code == 0


@pytest.mark.parametrize("command", ["overlap", "where"])
def test_what_does_not_fit_is_refused(room: Path, command: str) -> None:
    (room / "broken.stv").write_bytes((room / "a.stv").read_bytes()[:-1])
    analyze = getattr(sparsetv, command)
    cases: list[tuple[list[str], type[Exception], str]] = [
        (["a.stv", "c.stv"], BaseMismatchError, r"first difference: pooler\.dense\.weight"),
        (["a.stv", "b.stv", "a.stv"], UsageError, "two tasks are named 'a'"),
        (["a.stv", "tasks:*"], UsageError, "two tasks are named 'a'"),
        ([], UsageError, "no tasks"),
        (["none.stv"], NotFoundError, "none.stv"),
        (["tasks:x"], NotFoundError, "'x'"),
        (["broken.stv"], FormatError, "broken.stv"),
    ]
    for words, error, match in cases:
        with pytest.raises(error, match=match):
            analyze(words)
    assert type(run(command, "a.stv", "c.stv").exception) is BaseMismatchError
    assert run(command, "a.stv", "a.stv").exit_code != 0


@pytest.mark.parametrize("command", ["overlap", "where"])
@pytest.mark.parametrize("words", [["a.stv"], ["a.stv", "b.stv"]])
def test_pictures_are_made_and_are_the_same_every_time(room: Path, command: str, words: list[str]) -> None:
    for name in ("x.png", "y.svg", "x2.png", "y2.svg"):
        assert run(command, *words, "--plot", name).exit_code == 0
    assert (room / "x.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    text = (room / "y.svg").read_text()
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert ">a</text>" in text
    assert (room / "x.png").read_bytes() == (room / "x2.png").read_bytes()
    assert (room / "y.svg").read_bytes() == (room / "y2.svg").read_bytes()


def test_a_picture_of_many_tasks_with_odd_names_is_made(room: Path) -> None:
    names = [*(f"task {number}" for number in range(17)), "$x^$", "漢字", "<b>&"]
    tasks = [replace(sparsetv.read_task("a.stv"), name=name) for name in names]
    sparsetv.overlap(tasks, plot="many.png")
    sparsetv.where(tasks, plot="many.svg")
    assert (room / "many.png").stat().st_size > 10_000
    words = {element.text for element in ET.parse("many.svg").iter("{http://www.w3.org/2000/svg}text")}
    assert set(names) <= words


@pytest.mark.parametrize("command", ["overlap", "where"])
def test_a_picture_that_cannot_be_made_is_refused_before_any_work(
    room: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyze = getattr(sparsetv, command)
    with pytest.raises(UsageError, match=r"ends in \.png or \.svg"):
        analyze(["none.stv"], plot="x.pdf")
    with pytest.raises(OutputError, match="does not exist"):
        analyze(["none.stv"], plot="nowhere/x.png")
    hide("matplotlib", monkeypatch)
    with pytest.raises(NotFoundError, match=r"sparsetv\[demo\]"):
        analyze(["none.stv"], plot="x.png")
    assert not list(room.glob("x.*"))
