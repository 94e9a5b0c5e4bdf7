from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from data_modules.sft_data_module import SFTDataModule
from lit_sft.preview.shortening import shortenings

SHORT = {"conversation": [{"human": "a", "assistant": "b"}]}
LONG = {"conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}]}
"""23 and 46 tokens with chatml."""


def shortened(data: SFTDataModule, split: str = "train") -> dict[str, list[str]]:
    """How the examples of each record were shortened, by line."""
    examples = list(data.stores[split])  # type: ignore[call-overload]
    found: dict[str, list[str]] = {}
    for example, what in zip(examples, shortenings(data, split, examples), strict=True):
        found.setdefault(example.origin.rpartition(":")[2], []).append(what)
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_length": 46}, ["", ""]),
        ({"max_length": 30}, ["", "truncated from 46 tokens"]),
        ({"max_length": 22}, ["truncated from 23 tokens", "truncated from 46 tokens"]),
    ],
)
def test_truncated_examples_are_named_with_their_full_length(
    make_data: Callable[..., SFTDataModule], settings: dict[str, Any], expected: list[str]
) -> None:
    assert [what for (what,) in shortened(make_data([SHORT, LONG], **settings)).values()] == expected


def test_parts_of_a_record_that_was_split_are_named_as_such(make_data: Callable[..., SFTDataModule]) -> None:
    part = "one of 2 parts of 46 tokens"
    data = make_data([SHORT, LONG], max_length=30, over_long="split")
    assert shortened(data) == {"1": [""], "2": [part, part]}
    longer = {"conversation": [{"human": "a" * 40, "assistant": "b"}, {"human": "c", "assistant": "d"}]}
    part = "one of 2 parts of 85 tokens, some truncated"
    assert shortened(make_data([longer], max_length=30, over_long="split")) == {"1": [part, part]}


def test_samples_of_one_record_are_told_apart(make_data: Callable[..., SFTDataModule]) -> None:
    data = make_data([LONG], max_length=30, samples="answer", mask="output_only")
    assert shortened(data) == {"1": ["", "truncated from 46 tokens"]}


def test_records_held_out_of_the_training_file_are_found(make_data: Callable[..., SFTDataModule]) -> None:
    rows = [{"conversation": [{"human": f"{n:02}", "assistant": "b"}, *LONG["conversation"]]} for n in range(40)]
    data = make_data(rows, max_length=30, val_fraction=0.5)
    for split in ("train", "val"):
        found = shortened(data, split)
        assert {what for each in found.values() for what in each} == {"truncated from 70 tokens"}
        assert len(found) == len(data.stores[split]) > 5


def test_records_are_not_read_again_if_none_was_shortened(
    make_data: Callable[..., SFTDataModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data([SHORT])
    monkeypatch.setattr("lit_sft.preview.shortening.read_conversations", None)
    assert shortened(data) == {"1": [""]}
