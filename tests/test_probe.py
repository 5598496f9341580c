"""The probe: seeded inputs derived again from their page, the scale against closed forms, and tiny real models."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hostile import make_pair, run
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from sparsetv.calibrate.match import GRID, choose, match
from sparsetv.errors import ProbeError, SparseTVError
from sparsetv.jobs.evaluate import evaluate
from sparsetv.jobs.options import PackOptions
from sparsetv.jobs.pack import pack_files
from sparsetv.jobs.stitch import stitch
from sparsetv.localize.scope import Scope
from sparsetv.objective import inputs
from sparsetv.objective.setup import Setup, choose_setup
from sparsetv.taskfile import read_task, write_task

BERT = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40,
}  # fmt: skip


# Inputs, derived again from formats/codecs/probe.md


def words(seed: int, name: str) -> Iterator[int]:
    """Little-endian 32-bit integers of a stream, one by one."""
    data = hashlib.shake_256(b"sparsetv probe %d %s" % (seed, name.encode())).digest(1 << 20)
    return (int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**63), count=st.integers(1, 9), vocabulary=st.integers(1, 70_000), shortest=st.integers(1, 9),
    more=st.integers(0, 9), first=st.integers(-1, 50), last=st.integers(-1, 50), pad=st.integers(0, 50),
)  # fmt: skip
def test_tokens_follow_their_page(
    seed: int, count: int, vocabulary: int, shortest: int, more: int, first: int, last: int, pad: int
) -> None:
    longest = shortest + more
    params = {
        "vocabulary": vocabulary, "shortest": shortest, "longest": longest, "first": first, "last": last, "pad": pad,
    }  # fmt: skip
    made = inputs.tokens(seed=seed, count=count, params=params)
    lengths, ids = words(seed, "lengths"), words(seed, "ids")
    for row in range(count):
        length = shortest + next(lengths) % (longest - shortest + 1)
        expected = [next(ids) % vocabulary for _ in range(longest)][:length]
        if first != -1:
            expected[0] = first
        if last != -1:
            expected[-1] = last
        assert made.ids[row].tolist() == expected + [pad] * (longest - length)
        assert made.mask[row].tolist() == [1] * length + [0] * (longest - length)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**63), shape=st.tuples(*[st.integers(1, 5)] * 4))
def test_pixels_follow_their_page(seed: int, shape: tuple[int, int, int, int]) -> None:
    count, channels, height, width = shape
    params = {"channels": channels, "height": height, "width": width}
    made = inputs.pixels(seed=seed, count=count, params=params)
    data = iter(hashlib.shake_256(b"sparsetv probe %d pixels" % seed).digest(math.prod(shape)))
    assert made.dtype == np.float32
    for place in np.ndindex(*shape):
        assert made[place] == np.float32((next(data) - 127.5) / np.float32(73.9))


def test_the_projection_follows_its_page() -> None:
    made = inputs.projection(seed=3, rows=5, columns=64)
    source = words(3, "projection")
    assert made.tolist() == [[(1 / 8 if next(source) & 1 else -1 / 8) for _ in range(64)] for _ in range(5)]


def test_pixels_have_mean_0_and_deviation_1() -> None:
    made = inputs.pixels(seed=0, count=4, params={"channels": 3, "height": 64, "width": 64})
    assert abs(float(made.mean())) < 0.01
    assert abs(float(made.std()) - 1) < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary": 0}, "probe lengths 2 to 5 over 0 tokens make no inputs"),
        ({"shortest": 0}, "probe lengths 0 to 5 over 9 tokens"),
        ({"longest": 1}, "probe lengths 2 to 1 over 9 tokens"),
        ({"first": "x"}, "probe parameter 'first' must be an integer, found 'x'"),
        ({"pad": 1.5}, "probe parameter 'pad' must be an integer, found 1.5"),
        ({"last": True}, "probe parameter 'last' must be an integer, found True"),
    ],
)
def test_parameters_of_a_file_are_checked(change: dict[str, Any], message: str) -> None:
    params = {"vocabulary": 9, "shortest": 2, "longest": 5, "first": -1, "last": -1, "pad": 0} | change
    with pytest.raises(ProbeError, match=message):
        inputs.tokens(seed=0, count=2, params=params)


# Match, against closed forms


class Toy(nn.Module):
    """Hidden states that are an embedding plus one shift per block, so they move as the shifts do."""

    def __init__(self, shifts: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(24, dtype=torch.float32).reshape(12, 2))
        self.shifts = nn.Parameter(shifts.clone())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: object) -> SimpleNamespace:
        start = self.table[input_ids] * attention_mask[..., None]
        states = [start, *(start.repeat(1, 1, 2) + shift for shift in self.shifts)]
        return SimpleNamespace(hidden_states=tuple(states), logits=states[-1].mean(dim=1))


SETUP = Setup("tokens", 0, 8, {"vocabulary": 12, "shortest": 2, "longest": 5, "first": -1, "last": -1, "pad": 0})


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7, 3.0, 5.5, 11.0])
def test_a_graft_in_the_right_direction_gets_the_missing_length(factor: float) -> None:
    """E(s) = (s/c - 1)^2 and R(s) = (s/c)^2, so both scales are c."""
    step = torch.tensor([[0.3, -0.2, 0.0, 0.1], [0.0, 0.5, 0.2, 0.0]])
    found = match(Toy(torch.zeros(2, 4)), Toy(step), Toy(factor * step), SETUP)
    assert found.scale == pytest.approx(factor, rel=0.02)
    assert found.distance < 0.02  # E is interpolated between the scales that were tried


@pytest.mark.parametrize(("factor", "dropped"), [(1.0, 0.5), (1.0, 2.0), (2.0, 3.0), (1.3, 4.0)])
def test_a_graft_that_lacks_directions_gets_the_geometric_mean(factor: float, dropped: float) -> None:
    """Kept and dropped directions at right angles: s_1 = c, s_2^2 = c^2 + |u|^2/|g|^2, and E there is known."""
    kept = torch.tensor([[1.0, 0, 0, 0], [0, 0.5, 0, 0]])
    lost = torch.tensor([[0, 0, dropped, 0], [0, 0, 0, 0.5 * dropped]])
    found = match(Toy(torch.zeros(2, 4)), Toy(kept), Toy(factor * kept + lost), SETUP)
    longest = math.hypot(factor, dropped)
    expected = math.sqrt(factor * longest)
    assert found.scale == pytest.approx(expected, rel=0.02)
    distance = ((expected - factor) ** 2 + dropped**2) / longest**2
    assert found.distance == pytest.approx(distance, rel=0.02)


def test_blocks_count_alike_however_far_they_moved() -> None:
    """E and R are means of ratios (clause 4), not ratios of sums: found by trying scales one by one."""
    kept = torch.tensor([[10.0, 0, 0, 0], [0, 0.1, 0, 0]])
    tuned = torch.tensor([[20.0, 0, 5.0, 0], [0, 0.3, 0, 0.2]])
    found = match(Toy(torch.zeros(2, 4)), Toy(kept), Toy(tuned), SETUP)
    scales = np.linspace(0.5, 16, 100_001)
    error, length = np.zeros_like(scales), np.zeros_like(scales)
    for block in range(2):
        whole = float(tuned[block].square().sum())
        error += sum((s * float(k) - float(t)) ** 2 for k, t in zip(kept[block], tuned[block], strict=True)
                     for s in [scales]) / whole / 2  # fmt: skip
        length += scales**2 * float(kept[block].square().sum()) / whole / 2
    expected = math.sqrt(scales[error.argmin()] * scales[(length >= 1).argmax()])
    assert found.scale == pytest.approx(expected, rel=0.02)


def test_scales_stay_in_the_range_that_was_tried() -> None:
    step = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    far = match(Toy(torch.zeros(2, 4)), Toy(step), Toy(1000 * step), SETUP)
    near = match(Toy(torch.zeros(2, 4)), Toy(step), Toy(0.01 * step), SETUP)
    assert far.scale == pytest.approx(16, rel=0.01)
    assert near.scale == pytest.approx(0.5, rel=0.02)
    assert 0.5 <= near.scale <= far.scale <= 16


def test_match_leaves_the_base_as_it_was() -> None:
    base = Toy(torch.full((2, 4), 0.1))
    match(base, Toy(torch.ones(2, 4)), Toy(2 * torch.ones(2, 4)), SETUP)
    assert (base.shifts == 0.1).all()


def test_a_fine_tune_that_moves_nothing_has_no_scale() -> None:
    with pytest.raises(ProbeError, match="fine-tuning changed no hidden state on random inputs; there is no scale"):
        match(Toy(torch.zeros(2, 4)), Toy(torch.ones(2, 4)), Toy(torch.zeros(2, 4)), SETUP)


def test_hidden_states_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ProbeError, match="outputs on random inputs are not finite"):
        match(Toy(torch.zeros(2, 4)), Toy(torch.ones(2, 4)), Toy(torch.full((2, 4), torch.inf)), SETUP)


def test_choices_have_three_digits() -> None:
    scale = choose([(s / math.pi - 1) ** 2 for s in GRID], [(s / math.pi) ** 2 for s in GRID])
    assert scale == float(f"{scale:.3g}") == pytest.approx(math.pi, rel=0.01)


# Tiny models


def noisy(model: Any, reference: Any, size: float = 0.05) -> Any:
    """`model` with the reference's weights where it has them, plus noise in its blocks."""
    generator = torch.Generator().manual_seed(1)
    known = {name.split(".", 1)[-1] if name.startswith(("bert.", "vit.")) else name: value
             for name, value in reference.state_dict().items()}  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            short = name.split(".", 1)[-1] if name.startswith(("bert.", "vit.")) else name
            if short in known and known[short].shape == parameter.shape:
                parameter.copy_(known[short])
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def save(model: Any, path: Path) -> Path:
    model.save_pretrained(path)
    return path


def bert(room: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    base = transformers.BertModel(transformers.BertConfig(**BERT))
    tuned = noisy(transformers.BertForSequenceClassification(transformers.BertConfig(**BERT, num_labels=3)), base)
    return save(base, room / "base"), save(tuned, room / "tuned")


def gpt2(room: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=100, n_embd=16, n_layer=2, n_head=2, n_positions=40)
    base = transformers.GPT2LMHeadModel(config)
    return save(base, room / "base"), save(noisy(transformers.GPT2LMHeadModel(config), base), room / "tuned")


def vit(room: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 8,
        "patch_size": 4,
    }  # fmt: skip
    base = transformers.ViTModel(transformers.ViTConfig(**options))
    tuned = noisy(transformers.ViTForImageClassification(transformers.ViTConfig(**options, num_labels=5)), base)
    return save(base, room / "base"), save(tuned, room / "tuned")


MODELS = {"bert": bert, "gpt2": gpt2, "vit": vit}
OPTIONS = PackOptions(density=0.2, scope=Scope("blocks"))


@pytest.mark.parametrize("name", MODELS)
def test_tiny_models_are_probed(name: str, tmp_path: Path) -> None:
    base, tuned = MODELS[name](tmp_path)
    task = pack_files(base, tuned, options=replace(OPTIONS, probe=True, seed=7))
    probe = task.probe
    assert probe is not None
    assert 0.5 <= probe.scale <= 16
    assert 0 < probe.distance < 2  # noise is no skill: half as far again as the base may be the best there is
    assert (probe.seed, probe.count) == (7, 128)
    assert probe.kind == {"bert": "tokens", "gpt2": "causal", "vit": "pixels"}[name]
    assert probe.recorded == {"bert": "logits", "gpt2": "last/64", "vit": "logits"}[name]
    np.testing.assert_allclose(probe.outputs, expected_outputs(name, tuned, probe.params), rtol=1e-4, atol=1e-4)


def expected_outputs(name: str, tuned: Path, params: Any) -> Any:
    """The fine-tune's answers, one input at a time, without padding."""
    rows = []
    if name == "vit":
        model = transformers.ViTForImageClassification.from_pretrained(tuned).eval()
        images = inputs.pixels(seed=7, count=128, params=params)
        with torch.inference_mode():
            return np.concatenate([model(torch.from_numpy(image[None])).logits.numpy() for image in images])
    kind = transformers.BertForSequenceClassification if name == "bert" else transformers.GPT2LMHeadModel
    model = kind.from_pretrained(tuned).eval()
    made = inputs.tokens(seed=7, count=128, params=params)
    with torch.inference_mode():
        for ids, mask in zip(made.ids, made.mask, strict=True):
            logits = model(torch.from_numpy(ids[None, : mask.sum()])).logits
            rows.append(logits[0] if name == "bert" else logits[0, -1])
    outputs = torch.stack(rows).numpy()
    return outputs if name == "bert" else outputs @ inputs.projection(seed=7, rows=100, columns=64)


def test_a_probe_is_the_same_every_time_and_another_for_another_seed(tmp_path: Path) -> None:
    base, tuned = bert(tmp_path)
    probes = [pack_files(base, tuned, options=replace(OPTIONS, probe=True, seed=seed)).probe for seed in (3, 3, 4)]
    first, again, other = (probe for probe in probes if probe is not None)
    assert first.outputs.tobytes() == again.outputs.tobytes()
    assert (first.scale, first.distance, first.params) == (again.scale, again.distance, again.params)
    assert first.outputs.tobytes() != other.outputs.tobytes()


def test_a_graft_of_everything_needs_no_scale(tmp_path: Path) -> None:
    base, tuned = gpt2(tmp_path)
    probe = pack_files(base, tuned, options=PackOptions(1.0, Scope("all"), probe=True)).probe
    assert probe is not None
    assert probe.scale == pytest.approx(1, rel=0.05)
    assert probe.distance < 1e-2


def test_a_probed_task_stitches_at_its_scale_and_loads(tmp_path: Path) -> None:
    base, tuned = bert(tmp_path)
    done = run("pack", base, tuned, "-o", tmp_path / "t.stv", "--density", "0.2", "--probe", "--json")
    scale = json.loads(done.stdout)["scale"]
    task = read_task(tmp_path / "t.stv")
    assert task.probe is not None
    assert task.probe.scale == scale
    record = stitch(base, [tmp_path / "t.stv"], tmp_path / "out")
    assert (record.members[0].policy, record.members[0].scale) == ("match", scale)
    model = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "out")
    head = load_file(tuned / "model.safetensors")["classifier.weight"]
    assert torch.equal(model.classifier.weight, head)


# Where there is no probe


def test_a_model_that_cannot_be_built_is_packed_with_a_note(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    words_ = ("pack", pair.base, pair.tuned, "-o", tmp_path / "t.stv", "--scope", "all")
    done = run(*words_)
    assert done.exit_code == 0
    assert "no probe, so no match scale: config.json names no transformers class (architectures: none)" in done.stderr
    assert read_task(tmp_path / "t.stv").probe is None
    (tmp_path / "t.stv").unlink()
    done = run(*words_, "--probe")
    assert isinstance(done.exception, ProbeError)
    assert "config.json names no transformers class" in str(done.exception)
    assert not (tmp_path / "t.stv").exists()
    done = run(*words_, "--no-probe")
    assert "probe" not in done.stderr


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["BertModel"], "model_type": "bert"},
        {"architectures": ["NoSuchModel"], "model_type": "bert"},
        {"architectures": ["pipeline"], "model_type": "bert"},
        {"architectures": ["BertModel"], "model_type": "no-such-type"},
        {"architectures": ["BertModel"], "model_type": 7},
        {"architectures": ["BertModel"]},
        {"architectures": "BertModel", "model_type": "bert"},
        {"architectures": [7], "model_type": "bert"},
        {"architectures": 5, "model_type": "bert"},
        {"architectures": {"a": 1}, "model_type": "bert"},
        {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": "wide"},
        {"architectures": ["BertModel"], "model_type": "bert", "num_attention_heads": 0},
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_its_weights_only_costs_the_probe(
    config: dict[str, Any], tmp_path: Path
) -> None:
    pair = make_pair(tmp_path, config=config)
    notes: list[str] = []
    options = PackOptions(0.2, Scope("all"))
    assert pack_files(pair.base, pair.tuned, options=options, note=notes.append).probe is None
    assert len(notes) == 1
    assert notes[0].startswith("no probe, so no match scale: ")
    with pytest.raises(ProbeError, match=r"\S"):
        pack_files(pair.base, pair.tuned, options=replace(options, probe=True))


def resnet() -> Any:
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=2
    )
    return transformers.ResNetForImageClassification(config)


def clip() -> Any:
    small: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    }  # fmt: skip
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 30}, vision_config={**small, "image_size": 8, "patch_size": 4},
        projection_dim=8, num_labels=2,
    )  # fmt: skip
    return transformers.CLIPForImageClassification(config)


def t5() -> Any:
    config = transformers.T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return transformers.T5ForConditionalGeneration(config)


@pytest.mark.parametrize("make", [resnet, clip, t5])
def test_models_with_other_inputs_are_packed_all_the_same(make: Callable[[], Any], tmp_path: Path) -> None:
    """A configuration without an image size, one inside another, and an encoder with a decoder."""
    torch.manual_seed(0)
    base = make()
    paths = save(base, tmp_path / "base"), save(noisy(make(), base), tmp_path / "tuned")
    notes: list[str] = []
    task = pack_files(*paths, options=PackOptions(0.2, Scope("all")), note=notes.append)
    write_task(tmp_path / "t.stv", task)
    assert (task.probe is None) == (len(notes) == 1)


def test_a_model_without_inputs_that_can_be_made_says_so() -> None:
    with pytest.raises(ProbeError, match="T5ForConditionalGeneration takes neither token ids nor pixels alone"):
        choose_setup(t5())


@pytest.mark.parametrize("where", ["tokenizer", "model", "unknown model"])
def test_code_of_a_checkpoint_is_never_run(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where someone would answer yes to transformers' question (BAD_INPUTS 46)."""
    base, tuned = bert(tmp_path)
    sentinel = tmp_path / "ran"
    (tuned / "evil.py").write_text(f"import pathlib\npathlib.Path({str(sentinel)!r}).touch()\nclass Evil: pass\n")
    if where == "tokenizer":
        config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
        (tuned / "tokenizer_config.json").write_text(json.dumps(config))
    else:
        config = json.loads((tuned / "config.json").read_text())
        config |= {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForSequenceClassification": "evil.Evil"}}
        config |= {} if where == "model" else {"model_type": "evil", "architectures": ["Evil"]}
        (tuned / "config.json").write_text(json.dumps(config))
    (tmp_path / "d.jsonl").write_text('{"text": "a", "label": 0}\n')
    monkeypatch.setattr("builtins.input", lambda prompt="": "y")
    pack_files(base, tuned, options=OPTIONS)
    assert not sentinel.exists()
    with suppress(SparseTVError):
        evaluate(tuned, tmp_path / "d.jsonl")
    assert not sentinel.exists()
