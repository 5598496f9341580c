"""Pairing of tensor names: prefixes in both directions, what fits, what does not, what is refused."""

import pytest
import torch
from helpers import pack_pair
from hypothesis import assume, given
from hypothesis import strategies as st

from sparsetv.checkpoint.names import Pairing, pair_names
from sparsetv.errors import NamesError, ShapeError
from sparsetv.localize.scope import Scope

Shapes = dict[str, tuple[int, ...]]

BODY: Shapes = {
    "embeddings.word_embeddings.weight": (100, 8),
    "encoder.layer.0.attention.self.query.weight": (8, 8),
    "encoder.layer.0.attention.self.query.bias": (8,),
    "encoder.layer.1.attention.self.query.weight": (8, 8),
    "encoder.layer.1.attention.self.query.bias": (8,),
    "pooler.dense.weight": (8, 8),
    "pooler.dense.bias": (8,),
}
PREFIXES = ["", "bert.", "roberta.", "model.", "module.", "_orig_mod.", "module._orig_mod.", "base_model.model."]


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def check_partition(pairing: Pairing, base: Shapes, finetuned: Shapes) -> None:
    """Every base name has exactly one fate, every fine-tuned name is used at most once."""
    kinds = [pairing.shared, pairing.grown, pairing.reshaped]
    assert sorted([*pairing.missing, *(name for kind in kinds for name in kind)]) == sorted(base)
    used = [other for kind in kinds for other in kind.values()]
    assert sorted([*used, *pairing.added]) == sorted(finetuned)
    assert all(base[name] == finetuned[other] for name, other in pairing.shared.items())


@pytest.mark.parametrize("new", PREFIXES)
@pytest.mark.parametrize("old", PREFIXES)
def test_any_prefix_against_any_other(old: str, new: str) -> None:
    base = prefixed(old, BODY)
    finetuned = {**prefixed(new, BODY), "classifier.weight": (2, 8), "classifier.bias": (2,)}
    found = pair_names(base, finetuned)
    assert found.shared == {old + name: new + name for name in BODY}
    assert found.added == ("classifier.bias", "classifier.weight")
    assert (found.missing, found.grown, found.reshaped) == ((), {}, {})
    check_partition(found, base, finetuned)


@pytest.mark.parametrize(("old", "new"), [("", "bert."), ("bert.", ""), ("model.", "module.model."), ("", "")])
def test_the_prefix_is_the_shortest(old: str, new: str) -> None:
    found = pair_names(prefixed(old, BODY), prefixed(new, BODY))
    assert found.prefix == {("model.", "module.model."): ("", "module.")}.get((old, new), (old, new))


def test_a_head_on_either_side_does_not_disturb() -> None:
    base = {**prefixed("bert.", BODY), "cls.predictions.bias": (100,), "cls.seq_relationship.weight": (2, 8)}
    finetuned = {**BODY, "score.weight": (3, 8)}
    found = pair_names(base, finetuned)
    assert found.prefix == ("bert.", "")
    assert found.missing == ("cls.predictions.bias", "cls.seq_relationship.weight")
    assert found.added == ("score.weight",)
    check_partition(found, base, finetuned)


def test_grown_reshaped_missing_added() -> None:
    base = {**BODY, "ids": (1, 4), "vector": (5,), "gone": (2,), "deeper": (4, 3)}
    finetuned = {**BODY, "ids": (1, 5), "vector": (6,), "new": (1,), "deeper": (4, 3, 1)}
    finetuned["embeddings.word_embeddings.weight"] = (103, 8)
    finetuned["pooler.dense.weight"] = (7, 8)
    found = pair_names(base, finetuned)
    assert found.grown == {"embeddings.word_embeddings.weight": "embeddings.word_embeddings.weight"}
    assert sorted(found.reshaped) == ["deeper", "ids", "pooler.dense.weight", "vector"]
    assert (found.missing, found.added) == (("gone",), ("new",))
    check_partition(found, base, finetuned)


def test_two_towers_that_fit_equally_well_are_refused() -> None:
    base = BODY
    finetuned = {**prefixed("left.", BODY), **prefixed("right.", BODY)}
    with pytest.raises(
        NamesError, match=r"\('', 'left\.'\) and \('', 'right\.'\) fit equally well; pass the right one"
    ):
        pair_names(base, finetuned)
    found = pair_names(base, finetuned, prefix=("", "right."))
    assert found.shared == {name: "right." + name for name in BODY}
    assert found.added == tuple(sorted(prefixed("left.", BODY)))


def test_nothing_in_common_names_both_sides() -> None:
    message = (
        r"base has embeddings\.word_embeddings\.weight, encoder\.layer\.0\.\S+, .*, … \(7 in all\); "
        r"fine-tune has conv\.0, conv\.1$"
    )
    for prefix in [None, ("", "conv.")]:
        with pytest.raises(NamesError, match=message):
            pair_names(BODY, {"conv.0": (3, 3), "conv.1": (3,)}, prefix=prefix)
    with pytest.raises(NamesError, match="fine-tune has no tensors"):
        pair_names(BODY, {})


def test_same_names_but_other_sizes_are_refused() -> None:
    with pytest.raises(NamesError, match="no prefix makes tensor names of base and fine-tune agree"):
        pair_names(BODY, {name: tuple(2 * size for size in shape[::-1]) for name, shape in BODY.items()})


NAMES = st.lists(st.sampled_from(["a", "b", "bert", "model", "0", "w"]), min_size=1, max_size=3).map(".".join)


@given(st.dictionaries(NAMES, st.sampled_from([(2,), (2, 3), (3, 3)]), min_size=1, max_size=6))
def test_identical_names_pair_with_themselves(shapes: Shapes) -> None:
    found = pair_names(shapes, dict(shapes))
    assert found.shared == {name: name for name in shapes}
    assert (found.added, found.missing) == ((), ())


@given(
    st.dictionaries(NAMES, st.sampled_from([(2,), (2, 3), (4, 3)]), min_size=1, max_size=6),
    st.dictionaries(NAMES, st.sampled_from([(2,), (2, 3), (4, 3)]), min_size=1, max_size=6),
)
def test_no_two_base_tensors_share_a_fine_tuned_one(base: Shapes, finetuned: Shapes) -> None:
    try:
        found = pair_names(base, finetuned)
    except NamesError:
        assume(condition=False)
    check_partition(found, base, finetuned)


def test_two_base_tensors_for_one_fine_tuned_one_are_refused() -> None:
    """Stripping `a.` would give both `a.w` and `w` the fine-tune's `w`: one of them would get a stranger's numbers."""
    base: Shapes = {"a.w": (2, 3), "w": (2, 3), "a.v": (3,), "v": (3,)}
    finetuned: Shapes = {"w": (2, 3), "v": (3,)}
    found = pair_names(base, finetuned, prefix=("", ""))
    check_partition(found, base, finetuned)
    try:
        found = pair_names(base, finetuned)
    except NamesError:
        return
    check_partition(found, base, finetuned)


def test_a_scope_tensor_that_the_fine_tune_lacks_or_reshaped(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path))
    base = {"h.0.w": torch.ones(3, 3), "h.1.w": torch.ones(3, 3)}
    with pytest.raises(
        NamesError, match=r"lacks h\.1\.w, which the scope covers; .* add `--scope '!h\.1\.w'` to your --scope"
    ):
        pack_pair(path, base, {"h.0.w": torch.zeros(3, 3)}, density=1.0, scope=Scope("blocks"))
    with pytest.raises(ShapeError, match=r"h\.1\.w: base has shape \(3, 3\), fine-tune \(2, 3\); exclude it"):
        pack_pair(path, base, {"h.0.w": torch.zeros(3, 3), "h.1.w": torch.zeros(2, 3)}, density=1.0)
    task = pack_pair(
        path,
        base,
        {"h.0.w": torch.zeros(3, 3), "h.1.w": torch.zeros(2, 3)},
        density=1.0,
        scope=Scope("blocks", (), ("h.1.w",)),
    )
    assert task.extras["h.1.w"].shape == (2, 3)
