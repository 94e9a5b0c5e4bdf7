"""The table of what shared prefixes save."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.prefix_savings import DataSet, computed, read_rows, read_set, savings
from data_modules.encoding.example_store import ExampleStore

TOKENIZER = str(Path(__file__).parents[2] / "examples" / "tokenizer")


def chats(folder: Path, *, num: int, exchanges: int) -> ExampleStore:
    """One sample per answer of conversations that share nothing, each of exchanges that are equally long."""
    words = "abcdefghijklmnopqrstuvwxyz"
    records = []
    for start in range(num):
        texts = [" ".join(words[start] for _ in range(20)) for _ in range(2 * exchanges)]
        roles = ["user", "assistant"] * exchanges
        records.append({"messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]})
    path = folder / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return read_rows(DataSet(str(path), "chatml", "answer"), TOKENIZER, 4096)


def test_answers_of_a_conversation_cost_as_much_as_the_conversation(tmp_path: Path) -> None:
    store = chats(tmp_path, num=4, exchanges=3)
    longest = sorted(store.lengths.tolist())[-4:]
    assert computed(store, range(12)) == sum(longest)
    assert computed(store, range(1)) == store.lengths[0]


def test_savings_grow_with_the_step_and_with_grouping_up_to_those_of_the_whole_set(tmp_path: Path) -> None:
    store = chats(tmp_path, num=20, exchanges=3)
    whole = store.lengths.sum() / computed(store, range(60))
    plain = [savings(store, size, is_grouped=False, budget=2**20, epochs=3) for size in (1, 6, 20, 60)]
    assert plain == sorted(plain)
    assert plain[0] == 1.0
    assert plain[-1] == pytest.approx(whole)
    assert savings(store, 6, is_grouped=True, budget=2**20, epochs=3) > 1.3 * plain[1]
    assert savings(store, 60, is_grouped=False, budget=1, epochs=1) == 1.0  # every row is a micro-batch of its own


def test_sets_are_files_with_a_template_and_samples() -> None:
    assert read_set("a/b.json") == DataSet("a/b.json")
    assert read_set("b.json:alpaca") == DataSet("b.json", "alpaca")
    assert read_set("b.json:auto:answer") == DataSet("b.json", "auto", "answer")
    for text in ("b.json:alpacca", "b.json:auto:turn", "b.json:auto:answer:more"):
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            read_set(text)
