"""Multiple choice by likelihood: which answer a causal language model finds most probable after a question."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from sparsetv.errors import FormatError, UsageError
from sparsetv.examples.encoding import fit_length
from sparsetv.examples.reading import json_lines

MEASURES = ("accuracy", "normalised", "mass")
_TOKENS = 8192
"""Tokens per batch, about: logits of a vocabulary of 50,000 at the answers alone take little beside activations."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A question and answers to choose from.

    Attributes:
        prompt: What stands before every answer, such as solved examples and the question.
        choices: The answers; one that is a word of its own begins with a space, as in ` Paris`.
        right: Whether each is right; one is, or several.
    """

    prompt: str
    choices: tuple[str, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class ChoicesScore:
    """What a model chose.

    Attributes:
        total: Questions.
        accuracy: Share whose answer of the largest likelihood is right.
        normalised: Share whose answer of the largest likelihood per token (geometric mean) is right.
        mass: Mean over questions of the right answers' share of all answers' likelihood (TruthfulQA's MC2).
    """

    total: int
    accuracy: float
    normalised: float
    mass: float

    def of(self, measure: str) -> float:
        """The value of a measure.

        Raises:
            UsageError: It is none of `accuracy`, `normalised` and `mass`.
        """
        if measure not in MEASURES:
            raise UsageError(f"unknown measure {measure!r}; known are {', '.join(MEASURES)}")
        return {"accuracy": self.accuracy, "normalised": self.normalised, "mass": self.mass}[measure]


def read_choices(source: str | Path) -> list[Choice]:
    """Read questions: lines of `{"prompt": …, "choices": […], "label": i}`, or `"labels": [0, 1, …]` for several.

    Raises:
        NotFoundError: There is no such file.
        FormatError: A line is something else; the message has its number.
    """
    found = [_choice(value, where) for where, value in json_lines(Path(source))]
    if not found:
        raise FormatError(f"{source}: no questions")
    return found


def choices_accuracy(
    model: nn.Module,
    tokenizer: Any,
    questions: Sequence[Choice],
    *,
    max_length: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ChoicesScore:
    """Put questions to a causal language model; of several best answers the first counts.

    Args:
        model: In evaluation mode, on any device.
        tokenizer: Its own; prompt and answer are tokenized apart.
        questions: At least one.
        max_length: Tokens of prompt and answer; a longer prompt loses its beginning. None for what the model has
            positions for.
        progress: Called with the questions that a batch finished, as nearly as that can be told.

    Raises:
        UsageError: No questions, a prompt of no tokens, or an answer of none or of more than fit.

    Reference:
        Hendrycks et al., arXiv:2009.03300 (MMLU); Clark et al., arXiv:1803.05457 (ARC); Lin et al., arXiv:2109.07958
        (TruthfulQA, MC2).
    """
    if not questions:
        raise UsageError("there are no questions")
    rows = likelihoods(model, tokenizer, questions, max_length=max_length, progress=progress)
    plain = [_is_right(question, [total for total, _ in row]) for question, row in zip(questions, rows, strict=True)]
    per_token = [
        _is_right(question, [total / count for total, count in row])
        for question, row in zip(questions, rows, strict=True)
    ]
    masses = [_mass(question, [total for total, _ in row]) for question, row in zip(questions, rows, strict=True)]
    count = len(questions)
    return ChoicesScore(count, sum(plain) / count, sum(per_token) / count, sum(masses) / count)


def likelihoods(
    model: nn.Module,
    tokenizer: Any,
    questions: Sequence[Choice],
    *,
    max_length: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[list[tuple[float, int]]]:
    """(log-likelihood given the prompt, tokens) of every answer of every question; arguments as of the accuracy."""
    limit = fit_length(model, tokenizer, max_length or 1 << 30)
    rows = [row for number, question in enumerate(questions) for row in _rows(tokenizer, question, number, limit)]
    found: list[list[tuple[float, int]]] = [[(0.0, 0)] * len(question.choices) for question in questions]
    done = 0.0
    for batch in _batches(rows):
        for row, total in zip(batch, _totals(model, batch), strict=True):
            found[row.question][row.choice] = (total, row.count)
        before, done = int(done), done + sum(1 / len(questions[row.question].choices) for row in batch)
        if progress is not None:
            progress(int(done + 1e-6) - before)
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    """One answer after its prompt: token ids, the last `count` of which are the answer's."""

    question: int
    choice: int
    ids: list[int]
    count: int


def _rows(tokenizer: Any, question: Choice, number: int, limit: int) -> Iterator[_Row]:
    prompt = tokenizer(question.prompt)["input_ids"]
    if not prompt:
        raise UsageError(
            f"question {number + 1} has a prompt of no tokens, so that no answer follows anything; write one"
        )
    for index, choice in enumerate(question.choices):
        answer = tokenizer(choice, add_special_tokens=False)["input_ids"]
        if not 0 < len(answer) < limit:
            raise UsageError(f"answer {choice!r} has {len(answer)} tokens; at least 1 and at most {limit - 1} fit")
        yield _Row(number, index, (prompt + answer)[-limit:], len(answer))


def _batches(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Rows of one length together, so that nothing is padded, whatever positions and masks the model has."""
    for length, group in groupby(sorted(rows, key=lambda row: len(row.ids)), key=lambda row: len(row.ids)):
        same = list(group)
        size = max(_TOKENS // length, 1)
        yield from (same[start : start + size] for start in range(0, len(same), size))


def _totals(model: nn.Module, batch: Sequence[_Row]) -> list[float]:
    """Log-likelihoods of the answers of a batch, in float32 from whatever logits are in."""
    device = next(model.parameters()).device
    ids = torch.tensor([row.ids for row in batch], device=device)
    kept = max(row.count for row in batch) + 1
    some = {"logits_to_keep": kept} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    with torch.inference_mode():
        logits = model(input_ids=ids, **some).logits[:, -kept:]
    chances = logits[:, :-1].float().log_softmax(dim=-1).gather(-1, ids[:, 1 - kept :, None])[..., 0]
    return [float(chances[place, -row.count :].sum()) for place, row in enumerate(batch)]


def _is_right(question: Choice, values: Sequence[float]) -> bool:
    return question.right[max(range(len(values)), key=values.__getitem__)]


def _mass(question: Choice, values: Sequence[float]) -> float:
    shares = torch.tensor(values, dtype=torch.float64).softmax(dim=0)
    return float(shares[torch.tensor(question.right)].sum())


def _choice(value: Any, where: str) -> Choice:
    row = value if isinstance(value, dict) else {}
    prompt, choices = row.get("prompt"), row.get("choices")
    if not isinstance(prompt, str) or not _are_texts(choices):
        raise FormatError(f"{where}: needs a string `prompt` and two or more strings `choices`")
    label, labels = row.get("label"), row.get("labels")
    if type(label) is int and 0 <= label < len(choices):
        return Choice(prompt, tuple(choices), tuple(index == label for index in range(len(choices))))
    if (
        isinstance(labels, list)
        and len(labels) == len(choices)
        and 1 in labels
        and all(own in (0, 1) for own in labels)
    ):
        return Choice(prompt, tuple(choices), tuple(label == 1 for label in labels))
    raise FormatError(f"{where}: needs a `label`, the number of a choice, or `labels`, 0 or 1 for each, not all 0")


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(text, str) for text in value)
