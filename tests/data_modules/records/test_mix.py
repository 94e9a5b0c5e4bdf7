"""The settings of `--data.mix`, and which records a cap chooses."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from data_modules.errors import UserError
from data_modules.records.counts import RecordCounts
from data_modules.records.mix import read_mix
from data_modules.records.splits import Sources, without_duplicates
from tests.conftest import alpaca_rows

A, B = {"name": "a", "files": "a.json"}, {"name": "b", "files": ["b.json", "c.json"]}


def test_sources_are_sorted_by_name_and_have_defaults() -> None:
    one, two = read_mix([B, {**A, "weight": None, "template": None}])
    assert (one.name, one.files, one.weight, one.repeats, one.cap) == ("a", ["a.json"], None, 1.0, None)
    assert two.files == ["b.json", "c.json"]
    assert read_mix(None, "train.json") == ()


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ([], "--data.mix is empty; expected a list of sources, each with 'name' and 'files'."),
        ({"a": 1}, "--data.mix is a mapping; expected a list of sources"),
        (["a.json"], "--data.mix[0] is the string 'a.json'; expected the settings of a source"),
        ([{**A, "wieght": 2}], "--data.mix[0]: unknown setting 'wieght'; expected some of name, files, weight, "
                               "repeats, cap, format, columns, template, mask, cleaning; did you mean weight?"),
        ([{"files": "a.json"}], "--data.mix[0] has no 'name'; expected at least 'name' and 'files'."),
        ([A, {"name": "b"}], "--data.mix[1] has no 'files'; expected"),
        ([A, {**B, "name": "a"}], "--data.mix: two sources have the name 'a'; rename one of them."),
        ([{**A, "name": "a/b"}], "--data.mix a/b: expected a name of letters, digits, '_', '-' and '.'"),
        ([{**A, "weight": 0}], "--data.mix a: weight 0; expected a number above 0. To leave a source out, remove it."),
        ([{**A, "repeats": float("nan")}], "--data.mix a: repeats nan; expected a number above 0."),
        ([{**A, "cap": 0}], "--data.mix a: cap 0; expected at least 1 record."),
        ([{**A, "cap": 2.5}], "--data.mix[0].cap is the number 2.5; expected a whole number."),
        ([{**A, "cap": True}], "--data.mix[0].cap is true; expected a whole number."),
        ([{**A, "weight": "2"}], "--data.mix[0].weight is the string '2'; expected a number."),
        ([{**A, "weight": 1}, B], "--data.mix: no weight for b; a weight is a share of the examples, so either all"),
        ([{**A, "weight": 1, "repeats": 2}], "--data.mix a: has both a weight and repeats; a weight decides how often"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_by_name(mix: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_mix(mix)


def test_weights_are_shares_of_what_the_run_counts() -> None:
    with pytest.raises(UserError, match=r"no weight for b; a weight is a share of the tokens, so either"):
        read_mix([{**A, "weight": 1}, B], shares="tokens")


def test_training_files_beside_a_mixture_are_refused() -> None:
    with pytest.raises(UserError, match=r"--data\.train and --data\.mix are both given; add the files"):
        read_mix([A], "train.json")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"format": "alpacca"}, "--data.mix a: format alpacca: expected one of"),
        ({"columns": {"instructon": "q"}}, "--data.mix a: columns: no format has the field 'instructon'"),
    ],
)
def test_a_wrong_format_or_column_of_a_source_is_refused(setting: dict[str, Any], message: str) -> None:
    (source,) = read_mix([{**A, **setting}])
    with pytest.raises(UserError, match=re.escape(message)):
        source.sources(Sources({"train": ["a.json"]}))


def test_a_cap_chooses_the_same_records_whatever_their_order(write: Callable[..., str]) -> None:
    rows = alpaca_rows(60)
    shuffled = random.Random(0).sample(rows, len(rows))

    def chosen(path: str, cap: int) -> list[str]:
        counts = RecordCounts()
        sources = Sources({"train": [path]}, {"val": 0.3}, cap=cap)
        found = [each.turns[0].content for each in without_duplicates("train", sources, counts, set())]
        assert counts.records_read == len(found) == cap
        assert counts.left_out == 60 - held_out - cap
        return found

    paths = write("a.jsonl", rows), write("b.jsonl", shuffled)
    held_out = len(list(without_duplicates("val", Sources({"train": [paths[0]]}, {"val": 0.3}), RecordCounts(), set())))
    assert set(chosen(paths[0], 20)) == set(chosen(paths[1], 20))
    assert set(chosen(paths[0], 10)) < set(chosen(paths[0], 20))


def test_a_cap_counts_equal_records_one_by_one(write: Callable[..., str]) -> None:
    path = write("a.jsonl", [{"prompt": "a", "completion": "b"}] * 5)
    assert len(list(without_duplicates("train", Sources({"train": [path]}, cap=3), RecordCounts(), set()))) == 3
