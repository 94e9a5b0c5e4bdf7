"""Records that are kept in memory give every split what reading the files again gives."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from data_modules.records import splits
from data_modules.records.conversation import Conversation
from data_modules.records.counts import RecordCounts
from data_modules.records.kept_records import KeptRecords
from data_modules.records.splits import Sources, without_duplicates
from data_modules.records.turn_order import TurnRules
from tests.conftest import alpaca_rows

Found = dict[str, tuple[list[Conversation], dict[str, Any]]]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Records of two formats; some are invalid, have unknown fields, or have turns to be joined."""
    rows: list[Any] = [{**row, "colour": number} for number, row in enumerate(alpaca_rows(40))]
    rows[5], rows[11] = {"instruction": "no answer"}, {"instruction": 3, "output": "x"}
    user = [{"role": "user", "content": f"twice {number}"} for number in range(2)]
    chats = [{"messages": [*user, {"role": "assistant", "content": f"Yes {number}."}]} for number in range(20)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "chats.jsonl").write_text("not json\n" + "".join(json.dumps(chat) + "\n" for chat in chats))
    return [str(tmp_path / "rows.json"), str(tmp_path / "chats.jsonl")]


def found(sources: Sources, kept: KeptRecords | None) -> Found:
    taken: set[str] = set()
    result = {}
    for split in sources.splits:
        counts = RecordCounts(sources.on_invalid)
        result[split] = list(without_duplicates(split, sources, counts, taken, kept)), vars(counts)
    return result


@pytest.mark.parametrize("settings", [{}, {"cap": 7}, {"train_fraction": 0.5, "keep_together": "prompt"}])
@pytest.mark.parametrize("most", [10**9, 20_000, 0])
def test_every_split_has_the_same_records_and_counts(paths: list[str], settings: dict[str, Any], most: int) -> None:
    rules = TurnRules(consecutive="merge")
    shares = {"val": 0.3, "test": 0.2}
    sources = Sources({"train": paths}, shares, on_invalid="drop", turn_rules=rules, **settings)
    kept = found(sources, KeptRecords(most))
    assert kept == found(sources, None)
    assert all(conversations for conversations, _ in kept.values())
    assert kept["train"][1]["num_invalid"] == 3
    assert kept["train"][1]["unknown_fields"] == {paths[0]: Counter({"colour": 38})}


def test_a_source_is_read_once_if_there_is_room(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read, names = splits.read_records, []

    def noted(source: str, **options: Any) -> Any:
        names.append(source)
        return read(source, **options)

    monkeypatch.setattr(splits, "read_records", noted)
    rules = TurnRules(consecutive="merge")
    sources = Sources({"train": paths}, {"val": 0.3, "test": 0.2}, on_invalid="drop", turn_rules=rules)
    found(sources, KeptRecords())
    assert Counter(names) == dict.fromkeys(paths, 1)
    names.clear()
    found(sources, KeptRecords(45_000))  # room for the first file only
    assert Counter(names) == {paths[0]: 1, paths[1]: 3}


def test_other_settings_of_reading_read_again(paths: list[str]) -> None:
    kept, rules = KeptRecords(), TurnRules(consecutive="merge")
    sources = Sources({"train": [paths[1]]}, on_invalid="drop", turn_rules=rules)
    assert len(found(sources, kept)["train"][0]) == 20
    with pytest.raises(UserError, match="all 21 records are invalid"):
        found(replace(sources, turn_rules=TurnRules()), kept)
