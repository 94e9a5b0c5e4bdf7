"""A model that writes pairs, but not always as asked: each fault is drawn from the request, so that runs repeat."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.lit_sft.stub_server import Draw
from tests.lit_sft.synthesis.writer import ENGLISH, pairs_of

CONTENT_FAULTS = {"half": 0.1, "schema": 0.1, "prose": 0.1, "around": 0.05, "repeated": 0.1, "wrong number": 0.1}
"""Rates of replies with half of their JSON, other fields, no JSON at all, words around the JSON, the pairs of all other
such replies, and a number that is not in the article."""

ASKED_AGAIN = ("half", "schema", "prose", "around")
"""Faults for which a reply does not have the recipe's form."""

SHARED = [{"question": f"Who painted the hall number {n}?", "answer": f"A painter of rank {n}."} for n in range(1, 5)]


class FaultyWriter:
    """Writes pairs about each fact of an article of `writer`.

    Args:
        seed: Of the draws.
        rates: Of each fault; see CONTENT_FAULTS.

    Attributes:
        faults: Replies by fault, counted once for each request.
    """

    def __init__(self, seed: int = 0, rates: Mapping[str, float] = CONTENT_FAULTS) -> None:
        self._draw = Draw(seed, rates)
        self._seen: set[str] = set()
        self.faults = Counter[str]()

    def __call__(self, body: dict[str, Any]) -> str:
        asked = json.dumps(body["messages"]) + str(body.get("seed"))
        fault = self._draw.fault(asked, 0)
        if asked not in self._seen:
            self._seen.add(asked)
            self.faults[fault] += 1
        return written(body["messages"][0]["content"], fault)


def written(prompt: str, fault: str) -> str:
    """The reply to a prompt, with a fault."""
    pairs = pairs_of(prompt)
    if fault == "repeated":
        pairs = SHARED
    if fault == "wrong number":
        (room, year), *_ = ENGLISH.findall(prompt)
        pairs[0] = {"question": f"When was the {room} painted?", "answer": f"It was in {int(year) + 5000}."}
    text = json.dumps({"pairs": pairs})
    if fault == "half":
        return text[: len(text) // 2]
    if fault == "schema":
        return json.dumps({"pairs": [{"q": pair["question"], "a": pair["answer"]} for pair in pairs]})
    if fault == "prose":
        return "\n".join(f"Q: {pair['question']}\nA: {pair['answer']}" for pair in pairs)
    return f"Certainly! Here they are: {text} I hope this helps." if fault == "around" else text
