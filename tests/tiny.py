"""Tiny but real classifiers of texts: a base with a tokenizer, and fine-tunes of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from sparsetv.checkpoint.reading import open_checkpoint
from sparsetv.difference import task_vector
from sparsetv.jobs.learning import Learn, make_objective
from sparsetv.jobs.localize import scope_names
from sparsetv.localize.problem import Problem
from sparsetv.localize.scope import Scope
from sparsetv.packing.carried import carry

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(36))]
SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 24, "pad_token_id": 0,
}  # fmt: skip


def add_tokenizer(path: Path) -> None:
    ids = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)
    fast.save_pretrained(path)


def write_base(path: Path) -> Path:
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**SIZES, initializer_range=0.5))
    model.save_pretrained(path)
    add_tokenizer(path)
    return path


def write_classifier(
    path: Path, base: Path, *, classes: int, always: int | None = None, names: Sequence[str] = (), seed: int = 1
) -> Path:
    """A fine-tune: noise on the base, and a head at random or one that always says the same."""
    labels = (
        {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}} if names else {}
    )
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, num_labels=classes, initializer_range=0.5, **labels)
    model = transformers.BertForSequenceClassification(config)
    model.bert.load_state_dict(transformers.BertModel.from_pretrained(base).state_dict(), strict=False)
    with torch.no_grad():
        for parameter in model.bert.encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        if always is not None:
            model.classifier.weight.zero_()
            model.classifier.bias.copy_(torch.arange(classes) == always)
    model.save_pretrained(path)
    add_tokenizer(path)
    return path


def gpt(path: Path) -> tuple[Any, Any]:
    """A random GPT-2, and a tokenizer that adds nothing to what it is given."""
    torch.manual_seed(2)
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=16, n_embd=8, n_layer=2, n_head=2, initializer_range=0.6
    )
    add_tokenizer(path)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return transformers.GPT2LMHeadModel(config).eval(), tokenizer


def clip(path: Path) -> tuple[Any, Any]:
    """A random CLIP whose texts end in a token of their own, as CLIP's do."""
    torch.manual_seed(4)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "initializer_range": 0.5}
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    text = {**sizes, **ids, "vocab_size": 40, "hidden_size": 16, "max_position_embeddings": 12}
    vision = {**sizes, "image_size": 8, "patch_size": 4, "hidden_size": 12, "projection_dim": 6}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    add_tokenizer(path)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    return transformers.CLIPModel(config).eval(), tokenizer


def lines(path: Path, values: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def texts(count: int) -> list[str]:
    generator = torch.Generator().manual_seed(3)
    sizes = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [" ".join(f"w{int(w)}" for w in torch.randint(0, 36, (size,), generator=generator)) for size in sizes]


def make_problem(room: Path, **changes: Any) -> Problem:
    """The task `tuned` of the fixture `trained`, with labelled examples to learn from."""
    vector = task_vector(open_checkpoint(room / "base"), open_checkpoint(room / "tuned"))
    names = scope_names(vector, Scope())
    carried = carry(vector, names, name="tuned")
    objective = make_objective(vector, carried, Learn(room / "data.jsonl", shots=6, batch_size=7), seed=0)
    return Problem(vector, names, **{"density": 0.05, "objective": objective, **changes})


def base_of_problem(problem: Problem) -> dict[str, torch.Tensor]:
    """The base's tensors in scope."""
    return {
        name: torch.from_numpy(problem.vector.base.bits(name).view(np.float32).copy()).reshape(
            problem.vector.base.shape(name)
        )
        for name in problem.names
    }
