"""Scores against slow oracles: one example at a time, no batch, no padding."""

from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tiny import lines, texts, write_base, write_classifier

from sparsetv.errors import UsageError
from sparsetv.evaluation.classify import Score, accuracy, score
from sparsetv.examples.reading import read_examples


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_f1_is_that_of_precision_and_recall(pairs: list[tuple[int, int]]) -> None:
    """`pairs` are what was said and what is true."""
    right = sum(said == true for said, true in pairs)
    found = sum(said == true == 1 for said, true in pairs)
    given_ = sum(said == 1 for said, _ in pairs)
    there = sum(true == 1 for _, true in pairs)
    got = Score(right, len(pairs), found, given_, there)
    assert got.accuracy == got.of("accuracy") == right / len(pairs)
    if found:
        precision, recall = found / given_, found / there
        assert got.of("f1") == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert got.f1 == 0


def test_scores_count_what_a_model_says(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    path = write_classifier(tmp_path / "random", base, classes=3, seed=5)
    model = transformers.BertForSequenceClassification.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    said = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in texts(150)]
    true = [number * number % 3 for number in range(150)]
    rows = [{"text": text, "label": label} for text, label in zip(texts(150), true, strict=True)]
    examples = read_examples(lines(tmp_path / "d.jsonl", rows))
    found = score(model, tokenizer, examples)
    pairs = list(zip(said, true, strict=True))
    assert len(set(said)) > 1
    assert found == Score(sum(a == b for a, b in pairs), 150, pairs.count((1, 1)), said.count(1), true.count(1))
    assert accuracy(model, tokenizer, examples).value == found.accuracy
    with pytest.raises(UsageError, match="unknown metric 'auc'; known are accuracy, f1"):
        found.of("auc")
