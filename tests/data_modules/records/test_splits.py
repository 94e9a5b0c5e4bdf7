"""Which records each split holds: changing a share moves no record between the other splits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules.errors import UserError
from data_modules.records.content_keys import KeepTogether
from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Sources, held_out_fractions, read_splits, split_of, without_duplicates
from tests.conftest import alpaca_rows

KEYS = [f"key {number}" for number in range(4000)]
SHARES = st.floats(0, 0.45)

Write = Callable[..., str]


@pytest.mark.parametrize(("val", "test"), [(math.nan, 0.0), (0.0, math.nan), (-0.1, 0.0), (0.5, 0.5), (math.inf, 0.0)])
def test_impossible_shares_are_refused(val: float, test: float) -> None:
    with pytest.raises(UserError, match=f"--data.val_fraction {val} --data.test_fraction {test}: expected shares"):
        held_out_fractions(val, test)


def test_an_unknown_format_is_refused_with_the_nearest_name() -> None:
    expected = "--data.format share_gpt: expected one of messages, sharegpt, .*; did you mean sharegpt?"
    with pytest.raises(UserError, match=expected):
        Sources({"train": ["rows.jsonl"]}, format="share_gpt")


def test_an_unknown_way_to_keep_records_together_is_refused() -> None:
    expected = "--data.keep_together normalised: expected one of exact, normalized, prompt; did you mean normalized?"
    with pytest.raises(UserError, match=expected):
        Sources({"train": ["rows.jsonl"]}, keep_together="normalised")  # type: ignore[arg-type]


def divided(val: float, test: float, train: float = 1.0) -> dict[str | None, set[str]]:
    """Keys by split; those left out are under None."""
    found: dict[str | None, set[str]] = {"train": set(), "val": set(), "test": set(), None: set()}
    for key in KEYS:
        found[split_of(key, {"val": val, "test": test}, train)].add(key)
    return found


@given(SHARES, SHARES, SHARES, st.floats(0.1, 1))
def test_raising_a_share_only_takes_records_from_training(low: float, high: float, other: float, train: float) -> None:
    low, high = sorted((low, high))
    for raised, fixed in (("val", "test"), ("test", "val")):
        before, after = (divided(**{raised: share, fixed: other}, train=train) for share in (low, high))
        assert after[fixed] == before[fixed]
        assert after[raised] >= before[raised]
        assert after["train"] <= before["train"]
        assert after[None] <= before[None]


@given(SHARES, SHARES, st.floats(0.1, 1), st.floats(0.1, 1))
def test_raising_train_fraction_moves_no_held_out_record(val: float, test: float, one: float, two: float) -> None:
    less, more = (divided(val, test, share) for share in sorted((one, two)))
    assert (less["val"], less["test"]) == (more["val"], more["test"])
    assert less["train"] <= more["train"]


def test_splits_have_the_shares_that_were_asked_for() -> None:
    found = divided(0.1, 0.3, 0.5)
    shares = {split: len(keys) / len(KEYS) for split, keys in found.items()}
    assert shares == pytest.approx({"val": 0.1, "test": 0.3, "train": 0.3, None: 0.3}, abs=0.03)


def test_nothing_is_held_out_without_a_share() -> None:
    assert divided(0.0, 0.0)["train"] == set(KEYS)


def placed(sources: Sources) -> dict[str, set[str]]:
    """Origins without the file name, by split."""
    found: dict[str, set[str]] = {split: set() for split in ("train", "val", "test")}
    for split, conversation in read_splits(sources):
        found[split].add(conversation.origin.rpartition(":")[2])
    return found


def test_files_are_divided_by_content_whatever_the_order_and_the_format(write: Write) -> None:
    rows = alpaca_rows(200)
    chats = [{"conversation": [{"human": row["instruction"], "assistant": row["output"]}]} for row in reversed(rows)]
    found = [
        placed(Sources({"train": [write(name, given)]}, {"val": 0.2, "test": 0.3}))
        for name, given in (("a.jsonl", rows), ("b.jsonl", chats))
    ]
    turned = {split: {str(201 - int(line)) for line in lines} for split, lines in found[1].items()}
    assert turned == found[0]
    assert all(found[0].values())


@pytest.mark.parametrize(("raised", "fixed"), [("val", "test"), ("test", "val")])
def test_no_record_of_a_file_moves_between_held_out_splits(write: Write, raised: str, fixed: str) -> None:
    path = write("a.jsonl", alpaca_rows(300))
    before, after = (
        placed(Sources({"train": [path]}, {raised: share, fixed: 0.1}, train_fraction=0.6)) for share in (0.1, 0.5)
    )
    assert after[fixed] == before[fixed] != set()
    assert after[raised] > before[raised]
    assert after["train"] < before["train"]


def families(count: int) -> list[dict[str, Any]]:
    """Each question three times: twice with an answer that differs in case and punctuation, once with another."""
    return [
        {"instruction": f"What is {number} squared?", "output": output}
        for number in range(count)
        for output in (f"It is {number * number}.", f"it is {number * number}", f"Let me think: {number * number}")
    ]


def test_near_duplicates_share_a_split_only_if_asked_for(write: Write) -> None:
    path = write("a.jsonl", families(60))

    def torn(level: KeepTogether) -> tuple[int, int]:
        """How many pairs with equal words, and how many questions, are in more than one split."""
        sources = Sources({"train": [path]}, {"val": 0.25, "test": 0.25}, keep_together=level)
        lines = {line: split for split, numbers in placed(sources).items() for line in numbers}
        assert len(lines) == 180  # kept together, not removed
        split = [lines[str(number)] for number in range(1, 181)]
        families = [split[start : start + 3] for start in range(0, 180, 3)]
        return sum(one != two for one, two, _ in families), sum(len(set(family)) > 1 for family in families)

    same_words, same_question = zip(*map(torn, ("exact", "normalized", "prompt")), strict=True)
    assert same_words[0] > 0 == same_words[1] == same_words[2]
    assert same_question[0] > 0 < same_question[1]
    assert same_question[2] == 0


@pytest.mark.parametrize(("level", "kept"), [("exact", 3), ("normalized", 1), ("prompt", 0)])
def test_near_duplicates_of_a_held_out_file_are_not_trained(write: Write, level: KeepTogether, kept: int) -> None:
    train = write("train.jsonl", families(2)[:3])
    val = write("val.jsonl", [{"prompt": "what is 0 SQUARED", "completion": "It is 0!"}])
    sources = Sources({"train": [train], "val": [val]}, keep_together=level)
    counts, taken = RecordCounts(), set[str]()
    list(without_duplicates("val", sources, RecordCounts(), taken))
    assert len(list(without_duplicates("train", sources, counts, taken))) == kept
    assert (counts.records_read, counts.duplicates) == (3, 3 - kept)


def test_a_group_decides_the_split_before_the_text_does(write: Write) -> None:
    rows = [{**row, "article_id": index % 20} for index, row in enumerate(alpaca_rows(200))]
    path = write("a.jsonl", rows)
    found = placed(Sources({"train": [path]}, {"val": 0.3, "test": 0.3}, keep_together="normalized"))
    of_group = {split: {rows[int(line) - 1]["article_id"] for line in lines} for split, lines in found.items()}
    assert sum(map(len, of_group.values())) == 20
