from __future__ import annotations

from collections import Counter

from data_modules.ledger import Ledger
from data_modules.rejections import count_reasons, reason_of


def test_reason_leaves_out_the_place_and_the_values() -> None:
    same = [
        "a/b 1.jsonl:12: field 'output' is int '3'; expected a string.",
        "c.parquet:row 7: field 'output' is int '44'; expected a string.",
        "d.json:1 (record 3): field 'output' is int 'x'; expected a string.",
    ]
    other = "a.jsonl:1: field 'prompt' is int '3'; expected a string."
    assert len({reason_of(message) for message in same}) == 1
    assert reason_of(other) != reason_of(same[0])


def test_reason_keeps_the_name_of_an_encoding() -> None:
    assert reason_of("a.jsonl:1: not UTF-8 (byte 17); save the file as UTF-8.").endswith(
        "(byte _); save the file as UTF-8."
    )


def test_reasons_are_listed_with_counts_and_the_first_message_of_each() -> None:
    ledger = Ledger("drop")
    for line in range(1, 6):
        ledger.reject(f"a.jsonl:{line}: not an object, or set `--data.on_invalid drop`.")
    for number in range(150):
        ledger.reject(f"a.jsonl:{number}: field 'x' is '{number}'.")
    for kind in ("alpha", "beta"):
        ledger.reject(f"a.jsonl:9: {kind}.")
    assert count_reasons(ledger.reasons, ledger.invalid) == (
        "150 like a.jsonl:0: field 'x' is '0' | 5 like a.jsonl:1: not an object | 1 like alpha | 1 other kinds of fault"
    )
    assert sum(ledger.reasons.values()) == ledger.num_invalid == 157


def test_kinds_of_fault_that_are_counted_apart_are_limited() -> None:
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
