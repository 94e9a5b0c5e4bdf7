from __future__ import annotations

import pytest

from lit_sft.printable import printable


@pytest.mark.parametrize(
    "code", [0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800, 0x034F, 0x17B4, 0x180E, 0x2065, 0xFE00, 0xE0100, 0x1D159, 0x200B]
)
def test_invisible_characters_are_printed_as_codes(code: int) -> None:
    assert printable(f"a{chr(code)}b") == f"a\\u{code:04x}b"


@pytest.mark.parametrize("text", ["很好 naïve", "한글 \uac00", "\u2801⠓", "क्\u200dष", "👩\u200d💻 ❤\ufe0f", "a\u0301"])
def test_characters_needed_by_scripts_and_emoji_are_kept(text: str) -> None:
    assert printable(text) == text
