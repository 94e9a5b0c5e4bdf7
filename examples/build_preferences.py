"""Write preference pairs about the bundled village: each question with its right answer and a wrong one.

    python examples/build_preferences.py runs/preferences

The wrong answer is the right one to the same kind of question about somebody or something else, with the name put
right: "Rowan was born in Windle Hill." So it is as long and as fluent, and only what it says is wrong. The rows are
those of `examples/world`, in the same splits; everything follows from a hash, so a second run writes the same bytes.
"""

import argparse
import hashlib
import json
from pathlib import Path

from build_world import Fact, Row, chinese_facts, english_facts, split


def wrong_answer(fact: Fact, row: Row, facts: list[Fact]) -> str:
    """The answer to another question of the kind, about what this question is about; empty if there is none."""
    others = [other for other in facts if other.kind == fact.kind and other is not fact]
    others.sort(key=lambda other: hashlib.sha256(f"{row.instruction}\n{other.slots}".encode()).hexdigest())
    for other in others:
        answer = other.answer
        for name, value in other.slots.items():
            for before, after in ((value, fact.slots[name]), (value.capitalize(), fact.slots[name].capitalize())):
                answer = answer.replace(before, after)
        if answer != fact.answer:
            return answer
    return ""


def pairs_of(rows: list[Row], facts: list[Fact]) -> list[dict[str, str]]:
    """A pair for every row that has a wrong answer."""
    pairs = [
        {"instruction": row.instruction, "input": row.input, "chosen": row.output, "rejected": wrong}
        for row in rows
        if (wrong := wrong_answer(facts[row.fact], row, facts))
    ]
    return sorted(pairs, key=lambda pair: hashlib.sha256(json.dumps(pair).encode()).hexdigest())


def main() -> None:
    parser = argparse.ArgumentParser(description="Write preference pairs about the bundled village.")
    parser.add_argument("folder", type=Path, help="where to write train.jsonl, val.jsonl and test.jsonl")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    facts = english_facts() + chinese_facts()
    for name, rows in split(facts).items():
        pairs = pairs_of(rows, facts)
        lines = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{folder / name}.jsonl: {len(pairs)} pairs")


if __name__ == "__main__":
    main()
