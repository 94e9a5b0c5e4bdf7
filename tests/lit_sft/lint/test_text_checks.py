"""Rules about text: what each finds, and ordinary text that it must not report; its own mistakes become cases."""

from __future__ import annotations

import pytest

from data_modules.records.conversation import Conversation, Message, Role
from lit_sft.lint.scripts import script_of
from lit_sft.lint.text_checks import faults_in_text, marker_search, repetition


def faults(answer: str, question: str = "And then?", **markers: list[str]) -> set[str]:
    turns = (Message(Role.USER, question), Message(Role.ASSISTANT, answer))
    return {rule for rule, _, _ in faults_in_text(Conversation(turns, "rows.jsonl:1"), marker_search(**markers))}


ORDINARY = [
    "Yes.",
    "\U0001f44d",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 went home \u2764\ufe0f.",
    "\u03b1 + \u03b2 = \u0394x, 5 \u03bcm, 20 \u00b0C, \u20ac3, \u00a34, 50 \u00b5g",
    "Le caf\u00e9 \u00e0 c\u00f4t\u00e9 est ferm\u00e9 \u00ab d\u00e9j\u00e0 \u00bb",
    "No\u00ebl, \u00c2ge, ch\u00c2teau, N\u00c3O, S\u00c3O",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0628\u0631\u0648\u0645",
    "\u0915\u094d\u200d\u0937",
    "USB-\u043a\u0430\u0431\u0435\u043b\u044c \u0438 3D-\u043f\u0440\u0438\u043d\u0442\u0435\u0440, email'\u044b",
    "H\u1ed9i An, \u0110\u00e0 N\u1eb5ng, \u00c2u C\u01a1",
    "| a | b |\n|---|---|\n| 1 | 2 |\n" + "-" * 100,
    "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
    "Ha ha ha ha ha!",
    "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
    "### Steps\n1. Mix.\n2. Bake.\n\nResponse: ready. Human: he said. [1] <b>x</b> <s>no</s> a << b, c | d",
    "def f(x):\n\treturn x\r\n",
    "\u201cquoted\u201d \u2018text\u2019 \u2026 \u2014 \u2013 \u2022",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_not_reported(text: str) -> None:
    assert faults(text, question=text) == set()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("caf\u00c3\u00a9", "mojibake"),
        ("it\u00e2\u20ac\u2122s", "mojibake"),
        ("\u00ef\u00bb\u00bfHello", "mojibake"),
        ("20 \u00c2\u00b0C", "mojibake"),
        ("\u00d0\u0178\u00d1\u20ac\u00d0\u00b8\u00d0\u00b2", "mojibake"),
        ("a\ufffdb", "replacement-character"),
        ("a\x00b", "control-character"),
        ("a\x1b[31mb", "control-character"),
        ("a\u0085b", "control-character"),
        ("a\u200bb", "invisible-character"),
        ("a\u00adb", "invisible-character"),
        ("\ufeffa", "invisible-character"),
        ("a\u202eb", "invisible-character"),
        ("ab\u200dcd", "invisible-character"),
        ("p\u0430ypal", "mixed-scripts"),
        ("\u0440aypal", "mixed-scripts"),
        ("\u043c\u043eo\u0440\u0435", "mixed-scripts"),
        ("?!", "short-answer"),
        ("x" * 20_001, "long-answer"),
        ("Fine.<|im_end|>", "marker-in-content"),
        ("[INST] x [/INST]", "marker-in-content"),
        ("Fine.\n### Instruction:\nGo on.", "marker-in-content"),
    ],
)
def test_fault_is_found(text: str, rule: str) -> None:
    assert rule in faults(text)


def test_special_tokens_of_the_tokenizer_and_lines_of_the_template_are_markers() -> None:
    assert faults("a<eos>b\nUser:\nc") == set()
    assert faults("a<eos>b", special=["<eos>"]) == {"marker-in-content"}
    assert faults("a\nUser:\nb", lines=["User:"]) == {"marker-in-content"}
    assert faults("The User: he writes", lines=["User:"]) == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("word", None),
        ("Good. " + "I am sorry. " * 9, (" I am sorry.", 9)),
        ("x" * 100, ("x", 100)),
        ("-" * 100, None),
        ("abc " * 500, (" abc", 499)),
        ("la la la la", None),
        ("\u6211\u5f88\u597d\u3002" * 20, ("\u6211\u5f88\u597d\u3002", 20)),
        ("\n".join(["- item"] * 12), ("\n- item", 11)),
    ],
)
def test_repetition_is_the_loop_at_the_end(text: str, expected: tuple[str, int] | None) -> None:
    assert repetition(text) == expected


def test_loop_of_a_long_unit_is_found() -> None:
    unit = " ".join(f"Line {number} of the song." for number in range(12)) + " "
    assert len(unit) < 400
    found = repetition(unit * 5)
    # the first has no space before it
    assert found == (f" {unit.rstrip()}", 4)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("The quick brown fox", "Latin"),
        ("\u0414\u043e\u0431\u0440\u044b\u0439 \u0434\u0435\u043d\u044c, \u043c\u0438\u0440", "Cyrillic"),
        ("\u8f66\u7ad9\u5728\u8001\u78e8\u574a\u7684\u65c1\u8fb9", "Chinese or Japanese"),
        ("Short", ""),
        ("1234567890 + 22", ""),
        ("half \u8f66\u7ad9\u5728\u8001\u78e8", ""),
    ],
)
def test_script_of_a_text(text: str, script: str) -> None:
    assert script_of(text) == script
