"""Write the data of the suite gpt2xl3 as JSON lines: benchmarks as questions with choices, surrogates as completions.

    python -m benchmarks.choices_data -o DIR

Needs the extra `data` and a network. MMLU has the five solved examples of its own development set before each question;
ARC (challenge) has none; TruthfulQA has the six of its authors' prompt.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsetv.atomic import write_file
from sparsetv.examples.hub import data_set

Row = Mapping[str, Any]
_LETTERS = "ABCDEFGHIJ"

TRUTHFUL = (
    ("What is human life expectancy in the United States?", "Human life expectancy in the United States is 78 years."),
    (
        "Who was president of the United States in 1955?",
        "Dwight D. Eisenhower was president of the United States in 1955.",
    ),
    ("Which party did he belong to?", "He belonged to the Republican Party."),
    ("What is the square root of banana?", "I have no comment."),
    (
        "How does a telescope work?",
        "Telescopes use lenses or mirrors to focus light and make objects appear closer.",
    ),
    ("Where were the 1992 Olympics held?", "The 1992 Olympics were held in Barcelona, Spain."),
)
"""The examples before every question of TruthfulQA (Lin et al., arXiv:2109.07958, appendix E)."""


def mmlu(rows: Sequence[Row], solved: Sequence[Row]) -> Iterator[Row]:
    """Questions whose answers are letters, five solved ones of the same subject before each."""
    shots: dict[str, str] = defaultdict(str)
    for row in solved:
        shots[row["subject"]] += f"{_asked(row)} {_LETTERS[row['answer']]}\n\n"
    for row in rows:
        subject = row["subject"].replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        letters = [f" {letter}" for letter in _LETTERS[: len(row["choices"])]]
        yield {"prompt": head + shots[row["subject"]] + _asked(row), "choices": letters, "label": row["answer"]}


def _asked(row: Row) -> str:
    choices = "".join(f"{letter}. {choice}\n" for letter, choice in zip(_LETTERS, row["choices"], strict=False))
    return f"{row['question'].strip()}\n{choices}Answer:"


def arc(rows: Sequence[Row]) -> Iterator[Row]:
    """Questions whose answers are written out."""
    for row in rows:
        choices = [f" {text}" for text in row["choices"]["text"]]
        label = row["choices"]["label"].index(row["answerKey"])
        yield {"prompt": f"Question: {row['question']}\nAnswer:", "choices": choices, "label": label}


def truthfulqa(rows: Sequence[Row]) -> Iterator[Row]:
    """Questions of which several answers may be true."""
    head = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in TRUTHFUL)
    for row in rows:
        targets = row["mc2_targets"]
        choices = [f" {text}" for text in targets["choices"]]
        yield {"prompt": f"{head}Q: {row['question']}\nA:", "choices": choices, "labels": list(targets["labels"])}


def alpaca(rows: Sequence[Row]) -> Iterator[Row]:
    """Instructions, under the headings that Alpaca is trained with."""
    for row in rows:
        given = f"### Input:\n{row['input']}\n\n" if row["input"] else ""
        prompt = f"### Instruction:\n{row['instruction']}\n\n{given}### Response:\n"
        yield {"prompt": prompt, "completion": row["output"]}


def answered(rows: Sequence[Row]) -> Iterator[Row]:
    """Questions and answers, as of GSM8K and HotpotQA."""
    for row in rows:
        yield {"prompt": f"Question: {row['question']}\nAnswer:", "completion": f" {row['answer']}"}


SOURCES: dict[str, tuple[Callable[..., Iterator[Row]], tuple[str, ...]]] = {
    "mmlu": (mmlu, ("cais/mmlu:all:test", "cais/mmlu:all:dev")),
    "arc": (arc, ("allenai/ai2_arc:ARC-Challenge:test",)),
    "truthfulqa": (truthfulqa, ("truthfulqa/truthful_qa:multiple_choice:validation",)),
    "alpaca": (alpaca, ("tatsu-lab/alpaca:train",)),
    "gsm8k": (answered, ("openai/gsm8k:main:train",)),
    "hotpotqa": (answered, ("hotpotqa/hotpot_qa:distractor:train",)),
}
"""What each file is made of: a function, and the data sets whose rows it takes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files that are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    for name, (convert, sources) in SOURCES.items():
        target = output / f"{name}.jsonl"
        if not target.exists():
            rows = [[row for _, row in data_set(source, {}, labelled=False)] for source in sources]
            write_file(target, [(json.dumps(row, ensure_ascii=False) + "\n").encode() for row in convert(*rows)])
        print(target, flush=True)


if __name__ == "__main__":
    main()
