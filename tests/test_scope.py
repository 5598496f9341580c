"""Scope presets on the names of real architectures, and the command line's words."""

from pathlib import Path

import pytest
import torch
from helpers import pack_pair

from sparsetv.errors import ScopeError, UsageError
from sparsetv.localize.scope import Scope

BLOCKS, BODY, NEITHER = "blocks", "body", "neither"

MODELS: dict[str, dict[str, str]] = {
    "bert": {
        "bert.embeddings.word_embeddings.weight": NEITHER,
        "bert.embeddings.position_embeddings.weight": NEITHER,
        "bert.embeddings.LayerNorm.gamma": NEITHER,
        "bert.encoder.layer.0.attention.self.query.weight": BLOCKS,
        "bert.encoder.layer.11.attention.output.LayerNorm.beta": BLOCKS,
        "bert.encoder.layer.3.intermediate.dense.bias": BLOCKS,
        "bert.pooler.dense.weight": BODY,
        "cls.predictions.decoder.weight": NEITHER,
        "cls.seq_relationship.bias": NEITHER,
        "classifier.weight": NEITHER,
        "qa_outputs.bias": NEITHER,
    },
    "roberta": {
        "roberta.embeddings.word_embeddings.weight": NEITHER,
        "roberta.embeddings.token_type_embeddings.weight": NEITHER,
        "roberta.encoder.layer.10.output.dense.weight": BLOCKS,
        "encoder.layer.1.output.LayerNorm.weight": BLOCKS,
        "pooler.dense.bias": BODY,
        "lm_head.dense.weight": NEITHER,
        "lm_head.layer_norm.bias": NEITHER,
        "classifier.out_proj.weight": NEITHER,
    },
    "gpt2": {
        "wte.weight": NEITHER,
        "wpe.weight": NEITHER,
        "h.0.attn.c_attn.weight": BLOCKS,
        "transformer.h.47.mlp.c_proj.bias": BLOCKS,
        "h.11.ln_2.weight": BLOCKS,
        "ln_f.weight": BODY,
        "transformer.wte.weight": NEITHER,
        "lm_head.weight": NEITHER,
        "score.weight": NEITHER,
    },
    "llama": {
        "model.embed_tokens.weight": NEITHER,
        "model.layers.0.self_attn.q_proj.weight": BLOCKS,
        "model.layers.31.mlp.down_proj.weight": BLOCKS,
        "model.layers.31.post_attention_layernorm.weight": BLOCKS,
        "model.norm.weight": BODY,
        "lm_head.weight": NEITHER,
    },
    "vit": {
        "vit.embeddings.cls_token": NEITHER,
        "vit.embeddings.patch_embeddings.projection.weight": NEITHER,
        "vit.encoder.layer.0.attention.attention.query.weight": BLOCKS,
        "vit.layernorm.weight": BODY,
        "vit.pooler.dense.weight": BODY,
        "patch_embed.proj.weight": NEITHER,
        "pos_embed": NEITHER,
        "blocks.5.mlp.fc1.weight": BLOCKS,
        "norm.bias": BODY,
        "head.weight": NEITHER,
        "classifier.bias": NEITHER,
    },
    "clip": {
        "text_model.embeddings.token_embedding.weight": NEITHER,
        "text_model.encoder.layers.0.self_attn.k_proj.weight": BLOCKS,
        "text_model.final_layer_norm.weight": BODY,
        "text_projection.weight": NEITHER,
        "vision_model.embeddings.class_embedding": NEITHER,
        "vision_model.encoder.layers.11.mlp.fc2.bias": BLOCKS,
        "vision_model.pre_layrnorm.weight": BODY,
        "visual_projection.weight": NEITHER,
        "logit_scale": NEITHER,
        "visual.transformer.resblocks.0.attn.in_proj_weight": BLOCKS,
        "positional_embedding": NEITHER,
    },
    "t5": {
        "shared.weight": NEITHER,
        "encoder.embed_tokens.weight": NEITHER,
        "encoder.block.0.layer.0.SelfAttention.q.weight": BLOCKS,
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": BLOCKS,
        "decoder.block.11.layer.2.DenseReluDense.wo.weight": BLOCKS,
        "decoder.final_layer_norm.weight": BODY,
        "lm_head.weight": NEITHER,
    },
}


def sorted_by(model: dict[str, str], *kinds: str) -> tuple[str, ...]:
    return tuple(sorted(name for name, kind in model.items() if kind in kinds))


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_presets_on_real_names(model: str, wrapper: str) -> None:
    names = {wrapper + name: kind for name, kind in MODELS[model].items()}
    assert Scope("blocks").select(names) == sorted_by(names, BLOCKS)
    assert Scope("body").select(names) == sorted_by(names, BLOCKS, BODY)
    assert Scope("all").select(names) == sorted_by(names, BLOCKS, BODY, NEITHER)


def test_the_default_is_the_papers() -> None:
    assert Scope() == Scope.parse([]) == Scope("blocks")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["blocks"], ["h.0.a", "h.1.b"]),
        (["h.0.*"], ["h.0.a"]),
        (["h.?.b", "wte"], ["h.1.b", "wte"]),
        (["!h.0.*"], ["h.1.b"]),
        (["all", "!*.a"], ["h.1.b", "ln_f", "wte"]),
        (["h.*", "!*.a"], ["h.1.b"]),
        (["body"], ["h.0.a", "h.1.b", "ln_f"]),
    ],
)
def test_words_of_the_command_line(words: list[str], wanted: list[str]) -> None:
    scope = Scope.parse(words)
    assert scope.select(["wte", "h.1.b", "h.0.a", "ln_f"]) == tuple(wanted)
    assert Scope.parse(scope.describe().split()) == scope


def test_globs_narrow_a_preset() -> None:
    scope = Scope.parse(["blocks", "*.attn.*"])
    assert scope.select(["h.0.attn.w", "h.0.mlp.w", "head.attn.w"]) == ("h.0.attn.w",)


def test_case_counts() -> None:
    assert Scope.parse(["*.W"]).select(["a.w", "a.W"]) == ("a.W",)


def test_scopes_that_cannot_be() -> None:
    with pytest.raises(ScopeError, match="scopes blocks and all at once; name one"):
        Scope.parse(["blocks", "all"])
    with pytest.raises(ScopeError, match=r"scope h\.7\.\* !x covers none of the 2 tensors .*\(h\.0\.a, wte, …\); try"):
        Scope.parse(["h.7.*", "!x"]).select(["wte", "h.0.a"])
    with pytest.raises(UsageError, match="unknown scope preset 'everything'; known are blocks, body, all"):
        Scope("everything").select(["a"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("saved", [True, False])
def test_causal_masks_of_old_checkpoints_do_not_count(tmp_path: Path, dtype: torch.dtype, saved: bool) -> None:
    """GPT-2's hub checkpoint holds `h.N.attn.bias`, a constant (1, 1, n, n) mask that newer fine-tunes do not save."""
    mask = torch.tril(torch.ones(1, 1, 4, 4)).to(dtype)
    base = {"h.0.attn.bias": mask, "h.0.attn.c_attn.weight": torch.ones(4, 5)}
    tuned = {"h.0.attn.c_attn.weight": torch.rand(4, 5), **({"h.0.attn.bias": mask} if saved else {})}
    task = pack_pair(tmp_path, base, tuned, density=0.5, scope=Scope("blocks"))
    assert task.nnz == 10
