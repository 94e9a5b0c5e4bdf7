from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.color import Color, ColorSystem
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from lit_sft.preview.terminal import SHADES, SHADES_OF_16, Shades, print_examples
from lit_sft.reporting.token_view import show_example


def test_every_kind_has_two_shades() -> None:
    kinds = set(SegmentKind) - {SegmentKind.PADDING}
    assert set(SHADES) == set(SHADES_OF_16) == kinds


@pytest.mark.parametrize(("shades", "system"), [(SHADES, ColorSystem.EIGHT_BIT), (SHADES_OF_16, ColorSystem.STANDARD)])
def test_all_shades_differ_after_the_terminal_has_rounded_them(shades: Shades, system: ColorSystem) -> None:
    firsts = [Color.parse(first).downgrade(system).number for first, _ in shades.values()]
    assert len(set(firsts)) == len(firsts)
    for first, second in shades.values():
        assert Color.parse(first).downgrade(system).number != Color.parse(second).downgrade(system).number


def test_all_shades_of_a_terminal_with_16_colours_differ() -> None:
    numbers = [
        Color.parse(shade).downgrade(ColorSystem.STANDARD).number for pair in SHADES_OF_16.values() for shade in pair
    ]
    assert len(set(numbers)) == 14  # black and white could be invisible


@pytest.mark.parametrize(("supervised", "underlined"), [("whole_sequence", True), ("output_only", False)])
def test_neighbouring_tokens_differ_on_a_terminal_with_16_colours(
    tokenizer: PreTrainedTokenizerFast, supervised: str, underlined: bool
) -> None:
    kinds = np.full(4, SegmentKind.USER, dtype=np.uint8)
    example = Example(np.array([*b"zabc"], dtype=np.int32), kinds, np.zeros(4, dtype=np.int16), "rows.jsonl:1")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard", width=80)
    print_examples(console, "", [show_example(example, tokenizer, [MASKS[supervised]])])
    styles = dict(re.findall(r"\x1b\[([0-9;]+)m([abc])\x1b", file.getvalue()))
    # bold is left out: many of these terminals show it as the bright colour, the other shade
    assert styles == ({"4;94": "c", "4;34": "b"} if underlined else {"94": "c", "34": "b"})
