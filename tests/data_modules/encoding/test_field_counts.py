"""Fields that nothing reads, in the ledger."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedTokenizerFast

from data_modules.encoding.ledger import Ledger, unused_fields
from data_modules.records.counts import RecordCounts
from data_modules.records.known_fields import FoundFields
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
        ledger.count_fields("a.jsonl", FoundFields(unknown=("x",)))
        ledger.columns_found.add("q")
    first.add(second)
    entry = first.to_dict()
    assert entry["unknown_fields"] == {"a.jsonl": {"x": 2}}
    assert first.columns_found == {"q"}
