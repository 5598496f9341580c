"""Places of checkpoint tensors in live models: read through, written through, refused."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import Tensors, read_checkpoint, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import conversion_mapping, core_model_loading

from sparsetv.errors import NamesError, ShapeError
from sparsetv.models import quiet
from sparsetv.places.conversion import find_rules
from sparsetv.places.markers import Layout, find_layouts, row_major
from sparsetv.places.names import find_places
from sparsetv.places.place import Place

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
IDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
TEXT = {**SIZES, **IDS, "vocab_size": 40, "max_position_embeddings": 32}
VISION = {**SIZES, "image_size": 8, "patch_size": 4}
GPT2 = {**IDS, "n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 40, "n_positions": 32}
EXPERTS = {**TEXT, "num_key_value_heads": 2, "moe_intermediate_size": 12, "num_experts": 11, "head_dim": 4}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertModel": ("BertConfig", TEXT),
    "BertForSequenceClassification": ("BertConfig", TEXT),
    "RobertaForSequenceClassification": ("RobertaConfig", TEXT),
    "ViTForImageClassification": ("ViTConfig", VISION),
    "CLIPModel": ("CLIPConfig", {"text_config": TEXT, "vision_config": VISION, "projection_dim": 16}),
    "CLIPVisionModel": ("CLIPVisionConfig", VISION),
    "GPT2LMHeadModel": ("GPT2Config", GPT2),
    "LlamaForCausalLM": ("LlamaConfig", {**TEXT, "num_key_value_heads": 2}),
    "MixtralForCausalLM": ("MixtralConfig", {**TEXT, "num_key_value_heads": 2, "num_local_experts": 11}),
    "Qwen2MoeForCausalLM": ("Qwen2MoeConfig", {**EXPERTS, "shared_expert_intermediate_size": 8}),
    "Qwen3MoeForCausalLM": ("Qwen3MoeConfig", EXPERTS),
}
"""Class, its configuration's class, and what makes it tiny. 11 experts: names do not sort as numbers do."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def make(name: str, **changes: object) -> Any:
    """A tiny model without two equal entries in a tensor."""
    config, arguments = CONFIGS[name]
    model = getattr(transformers, name)(getattr(transformers, config)(**{**arguments, **changes}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def load(name: str, path: Path) -> tuple[Any, dict[str, Any]]:
    """The model that transformers makes of a checkpoint, and its report."""
    model, report = getattr(transformers, name).from_pretrained(path, output_loading_info=True)
    return model.eval(), report


def rewrite(path: Path, source: Path, rename: Callable[[str], str]) -> Tensors:
    """Write a checkpoint again under other names."""
    tensors = {rename(name): tensor for name, tensor in read_checkpoint(source).items()}
    write_checkpoint(path, tensors, files={"config.json": (source / "config.json").read_bytes()})
    return tensors


def shapes_of(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def read(place: Place) -> torch.Tensor:
    """The checkpoint tensor as the live model holds it."""
    count = int(torch.Size(place.shape).numel())
    return place.tensor.reshape(-1)[place.flat(torch.arange(count))].reshape(place.shape)


def assert_reads(model: nn.Module, tensors: Tensors) -> dict[str, Place]:
    """Every tensor of a checkpoint is found in the model, bit for bit, in the tensor that its place names."""
    places = find_places(model, shapes_of(tensors))
    live = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    assert list(places) == sorted(tensors)
    for name, place in places.items():
        assert torch.equal(read(place), tensors[name]), name
        assert place.tensor.data_ptr() == live[place.parameter].data_ptr(), name
        same = place.tensor.numel() == tensors[name].numel() and torch.equal(
            place.tensor.reshape(tensors[name].shape), tensors[name]
        )
        assert place.identity == same, name
    return places


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_of_a_checkpoint_is_read_and_written_through_its_place(name: str, tmp_path: Path) -> None:
    make(name).save_pretrained(tmp_path / "base")
    before = read_checkpoint(tmp_path / "base")
    model, _ = load(name, tmp_path / "base")
    places = assert_reads(model, before)

    changed = {}
    for number, (key, place) in enumerate(places.items()):
        changed[key] = number * 7 % before[key].numel()
        place.tensor.view(-1)[place.flat(torch.tensor([changed[key]]))] = 99.0
    model.save_pretrained(tmp_path / "after")
    after = read_checkpoint(tmp_path / "after")
    assert after.keys() == before.keys()
    for key, position in changed.items():
        expected = before[key].clone()
        expected.view(-1)[position] = 99.0
        assert torch.equal(after[key], expected), key


def test_experts_are_fused_and_vision_layers_renamed(tmp_path: Path) -> None:
    """The checkpoints of the test above have the names that published checkpoints have, not the model's own."""
    make("MixtralForCausalLM").save_pretrained(tmp_path / "mixtral")
    model, _ = load("MixtralForCausalLM", tmp_path / "mixtral")
    places = assert_reads(model, read_checkpoint(tmp_path / "mixtral"))
    place = places["model.layers.1.block_sparse_moe.experts.10.w3.weight"]
    assert place.parameter == "model.layers.1.mlp.experts.gate_up_proj"
    assert (place.offset, place.strides) == ((10 * 48 + 24) * 16, (16, 1))
    make("ViTForImageClassification").save_pretrained(tmp_path / "vit")
    model, _ = load("ViTForImageClassification", tmp_path / "vit")
    places = assert_reads(model, read_checkpoint(tmp_path / "vit"))
    place = places["vit.encoder.layer.0.attention.attention.query.weight"]
    assert place.parameter == "vit.layers.0.attention.q_proj.weight"
    assert place.identity


def to_gamma(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize(
    ("saved", "loaded", "rename"),
    [
        ("BertModel", "BertForSequenceClassification", str),
        ("BertForSequenceClassification", "BertModel", str),
        ("BertForSequenceClassification", "BertForSequenceClassification", to_gamma),
        ("CLIPVisionModel", "CLIPVisionModel", lambda name: f"vision_model.{name}"),
        ("CLIPModel", "CLIPVisionModel", str),
        ("GPT2LMHeadModel", "GPT2LMHeadModel", lambda name: name.removeprefix("transformer.")),
        ("MixtralForCausalLM", "MixtralForCausalLM", lambda name: name.removeprefix("model.")),
    ],
)
def test_checkpoints_of_another_class_or_time(
    saved: str, loaded: str, rename: Callable[[str], str], tmp_path: Path
) -> None:
    make(saved).save_pretrained(tmp_path / "saved")
    tensors = rewrite(tmp_path / "base", tmp_path / "saved", rename)
    if saved == "CLIPModel":
        config = make("CLIPVisionModel").config
        config.save_pretrained(tmp_path / "base")
    model, report = load(loaded, tmp_path / "base")
    unexpected = set(report["unexpected_keys"])
    own = {name: tensor for name, tensor in tensors.items() if name not in unexpected}
    assert len(own) > 20
    assert all("classifier" in name or "pooler" in name for name in report["missing_keys"])
    places = assert_reads(model, own)
    assert find_places(model, shapes_of(tensors), names=own).keys() == places.keys()
    if unexpected:
        with pytest.raises(NamesError, match=f"of the checkpoint has no place in {loaded}"):
            find_places(model, shapes_of(tensors))


@pytest.mark.parametrize("name", ["ViTForImageClassification", "MixtralForCausalLM", "Qwen2MoeForCausalLM"])
def test_a_checkpoint_under_the_models_own_names(name: str, tmp_path: Path) -> None:
    model = make(name)
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.config.save_pretrained(tmp_path)
    write_checkpoint(tmp_path / "base", tensors, files={"config.json": (tmp_path / "config.json").read_bytes()})
    loaded, report = load(name, tmp_path / "base")
    assert not report["missing_keys"]
    assert all(place.identity for place in assert_reads(loaded, tensors).values())


def test_names_mapped_by_the_caller_on_load(tmp_path: Path) -> None:
    make("BertModel").save_pretrained(tmp_path / "saved")
    tensors = rewrite(tmp_path / "base", tmp_path / "saved", lambda name: f"net.{name}")
    model = transformers.BertModel.from_pretrained(tmp_path / "base", key_mapping={r"^net\.": ""})
    assert_reads(model, tensors)


def test_a_rule_that_leads_nowhere_is_not_applied(tmp_path: Path) -> None:
    """As transformers does: what the model has under its own name stays."""
    make("BertModel").save_pretrained(tmp_path)
    model = transformers.BertModel.from_pretrained(tmp_path, key_mapping={r"pooler\.dense": "pooler.other"})
    assert_reads(model, read_checkpoint(tmp_path))


def test_layers_with_experts_of_different_sizes() -> None:
    model = make("Qwen3MoeForCausalLM")
    experts = model.model.layers[0].mlp.experts
    experts.gate_up_proj = nn.Parameter(torch.randn(11, 20, 16))
    experts.down_proj = nn.Parameter(torch.randn(5, 16, 12))
    assert_reads(model, core_model_loading.revert_weight_conversion(model, model.state_dict()))


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "Qwen3MoeForCausalLM"])
def test_some_experts_are_placed_as_all_are(name: str) -> None:
    model = make(name)
    every = _experts(model)
    whole = find_places(model, every)
    for some in ([0], [3, 20, 21], list(range(2, 33, 5))):
        part = {key: every[key] for key in [sorted(every)[index] for index in some]}
        places = find_places(model, part)
        for key, place in places.items():
            assert (place.offset, place.strides) == (whole[key].offset, whole[key].strides)


def _experts(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the experts' tensors of layer 1, as the checkpoint has them."""
    tensors = core_model_loading.revert_weight_conversion(model, model.state_dict())
    return {
        name: tuple(tensor.shape) for name, tensor in tensors.items() if ".layers.1." in name and "experts." in name
    }


def test_a_plain_module_is_matched_by_its_state_names() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Linear(4, 5))
    tensors = {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}
    assert "1.running_mean" in tensors
    places = assert_reads(model, tensors)
    assert all(place.identity for place in places.values())
    with pytest.raises(NamesError, match=r"^x\.weight of the checkpoint has no place in Sequential, which has 0\.bias"):
        find_places(model, {"x.weight": (5, 4), "0.bias": (3,)})


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # importing torch's compiler warns
@pytest.mark.parametrize("name", ["BertModel", "MixtralForCausalLM"])
def test_wrappers_are_seen_through(name: str, tmp_path: Path) -> None:
    make(name).save_pretrained(tmp_path)
    tensors = read_checkpoint(tmp_path)
    model, _ = load(name, tmp_path)
    plain = find_places(model, shapes_of(tensors))
    layers = model.encoder.layer if name == "BertModel" else model.model.layers
    layers[1] = torch.compile(layers[1])
    compiled: Any = torch.compile(model)
    wrapped: nn.Module = nn.DataParallel(compiled)
    places = assert_reads(wrapped, tensors)
    for key, place in places.items():
        assert place.parameter.startswith("module._orig_mod.")
        assert place.parameter.replace("_orig_mod.", "") == f"module.{plain[key].parameter}"


def test_tied_weights_have_a_place_under_each_name(tmp_path: Path) -> None:
    model = make("GPT2LMHeadModel")
    places = find_places(model, {"lm_head.weight": (40, 16), "transformer.wte.weight": (40, 16)})
    assert [place.parameter for place in places.values()] == ["lm_head.weight", "transformer.wte.weight"]
    assert len({place.tensor.data_ptr() for place in places.values()}) == 1


# What cannot be placed


def test_shapes_that_disagree_are_refused() -> None:
    model = make("BertModel")
    with pytest.raises(
        ShapeError, match=r"pooler\.dense\.weight has shape \(8, 16\) in the checkpoint, but .* \(16, 16\)"
    ):
        find_places(model, {"pooler.dense.weight": (8, 16)})
    with pytest.raises(NamesError, match=r"pooler\.dense\.bias is not among the shapes"):
        find_places(model, {"pooler.dense.weight": (16, 16)}, names=["pooler.dense.bias"])


def test_experts_of_another_size_or_number_are_refused() -> None:
    model = make("Qwen3MoeForCausalLM")
    shapes = _experts(model)
    wide = {name: (14, 16) if "gate" in name else shape for name, shape in shapes.items()}
    with pytest.raises(
        ShapeError, match=r"gate_proj\.weight has shape \(14, 16\) in the checkpoint, but .* \(12, 16\)"
    ):
        find_places(model, wide)
    more = {**shapes, "model.layers.1.mlp.experts.11.down_proj.weight": (16, 12)}
    with pytest.raises(
        ShapeError, match=r"12 tensors of the checkpoint give shape \(12, 16, 12\) but .*\(11, 16, 12\)"
    ):
        find_places(model, more)
    split = {name: (1, 2, 3) if "up" in name else shape for name, shape in shapes.items()}
    with pytest.raises(ShapeError, match=r"up_proj\.weight has shape \(1, 2, 3\)"):
        find_places(model, split)


def test_two_names_for_one_tensor_are_refused() -> None:
    norm = "embeddings.LayerNorm"
    with pytest.raises(NamesError, match=r"LayerNorm\.gamma and .*LayerNorm\.weight .* both become"):
        find_places(make("BertModel"), {f"{norm}.gamma": (16,), f"{norm}.weight": (16,)})


class _Tagged(torch.Tensor):
    pass


def _tagged(tensor: torch.Tensor) -> torch.Tensor:
    return torch.Tensor._make_subclass(_Tagged, tensor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight.to("meta"), r"is on the meta device and has no data; load the model without offloading"),
        (lambda weight: weight.to(torch.int8), r"has dtype torch\.int8, expected one of torch\.float16"),
        (lambda weight: weight.to(torch.float8_e4m3fn), r"has dtype torch\.float8_e4m3fn, expected"),
        (lambda weight: weight.t(), r"is not contiguous \(shape \(4, 4\), strides \(1, 4\)\)"),
        (_tagged, r"is a _Tagged, expected a plain tensor"),
    ],
)
def test_tensors_that_cannot_be_written_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(change(model.weight.detach()), requires_grad=False)
    with pytest.raises(ShapeError, match=rf"^weight \(of weight in the checkpoint\) {message}"):
        find_places(model, {"weight": (4, 4)})


class _Negate(core_model_loading.ConversionOps):  # type: ignore[misc]
    """A conversion that computes."""

    def convert(self, input_dict: dict[str, Any], target_patterns: list[str], **_: object) -> dict[str, Any]:
        return {target_patterns[0]: -next(iter(input_dict.values()))[0]}


class _Interleave(core_model_loading.ConversionOps):  # type: ignore[misc]
    """A conversion that moves rows, unevenly."""

    def convert(self, input_dict: dict[str, Any], target_patterns: list[str], **_: object) -> dict[str, Any]:
        rows = next(iter(input_dict.values()))[0]
        return {target_patterns[0]: rows.reshape(-1, 2, rows.shape[1]).transpose(0, 1).reshape(rows.shape)}


class _Fail(core_model_loading.ConversionOps):  # type: ignore[misc]
    """A conversion that fails."""

    def convert(self, input_dict: dict[str, Any], **_: object) -> dict[str, Any]:
        raise RuntimeError("no such luck")


QUERY = "attention.self.query.weight"


def _convert_query(monkeypatch: pytest.MonkeyPatch, targets: str | list[str], operation: object) -> None:
    """Make transformers convert BERT's query weights on load."""
    conversion_mapping.get_checkpoint_conversion_mapping("bert")
    rule = core_model_loading.WeightConverter(QUERY.replace("query", "q"), targets, [operation])
    monkeypatch.setitem(conversion_mapping._checkpoint_conversion_mapping_cache, "bert", [rule])


@pytest.mark.parametrize(
    ("targets", "operation", "message"),
    [
        (QUERY, _Interleave(), r"through \[_Interleave\], which is no even rearrangement"),
        (QUERY, core_model_loading.PermuteForRope(), r"\[PermuteForRope\], which is no even rearrangement"),
        (QUERY, _Negate(), r"\[_Negate\], which is no even rearrangement"),
        (QUERY, _Fail(), r"which transformers cannot do \(no such luck\)"),
        ([QUERY, QUERY.replace("query", "key")], core_model_loading.Chunk(0), r"is split into attention\.self\.query"),
    ],
)
def test_conversions_that_do_more_than_move_entries_are_refused(
    targets: str | list[str], operation: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _convert_query(monkeypatch, targets, operation)
    model = make("BertModel", num_attention_heads=2)
    name = "encoder.layer.0.attention.self.q.weight"
    with pytest.raises(NamesError, match=rf"^{re.escape(name)} .*{message}"):
        find_places(model, {name: (16, 16)})


def test_transposed_weights_are_placed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _convert_query(monkeypatch, QUERY, core_model_loading.Transpose(0, 1))
    make("BertModel").save_pretrained(tmp_path)
    model, _ = load("BertModel", tmp_path)
    tensors = read_checkpoint(tmp_path)
    place = assert_reads(model, tensors)["encoder.layer.0.attention.self.q.weight"]
    assert (place.offset, place.strides, place.identity) == (0, (1, 16), False)


# transformers' internals


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_has_its_conversion_where_expected(name: str) -> None:
    """Fails when an update of transformers moves or renames what `sparsetv.places.conversion` drives."""
    rules = find_rules(make(name))
    assert rules is not None
    assert rules.renamings
    assert bool(rules.converters) == ("Mixtral" in name or "Moe" in name)


@pytest.mark.parametrize(
    ("module", "missing"),
    [(core_model_loading, "rename_source_key"), (conversion_mapping, "get_model_conversion_mapping")],
)
def test_without_them_only_unchanged_names_are_placed(
    module: object, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert, mixtral = make("BertForSequenceClassification"), make("MixtralForCausalLM")
    monkeypatch.delattr(module, missing)
    assert find_rules(bert) is None
    places = find_places(bert, {"pooler.dense.bias": (16,), "classifier.bias": (2,)})
    assert [place.parameter for place in places.values()] == ["classifier.bias", "bert.pooler.dense.bias"]
    name = "model.layers.0.block_sparse_moe.gate.weight"
    message = r"has no place in MixtralForCausalLM, .*does not have its conversion of checkpoints where expected"
    with pytest.raises(NamesError, match=message):
        find_places(mixtral, {name: (11, 16)})


# Layouts


@given(st.data())
def test_flat_positions_follow_strides(data: st.DataObject) -> None:
    """Against a strided view of the positions themselves."""
    shape = tuple(data.draw(st.lists(st.integers(1, 5), max_size=4)))
    order = data.draw(st.permutations(range(len(shape))))
    offset = data.draw(st.integers(0, 3))
    live = torch.arange(offset + int(torch.Size(shape).numel()) + 2)
    dense = torch.empty([shape[axis] for axis in order]).stride()
    strides = [0] * len(shape)
    for axis, stride in zip(order, dense, strict=True):
        strides[axis] = stride if shape[axis] > 1 else 0
    place = Place("x", live, shape, offset, tuple(strides))
    expected = live.as_strided(shape, strides, offset).reshape(-1)
    positions = torch.tensor(data.draw(st.lists(st.integers(0, len(expected) - 1))), dtype=torch.int64)
    before = positions.clone()
    assert torch.equal(place.flat(positions), expected[positions])
    assert torch.equal(positions, before)


REARRANGEMENTS: Mapping[str, Callable[[list[torch.Tensor]], torch.Tensor]] = {
    "stack": lambda tensors: torch.stack(tensors, dim=1),
    "concatenate": lambda tensors: torch.cat(tensors, dim=-1),
    "transpose": lambda tensors: torch.stack(tensors).transpose(1, 2),
    "reshape": lambda tensors: torch.cat(tensors).reshape(-1),
}


@pytest.mark.parametrize("name", REARRANGEMENTS)
@pytest.mark.parametrize("shape", [(3, 4), (1, 5), (7, 1), (1, 1), (2, 6, 3), (5, 4, 1), (4, 0)])
def test_layouts_of_affine_rearrangements(name: str, shape: tuple[int, ...]) -> None:
    rearrange = REARRANGEMENTS[name]
    layouts = find_layouts([shape] * 3, rearrange)
    count = int(torch.Size(shape).numel())
    tensors = list(torch.arange(3 * count).reshape(3, *shape))
    result = rearrange(tensors).reshape(-1)
    assert layouts is not None
    for tensor, layout in zip(tensors, layouts, strict=True):
        place = Place("x", result, shape, layout.offset, layout.strides)
        assert torch.equal(read(place), tensor)


def test_a_scalar_has_a_layout() -> None:
    assert find_layouts([(), ()], torch.stack) == [Layout(0, ()), Layout(1, ())]
    assert row_major(()) == Layout(0, ())


@pytest.mark.parametrize("block", range(1, 33))
@pytest.mark.parametrize("heads", [2, 3, 8])
def test_permutations_of_blocks_are_refused(block: int, heads: int) -> None:
    """Queries and gates of each head side by side, brought apart; an entry in most places does not move."""

    def rearrange(tensors: list[torch.Tensor]) -> torch.Tensor:
        (tensor,) = tensors
        return tensor.reshape(heads, 2, block, 4).transpose(0, 1).reshape(-1, 4)

    assert find_layouts([(heads * 2 * block, 4)], rearrange) is None


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda tensors: tensors[0] + 1,
        lambda tensors: tensors[0] * 2,
        lambda tensors: tensors[0].exp(),
        lambda tensors: tensors[0].flip(0).cumsum(0),
        lambda tensors: tensors[0][:-1],
        lambda tensors: torch.cat([tensors[0], tensors[0]]),
        lambda tensors: torch.zeros_like(tensors[0]),
        lambda tensors: tensors[0][torch.tensor([0, 1, 2, 4, 3, 5, 6, 7])],
    ],
)
def test_arithmetic_loss_and_repetition_are_refused(
    rearrange: Callable[[list[torch.Tensor]], torch.Tensor],
) -> None:
    assert find_layouts([(8, 3)], rearrange) is None


def test_two_rows_exchanged_among_many_are_refused() -> None:
    order = torch.arange(1000)
    order[511:513] = torch.tensor([512, 511])
    assert find_layouts([(1000, 64)], lambda tensors: tensors[0][order]) is None


def test_strides_may_be_negative() -> None:
    assert find_layouts([(8, 3)], lambda tensors: tensors[0].flip(0)) == [Layout(21, (-3, 1))]
