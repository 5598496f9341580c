"""Where in a transformer a tensor lies: its layer and its component, told by its name alone.

The names are those of checkpoints of BERT, RoBERTa, DistilBERT, ViT, CLIP, GPT-2, Llama, Qwen, Mistral, Mixtral and T5,
under any prefix. A name that no pattern matches is `other`.
"""

import re
from dataclasses import dataclass

QUERY, KEY, VALUE, FUSED = "query", "key", "value", "query, key and value"
ATTENTION_OUTPUT = "attention output"
UP, GATE, DOWN, ROUTER = "feed-forward up", "feed-forward gate", "feed-forward down", "router"
NORM_WEIGHT, NORM_BIAS = "norm weight", "norm bias"
EMBEDDINGS, POOLER, HEAD, OTHER = "embeddings", "pooler", "head", "other"

COMPONENTS = (
    QUERY, KEY, VALUE, FUSED, ATTENTION_OUTPUT, UP, GATE, DOWN, ROUTER,
    NORM_WEIGHT, NORM_BIAS, EMBEDDINGS, POOLER, HEAD, OTHER,
)  # fmt: skip
"""All components, in the order in which they are shown; a linear layer's bias counts with its weight."""

_BLOCK = re.compile(r"(?P<stack>(?:.*?\.)?(?:layers?|h|blocks?|resblocks))\.(?P<index>\d+)\.(?P<rest>.+)")
_LEAF = re.compile(r"(?P<module>.+?)\.(?P<leaf>weight|bias|gamma|beta)")
_NORM = "norm"

# BERT, RoBERTa and ViT; Llama, Qwen, Mistral, Mixtral and CLIP; GPT-2; T5; DistilBERT
_BERT, _LLAMA = r"(?:cross)?attention\.(?:self|attention)\.", r"self_attn\."
_T5, _DISTIL = r"layer\.\d+\.(?:Self|EncDec)Attention\.", r"attention\."
_DENSE, _EXPERT = r"layer\.\d+\.DenseReluDense\.", r"block_sparse_moe\.experts\.\d+\."

_INSIDE = (
    (QUERY, rf"{_BERT}query|{_LLAMA}q_proj|crossattention\.q_attn|{_T5}q|{_DISTIL}q_lin"),
    (KEY, rf"{_BERT}key|{_LLAMA}k_proj|{_T5}k|{_DISTIL}k_lin"),
    (VALUE, rf"{_BERT}value|{_LLAMA}v_proj|{_T5}v|{_DISTIL}v_lin"),
    (FUSED, r"attn\.c_attn"),
    (ATTENTION_OUTPUT, rf"(?:cross)?attention\.output\.dense|{_LLAMA}(?:o_proj|out_proj)|attn\.c_proj|{_T5}o|"
                       rf"crossattention\.c_proj|{_DISTIL}out_lin"),
    (UP, rf"intermediate\.dense|mlp\.(?:fc1|up_proj|c_fc)|{_EXPERT}w3|{_DENSE}(?:wi|wi_1)|ffn\.lin1"),
    (GATE, rf"mlp\.gate_proj|{_EXPERT}w1|{_DENSE}wi_0"),
    (DOWN, rf"output\.dense|mlp\.(?:fc2|down_proj|c_proj)|{_EXPERT}w2|{_DENSE}wo|ffn\.lin2"),
    (ROUTER, r"block_sparse_moe\.gate"),
    (_NORM, r"(?:(?:cross)?attention\.)?output\.LayerNorm|layernorm_(?:before|after)|layer_norm[12]|"
            rf"ln_(?:[12]|cross_attn)|(?:input|post_attention)_layernorm|{_LLAMA}[qk]_norm|"
            r"layer\.\d+\.layer_norm|(?:sa|output)_layer_norm"),
    (EMBEDDINGS, rf"{_T5}relative_attention_bias"),
)  # fmt: skip

_OUTSIDE = (
    (HEAD, r"(?:pre_)?classifier(?:\.(?:dense|out_proj))?|lm_head(?:\..+)?|score|"
           r"cls\.(?:predictions|seq_relationship)(?:\..+)?|qa_outputs|(?:text|visual)_projection|logit_scale"),
    (POOLER, r"(?:.+\.)?pooler\.dense"),
    (_NORM, r"(?:.+\.)?(?:embeddings\.LayerNorm|layernorm|final_layer_norm|ln_f|norm|pre_layrnorm|post_layernorm)"),
    (EMBEDDINGS, r"(?:.+\.)?(?:(?:word|position|token_type)_embeddings|(?:token|position|patch|class)_embedding|"
                 r"patch_embeddings\.projection|(?:cls|mask)_token|embed_tokens|wte|wpe|shared)"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies.

    Attributes:
        stack: What precedes the layer's number in the name, such as `encoder.layer`; empty outside the blocks.
        layer: The block's number, from 0; None outside the blocks.
        component: One of `COMPONENTS`.
    """

    stack: str
    layer: int | None
    component: str


def place_of(name: str) -> Place:
    """Where the tensor of a name lies.

    >>> place_of("bert.encoder.layer.3.attention.self.query.weight")
    Place(stack='bert.encoder.layer', layer=3, component='query')
    """
    block = _BLOCK.fullmatch(name)
    if block is None:
        return Place("", None, _component(name, _OUTSIDE))
    return Place(block["stack"], int(block["index"]), _component(block["rest"], _INSIDE))


def _component(name: str, table: tuple[tuple[str, str], ...]) -> str:
    split = _LEAF.fullmatch(name)
    module, leaf = (split["module"], split["leaf"]) if split else (name, "")
    found = next((component for component, pattern in table if re.fullmatch(pattern, module)), OTHER)
    if found != _NORM:
        return found
    return NORM_BIAS if leaf in {"bias", "beta"} else NORM_WEIGHT
