from __future__ import annotations

from data_modules.wording import did_you_mean, kind_of, reason_of, shortened
from lit_sft.__main__ import _shortened

ADDRESS = "https://huggingface.co/docs/transformers/installation#offline-mode"


def test_urls_are_never_cut() -> None:
    text = f"Check your connection or see how to run offline at {ADDRESS} or elsewhere"
    for limit in range(10, len(text) + 1):
        assert ADDRESS in (cut := shortened(text, limit)) or "http" not in cut
        assert len(cut) <= limit + len(" [...]")
    assert shortened(text, len(text)) == text


def test_a_single_long_word_is_cut() -> None:
    assert shortened("x" * 50, 10) == "x" * 10 + " [...]"


def test_an_error_is_one_line_and_never_empty() -> None:
    assert reason_of(ValueError("a\n  b")) == "a b"
    assert reason_of(KeyError()) == "KeyError"


def test_a_long_message_loses_its_middle_between_words() -> None:
    for start in range(700, 900):
        shown = _shortened(f"{'a ' * (start // 2)}{ADDRESS} {'b ' * 2000}")
        assert ADDRESS in shown or "http" not in shown
        shown = _shortened(f"{'b ' * 2000}{ADDRESS} {'a ' * (start // 2)}")
        assert ADDRESS in shown or "offline-mode" not in shown
    assert len(_shortened("x" * 10_000)) < 1700


def test_the_nearest_names_are_suggested() -> None:
    assert did_you_mean("fti", ["fit", "test"]) == "did you mean fit?"
    assert did_you_mean("mask", ["masks", "max", "marks"], num=2, sign="--") == "did you mean --masks or --marks?"
    assert did_you_mean("zebra", ["fit", "test"]) == ""


def test_a_mapping_has_the_name_of_its_file_format() -> None:
    assert (kind_of({}), kind_of({}, "a mapping")) == ("an object", "a mapping")
