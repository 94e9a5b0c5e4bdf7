"""Articles of numbered facts, and a stub model that writes a pair about each fact."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

NAMES = ("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Ginkgo", "Hazel", "Ivy", "Juniper", "Larch", "Maple")


def english(number: int, facts: int = 4) -> str:
    """An article about a house: one sentence for each fact, no two articles with the same names."""
    rooms = [f"{NAMES[(number + at) % len(NAMES)]} room {number * 10 + at}" for at in range(facts)]
    return " ".join(f"The {room} was painted in {1700 + number * 4 + at}." for at, room in enumerate(rooms))


def chinese(number: int, facts: int = 4) -> str:
    """The same in Chinese."""
    return "".join(f"第{number * 10 + at}号房建于{1700 + number * 4 + at}年。" for at in range(facts))


def pairs_of(text: str) -> list[dict[str, str]]:
    """A pair about every fact in a text."""
    found = [(f"When was the {room} painted?", f"It was in {year}.") for room, year in ENGLISH.findall(text)]
    found += [(f"第{room}号房建于哪年？", f"{year}年。") for room, year in CHINESE.findall(text)]
    return [{"question": question, "answer": answer} for question, answer in found]


ENGLISH = re.compile(r"The (\w+ room \d+) was painted in (\d+)\.")
CHINESE = re.compile(r"第(\d+)号房建于(\d+)年。")


def write_pairs(body: dict[str, Any]) -> str:
    """The reply of a model that does what it is asked."""
    return json.dumps({"pairs": pairs_of(body["messages"][0]["content"])}, ensure_ascii=False)


def write_articles(path: Path, texts: list[str], *, named: bool = True) -> str:
    """A file of articles; their ids are `house N`."""
    rows = [{"text": text} | ({"article_id": f"house {number}"} if named else {}) for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
