from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from data_modules.encoding.ledger import Ledger
from data_modules.errors import UserError
from data_modules.records.counts import RecordCounts
from data_modules.records.rejections import count_reasons, reason_of
from data_modules.records.splits import Sources, read_conversations


def test_reason_leaves_out_the_place_and_the_values() -> None:
    same = [
        "a/b 1.jsonl:12: field 'output' is the number 3; expected a string.",
        "c.parquet:row 7: field 'output' is the number -44.5; expected a string.",
        "d.json:1 (record 3): field 'output' is the number 1e-07; expected a string.",
        "d.json:1 (record 3): field 'output' is the number nan; expected a string.",
    ]
    other = "a.jsonl:1: field 'prompt' is the number 3; expected a string."
    assert len({reason_of(message) for message in same}) == 1
    assert reason_of(other) != reason_of(same[0])


def test_reason_keeps_the_name_of_an_encoding() -> None:
    assert reason_of("a.jsonl:1: not UTF-8 (byte 17); save the file as UTF-8.").endswith(
        "(byte _); save the file as UTF-8."
    )


def test_message_of_a_dropped_record_does_not_advise_dropping_it() -> None:
    ledger = Ledger("drop")
    ledger.reject("a.jsonl:2: turn 1 (user) is empty; expected text. Fill it in, or set `--data.on_invalid drop`.")
    assert ledger.invalid == ["a.jsonl:2: turn 1 (user) is empty; expected text. Fill it in."]
    assert "on_invalid" not in next(iter(ledger.reasons))
    with pytest.raises(ValueError, match=r"Fill it in, or set `--data.on_invalid drop`\.$"):
        Ledger("error").reject("a.jsonl:2: empty. Fill it in, or set `--data.on_invalid drop`.")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"instruction": "a", "output": "b"', "not valid JSON"),
        ('{"text": "a", "text": "b"}', "duplicate field 'text'"),
        ('{"messages": []}', "the conversation has no turns"),
        ('{"instruction": "a", "output": null}', "no answer to train on"),
        ('{"instruction": null, "output": "b"}', "field 'instruction' is null"),
        ('{"question": "a"}', "no known format has the fields question"),
        ("3", "found the number 3"),
    ],
)
def test_every_invalid_record_that_stops_a_run_says_once_how_to_drop_it(
    write: Callable[..., str], content: str, fault: str
) -> None:
    sources = Sources({"train": [write("rows.jsonl", content + "\n")]})
    with pytest.raises(UserError, match=re.escape(fault)) as refused:
        list(read_conversations("train", sources, RecordCounts()))
    assert str(refused.value).count("`--data.on_invalid drop`") == 1
    assert str(refused.value).endswith("`--data.on_invalid drop`.")
    dropping = RecordCounts("drop")
    with pytest.raises(UserError, match=re.escape(fault)) as refused:
        list(read_conversations("train", replace(sources, on_invalid="drop"), dropping))
    assert "on_invalid" not in str(refused.value) + dropping.invalid[0]


def test_reasons_are_listed_with_counts_and_the_first_message_of_each() -> None:
    ledger = Ledger("drop")
    for line in range(1, 6):
        ledger.reject(f"a.jsonl:{line}: not an object, or set `--data.on_invalid drop`.")
    for number in range(150):
        ledger.reject(f"a.jsonl:{number}: field 'x' is '{number}'.")
    for kind in ("alpha", "beta"):
        ledger.reject(f"a.jsonl:9: {kind}.")
    assert count_reasons(ledger.reasons, ledger.invalid) == (
        "150 like a.jsonl:0: field 'x' is '0' | 5 like a.jsonl:1: not an object | 1 like alpha | 1 other kind of error"
    )
    assert sum(ledger.reasons.values()) == ledger.num_invalid == 157


def test_number_of_separately_counted_reasons_is_limited() -> None:
    ledger = Ledger("drop")
    letters = "abcdefghijklmnopqrstuvwxyz"
    for first in letters:
        for second in letters:
            for third in "ab":
                ledger.reject(f"a.jsonl:1: {first}{second}{third}")
    assert len(ledger.reasons) == 1001
    assert ledger.reasons["other faults"] == 26 * 26 * 2 - 1000
    both = Ledger("drop")
    both.add(ledger)
    assert both.reasons == Counter(ledger.reasons)
