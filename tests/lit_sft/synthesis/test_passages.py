"""The parts of articles that requests are about."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lit_sft.synthesis.passages import passages

TEXT = "One two. Three four.  Five six seven eight nine"


def texts(text: str, longest: int, *, split: bool) -> list[str]:
    return [text[start:stop] for start, stop in passages(text, longest, split=split)]


def test_short_text_is_whole_without_white_space_around_it() -> None:
    assert texts(f"\n {TEXT}\n", 100, split=False) == [TEXT]


def test_long_text_is_cut_at_the_last_sentence_end_that_fits() -> None:
    assert texts(TEXT, 21, split=False) == ["One two. Three four."]
    assert texts(TEXT, 19, split=False) == ["One two."]
    assert texts("第一句。第二句。第三句。", 9, split=False) == ["第一句。第二句。"]


def test_text_without_a_sentence_end_is_cut_at_white_space_else_anywhere() -> None:
    assert texts("alpha beta gamma", 12, split=False) == ["alpha beta"]
    assert texts("abcdefgh", 3, split=True) == ["abc", "def", "gh"]


def test_split_text() -> None:
    assert texts(TEXT, 21, split=True) == ["One two. Three four.", "Five six seven eight", "nine"]


@given(st.text(alphabet="ab .。\n", min_size=1), st.integers(1, 12))
def test_parts_hold_every_character_but_white_space(text: str, longest: int) -> None:
    parts = texts(text, longest, split=True)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part == part.strip() and 0 < len(part) <= longest for part in parts)
    assert texts(text, longest, split=False) == parts[:1]
