"""Thinking of an assistant, in a field or in the content: trained, masked or stripped."""

from __future__ import annotations

from typing import Any

import pytest

from data_modules.records.content_keys import content_key
from data_modules.records.turn_order import TurnRules
from tests.data_modules.records.shapes import HI, Write, asked, read, shown


@pytest.mark.parametrize(
    ("content", "masked", "stripped"),
    [
        ("<think>\nHm.\n</think>\n\nHello", "[Hm.]Hello", "Hello"),
        ("<think>Hm.</think>Hello", "[Hm.]Hello", "Hello"),
        ("\n<think>\nHm.\n\n</think>\nHello", "[Hm.]Hello", "Hello"),
        ("<think>\n\n</think>\n\nHello", "Hello", "Hello"),
        ("Hello <think>", "Hello <think>", "Hello <think>"),
    ],
)
def test_thinking_is_masked_or_stripped_in_any_spelling(write: Write, content: str, masked: str, stripped: str) -> None:
    fields = asked(answer={"content": content})
    for how, expected in (("mask", masked), ("strip", stripped)):
        (conversation,) = read(write, fields, TurnRules(thinking=how))  # type: ignore[arg-type]
        assert shown(conversation) == [HI[0], f"assistant: {expected}"]
        assert content_key(conversation) == content_key(read(write, asked())[0]) or content == "Hello <think>"


def test_thinking_of_a_field_is_masked_or_stripped(write: Write) -> None:
    fields = asked(answer={"reasoning_content": "Hm."})
    assert shown(read(write, fields, TurnRules(thinking="mask"))[0]) == [HI[0], "assistant: [Hm.]Hello"]
    assert shown(read(write, fields, TurnRules(thinking="strip"))[0]) == HI


@pytest.mark.parametrize("how", ["mask", "strip"])
def test_a_block_that_does_not_end_is_refused_unless_it_is_trained(write: Write, how: Any) -> None:
    fields = asked(answer={"content": "<think>\nHm. Hello"})
    assert shown(read(write, fields)[0]) == [HI[0], "assistant: <think>\nHm. Hello"]
    with pytest.raises(ValueError, match=rf"turn 2 \(assistant\) begins with <think>, but .*`--data.thinking {how}`"):
        read(write, fields, TurnRules(thinking=how))
