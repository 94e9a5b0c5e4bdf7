"""Write preference pairs about the bundled village: each question with its right answer and a wrong one.

    python examples/build_preferences.py runs/pairs
    python examples/build_preferences.py runs/labels --labels

The wrong answer is the right one to the same kind of question about somebody or something else, with the name put
right: "Rowan was born in Windle Hill." So it is as long and as fluent, and only what it says is wrong. The rows are
those of `examples/world`, in the same splits; questions of the village that are in none of them are for testing too.
To train, a question has several wrong answers, each in a pair of its own; held out, it has one, so that no question
counts twice. With --labels, the same answers are written one by one, each with a label. Everything follows from a hash,
so a second run writes the same bytes.
"""

import argparse
import hashlib
import json
from pathlib import Path

from build_world import Fact, Row, ask, chinese_facts, english_facts, split
from village import PHRASINGS


def held_out_rows(facts: list[Fact], rows: dict[str, list[Row]]) -> list[Row]:
    """The questions that are in no split: phrasings of a fact that are not asked there."""
    asked = {(row.fact, row.phrasing) for part in rows.values() for row in part}
    every = ((number, phrasing) for number, fact in enumerate(facts) for phrasing in range(len(PHRASINGS[fact.kind])))
    return [ask(facts, number, phrasing) for number, phrasing in every if (number, phrasing) not in asked]


def wrong_answers(row: Row, facts: list[Fact]) -> list[str]:
    """The answers to other questions of the kind, about what this question is about, in an order of its own."""
    fact = facts[row.fact]
    others = [other for other in facts if other.kind == fact.kind and other is not fact]
    others.sort(key=lambda other: hashlib.sha256(f"{row.instruction}\n{other.slots}".encode()).hexdigest())
    answers = []
    for other in others:
        answer = other.answer
        for name, value in other.slots.items():
            for before, after in ((value, fact.slots[name]), (value.capitalize(), fact.slots[name].capitalize())):
                answer = answer.replace(before, after)
        answers.append(answer)
    return [answer for answer in dict.fromkeys(answers) if answer != fact.answer]


def pairs_of(rows: list[Row], facts: list[Fact], count: int = 1) -> list[dict[str, str]]:
    """Up to `count` pairs for every row, each with another wrong answer."""
    pairs = [
        {"instruction": row.instruction, "input": row.input, "chosen": row.output, "rejected": wrong}
        for row in rows
        for wrong in wrong_answers(row, facts)[:count]
    ]
    return sorted(pairs, key=lambda pair: hashlib.sha256(json.dumps(pair).encode()).hexdigest())


def pairs_by_split(count: int) -> dict[str, list[dict[str, str]]]:
    """The pairs to train, to validate and to test with; `count` to train for each question."""
    facts = english_facts() + chinese_facts()
    rows = split(facts)
    rows["test"] += held_out_rows(facts, rows)
    return {name: pairs_of(part, facts, count if name == "train" else 1) for name, part in rows.items()}


def labels_of(pairs: list[dict[str, str]]) -> list[dict[str, str | bool]]:
    """Every answer of the pairs once, with a label that says whether it is right."""
    answers = {
        (pair["instruction"], pair["input"], pair[name]): name == "chosen"
        for pair in pairs
        for name in ("chosen", "rejected")
    }
    return [
        {"instruction": instruction, "input": context, "output": answer, "label": label}
        for (instruction, context, answer), label in answers.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write preference pairs about the bundled village.")
    parser.add_argument("folder", type=Path, help="where to write train.jsonl, val.jsonl and test.jsonl")
    parser.add_argument("--wrong", type=int, default=4, help="wrong answers to each question to train with; default 4")
    parser.add_argument("--labels", action="store_true", help="write answers with labels instead of pairs")
    arguments = parser.parse_args()
    if arguments.wrong < 1:
        parser.error(f"--wrong {arguments.wrong}: expected at least 1")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in pairs_by_split(arguments.wrong).items():
        rows = labels_of(pairs) if arguments.labels else pairs
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (arguments.folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{arguments.folder / name}.jsonl: {len(rows)} {'answers' if arguments.labels else 'pairs'}")


if __name__ == "__main__":
    main()
