"""Fields in the ledger, in the cache key and in the identity of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.encoding import cache
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.ledger import Ledger, unused_fields
from data_modules.records.counts import RecordCounts
from data_modules.records.known_fields import FoundFields
from data_modules.records.splits import Sources
from data_modules.rendering.templates import resolve_template
from data_modules.sft_data_module import SFTDataModule
from tests.conftest import alpaca_rows

MakeData = Callable[..., SFTDataModule]
Write = Callable[..., str]

HI = {"role": "user", "content": "Hi"}
YO = {"role": "assistant", "content": "Yo"}


def test_unknown_fields_are_counted_once_per_file(write: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    first = [{**row, "source": "web", "topic": "x" if index < 3 else None} for index, row in enumerate(alpaca_rows(50))]
    second = [{"messages": [HI, {**YO, "name": "Bo"}], "b": 1, "a": 0}, {"messages": [HI, YO], "a": False}]
    files = [write("rows.jsonl", first), write("chats.json", second)]
    data = SFTDataModule(files, tokenizer=tokenizer, template="chatml", val_fraction=0.2, test_fraction=0.1)
    data.setup("fit")
    assert data.ledgers["train"]["unknown_fields"] == {
        files[0]: {"source": 50, "topic": 3},
        files[1]: {"a": 2, "b": 1, "messages[].name": 1},
    }
    assert unused_fields(data.ledgers["train"]) == [
        f"{files[0]}: fields not used: source (50 records), topic (3)",
        f"{files[1]}: fields not used: a (2 records), b (1), messages[].name (1)",
    ]
    assert not any("unknown_fields" in data.ledgers[split] for split in ("val", "test"))


def test_data_with_nothing_to_report_has_no_lines(make_data: MakeData) -> None:
    assert unused_fields(make_data(alpaca_rows(3)).ledgers["train"]) == []
    assert unused_fields({"records_read": 3}) == []  # from an older version


def test_many_unknown_fields_take_little_memory() -> None:
    counts = RecordCounts()
    for index in range(5000):
        counts.count_fields("a.jsonl", FoundFields(unknown=(f"x{index}", "\x1b[31m" + "y" * 500)))
    names = counts.unknown_fields["a.jsonl"]
    assert len(names) == 101
    assert names["other fields"] == 5000 - 99
    assert max(map(len, names)) <= 60


def test_ledgers_are_added_with_their_fields() -> None:
    first, second = Ledger(), Ledger()
    for ledger in (first, second):
        ledger.count_fields("a.jsonl", FoundFields(unknown=("x",), changed=("history",)))
        ledger.columns_found.add("q")
    first.add(second)
    entry = first.to_dict()
    assert (entry["unknown_fields"], entry["changed_fields"]) == ({"a.jsonl": {"x": 2}}, {"history": 2})
    assert first.columns_found == {"q"}


AFFECTED: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "weight 0": ([{"messages": [HI, {**YO, "weight": 0}, HI, YO]}], ["weight"]),
    "history": ([{"instruction": "a", "output": "b", "history": [["c", "d"]]}], ["history"]),
    "system beside messages": ([{"messages": [HI, YO], "system": "Brief."}], ["system"]),
    "dropped": ([{"messages": [HI, {**YO, "tool_calls": [1]}]}], ["messages[].tool_calls"]),
    "developer and parts": (
        [{"messages": [{"role": "developer", "content": [{"type": "text", "text": "x"}]}, HI, YO]}],
        ["content parts", "role developer"],
    ),
    "an empty system message": ([{"messages": [{"role": "system", "content": ""}, HI, YO]}], ["empty system message"]),
}
UNAFFECTED: dict[str, list[dict[str, Any]]] = {
    "plain": [],
    "weight 1": [
        {"messages": [HI, {**YO, "weight": 1}]},
        {"messages": [{**HI, "train": False}, {**YO, "train": True}]},
    ],
    "empty fields": [{"messages": [HI, {**YO, "tool_calls": None}], "tools": [], "system": "", "history": []}],
    "system of alpaca": [{"instruction": "a", "output": "b", "system": "c", "id": 1}],
    "unknown": [{"instruction": "a", "output": "b", "source": "web"}],
}


@pytest.mark.parametrize("case", AFFECTED)
def test_identity_names_fields_that_earlier_versions_ignored(make_data: MakeData, case: str) -> None:
    rows, names = AFFECTED[case]
    valid = alpaca_rows(1) if "instruction" in rows[0] else [{"messages": [HI, YO]}]
    data = make_data([*valid, *rows], on_invalid="drop")
    assert data.identity()[cache.CHANGED_FIELDS] == names
    assert data.fingerprint != cache.data_fingerprint(data.sources, data.encoder)


@pytest.mark.parametrize("case", UNAFFECTED)
def test_identity_of_other_data_is_that_of_earlier_versions(make_data: MakeData, case: str) -> None:
    rows = UNAFFECTED[case] or alpaca_rows(3)
    data = make_data(rows)
    assert cache.CHANGED_FIELDS not in data.identity()
    assert data.fingerprint == cache.data_fingerprint(data.sources, data.encoder)
    assert data.identity()["version of the encoding"] == 5


def test_cache_of_an_earlier_version_is_not_read(
    tmp_path: Path, write: Write, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources({"train": [write("rows.jsonl", alpaca_rows(3))]})
    encoder = Encoder(tokenizer, resolve_template("chatml", tokenizer), 200)
    now, identity = cache.cache_key(sources, encoder), cache.data_identity(sources, encoder)
    monkeypatch.setattr(cache, "_CACHE_VERSION", cache._CACHE_VERSION - 1)
    assert cache.cache_key(sources, encoder) != now
    assert cache.data_identity(sources, encoder) == identity
