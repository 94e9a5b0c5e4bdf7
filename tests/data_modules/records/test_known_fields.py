from __future__ import annotations

import math
from typing import Any

import pytest

from data_modules.records.field_values import is_given
from data_modules.records.formats import FORMATS
from data_modules.records.known_fields import MESSAGE_FIELDS, RECORD_FIELDS, Use, examine, table
from tests.documents import text_of

HEADER = "| of a | field | what is done | meaning, or reason |\n|---|---|---|---|\n"


def rendered() -> str:
    return HEADER + "".join(f"| {' | '.join(row)} |\n" for row in table())


def test_docs_show_the_table_of_the_code() -> None:
    assert rendered() in text_of("docs/data.md"), f"put this table into docs/data.md:\n{rendered()}"


def test_every_field_has_one_meaning_in_every_format() -> None:
    for fields in (RECORD_FIELDS, MESSAGE_FIELDS):
        for format in FORMATS:
            names = [name for known in fields if not known.formats or format in known.formats for name in known.names]
            assert len(names) == len(set(names))
    assert {format for known in RECORD_FIELDS for format in known.formats} <= FORMATS.keys()


@pytest.mark.parametrize("format", FORMATS)
def test_every_refused_field_of_a_record_is_refused_in_every_format_it_belongs_to(format: str) -> None:
    layout = FORMATS[format]
    own = dict.fromkeys(layout.fields, "x")
    for known in RECORD_FIELDS:
        if known.use is Use.REFUSED and (not known.formats or format in known.formats):
            value = known.applies(True)
            for name in known.names:
                assert layout.examine({**own, name: None}).fault == ""
                fault = layout.examine({**own, name: value}).fault
                assert fault.startswith(f"field '{name}' is {str(value).lower()}; {known.reason}. Remove the field, or")


@pytest.mark.parametrize(
    ("value", "is_refused"),
    [(0, True), (0.5, True), ("0", True), (False, True), ("False", True), (1, False), (True, False), (72.5, False)],
)
def test_weight_of_a_whole_record_is_refused_if_it_would_be_trained_less(value: Any, is_refused: bool) -> None:
    found = FORMATS["alpaca"].examine({"instruction": "x", "output": "y", "weight": value})
    assert bool(found.fault) is is_refused
    assert ("weight" in found.unknown) is not is_refused


@pytest.mark.parametrize("format", [name for name, layout in FORMATS.items() if layout.of_message])
def test_every_refused_field_of_a_message_is_refused(format: str) -> None:
    layout = FORMATS[format]
    for known in MESSAGE_FIELDS:
        for name in known.names if known.use is Use.REFUSED else ():
            messages = [dict.fromkeys(layout.of_message, "x"), {**dict.fromkeys(layout.of_message, "x"), name: ["y"]}]
            fault = layout.examine({layout.fields[0]: messages}).fault
            assert fault.startswith(f"{layout.fields[0]}[1].{name} is a list; {known.reason}. ")


def test_field_with_its_own_meaning_in_the_format_is_not_a_known_one() -> None:
    for layout in FORMATS.values():
        assert layout.examine(dict.fromkeys((*layout.fields, *layout.optional), "x")) == examine({}, layout.name, ())


@pytest.mark.parametrize("value", [None, "", " \n", [], {}, (), math.nan])
def test_empty_values_are_not_given(value: Any) -> None:
    assert not is_given(value)


@pytest.mark.parametrize("value", [False, 0, 0.0, "0", [None], {"a": None}, b""])
def test_other_values_are_given(value: Any) -> None:
    assert is_given(value)


def test_first_fault_is_that_of_the_record() -> None:
    messages = [{"role": "user", "content": "x", "tool_calls": [1]}]
    assert FORMATS["messages"].examine({"messages": messages, "images": ["a"]}).fault.startswith("field 'images' is")
