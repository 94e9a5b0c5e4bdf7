"""Rules about the text of a single conversation: markers, broken encodings, odd characters, odd answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from data_modules.records.conversation import Conversation, Message, Role
from lit_sft.lint.scripts import script_of

Fault = tuple[str, str, str]
"""A rule, what was found, and the words around it."""

MARKERS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
)
"""Control tokens of common chat formats, looked for whatever the tokenizer is."""

HEADERS = ("### Instruction:", "### Input:", "### Response:", "### Human:", "### Assistant:")
"""Role headers of common formats without control tokens; they count at the start of a line only."""

LONGEST_ANSWER = 20_000
"""Characters of an answer above which it is reported as long."""

_MOJIBAKE = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013\u2014\u2018-\u201e"
    "\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
    "|\u00e2\u20ac[\u0080-\u00bf\u0153\u02dc\u2122\u201c\u201d\u2018\u2019]"
    "|\u00ef\u00bb\u00bf"
    "|(?:[\u00d0\u00d1][\u0080-\u00bf\u0152-\u2122]){3}"
)
"""UTF-8 read as Windows-1252 or Latin-1: letters with accents, quotation marks, a byte order mark, Cyrillic."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_CONTROL_ASCII = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u2060-\u2064\ufeff\u202a-\u202e\u2066-\u2069]|(?<=[A-Za-z])[\u200c\u200d](?=[A-Za-z])"
)
_LIKE_LATIN = (
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0410\u0412\u0415"
    "\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425"
)
_LIKE_CYRILLIC = "aeopcxyABEKMHOPCTX"
_MIXED = re.compile(
    rf"(?<=[A-Za-z])[{_LIKE_LATIN}](?=[A-Za-z])|\b[{_LIKE_LATIN}](?=[A-Za-z]{{2}})"
    rf"|(?<=[\u0400-\u04ff])[{_LIKE_CYRILLIC}](?=[\u0400-\u04ff])"
)
_AROUND = 40
"""Characters quoted on either side of a finding."""

_MEANING = re.compile(r"[^\W_]")
_LOOP_TAIL = 1600
_LONGEST_UNIT = 400
_SHORTEST_LOOP = 60
"""Characters of a repetition, at least."""


@dataclass(frozen=True)
class MarkerSearch:
    """Finds chat markers in text.

    Args:
        markers: Text that no message should contain anywhere.
        lines: Text that no message should contain as a whole line, or as the beginning of a line if it ends with `:`.
    """

    markers: tuple[str, ...]
    lines: tuple[str, ...]

    def first(self, text: str) -> re.Match[str] | None:
        """The first marker in a text."""
        for start in self._starts:  # nearly all texts have none of them
            if start in text:
                return self._pattern.search(text)
        return None

    @cached_property
    def _starts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(marker[:2] for marker in (*self.markers, *self.lines)))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        markers = [re.escape(marker) for marker in sorted(self.markers, key=len, reverse=True)]
        lines = [rf"^{re.escape(line)}{'' if line in HEADERS else '$'}" for line in self.lines]
        return re.compile("|".join([*markers, *lines]), re.MULTILINE)


def marker_search(special: Iterable[str] = (), lines: Iterable[str] = ()) -> MarkerSearch:
    """A search for the common markers, and for those of a tokenizer and a template.

    Args:
        special: The tokenizer's special tokens.
        lines: Lines of the template's fixed text.
    """
    markers = dict.fromkeys([*MARKERS, *(token for token in special if len(token) > 2)])
    own = [line for line in lines if len(line) > 3 and not any(marker in line for marker in markers)]
    return MarkerSearch(tuple(markers), tuple(dict.fromkeys([*HEADERS, *own])))


def faults_in_text(conversation: Conversation, markers: MarkerSearch) -> Iterator[Fault]:
    """The text rules that a conversation breaks, each once.

    Args:
        conversation: Any conversation or document.
        markers: Finds chat markers.
    """
    seen: set[str] = set()
    for number, turn in enumerate(conversation.turns, start=1):
        for text in turn.texts:
            for rule, detail, quote in _faults_of_part(text, markers) if text else ():
                if rule not in seen:
                    seen.add(rule)
                    yield rule, f"{detail}, turn {number} ({turn.role})", quote
        if turn.role is Role.ASSISTANT and turn.content:
            for rule, detail, quote in _faults_of_answer(conversation.turns, number - 1):
                if rule not in seen:
                    seen.add(rule)
                    yield rule, f"{detail}, turn {number}", quote


def _faults_of_part(text: str, markers: MarkerSearch) -> Iterator[Fault]:
    if marker := markers.first(text):
        yield "marker-in-content", repr(marker[0]), around(text, *marker.span())
    if text.isascii():
        if control := _CONTROL_ASCII.search(text):
            yield "control-character", _code(control[0]), around(text, *control.span())
        return
    broken = _MOJIBAKE.search(text)
    if broken:
        yield "mojibake", repr(broken[0]), around(text, *broken.span())
    if (place := text.find("\ufffd")) >= 0:
        yield "replacement-character", "U+FFFD", around(text, place, place + 1)
    # wrongly decoded letters contain C1 controls
    if control := (_CONTROL_ASCII if broken else _CONTROL).search(text):
        yield "control-character", _code(control[0]), around(text, *control.span())
    if (hidden := _INVISIBLE.search(text)) and not (broken and hidden[0] == "\u00ad"):
        yield "invisible-character", _code(hidden[0]), around(text, *hidden.span())
    if mixed := _MIXED.search(text):
        yield "mixed-scripts", f"{mixed[0]!r} is {_code(mixed[0])}", around(text, *mixed.span())


def _faults_of_answer(turns: tuple[Message, ...], index: int) -> Iterator[Fault]:
    answer = turns[index].content
    if not _MEANING.search(answer) and not any(_is_symbol(character) for character in answer):
        yield "short-answer", f"{len(answer)} characters", answer
    if len(answer) > LONGEST_ANSWER:
        yield "long-answer", f"{len(answer):,} characters", answer[: 2 * _AROUND]
    if loop := repetition(answer):
        unit, times = loop
        yield "repeated-answer", f"{times} times {unit[:_AROUND]!r}", answer[-3 * _AROUND :]
    if turns[index - 1].role is Role.USER and not (answer.isascii() and turns[index - 1].content.isascii()):
        asked, given = script_of(turns[index - 1].content), script_of(answer)
        if asked and given and asked != given:
            yield "answer-script", f"question in {asked}, answer in {given}", answer[: 2 * _AROUND]


def repetition(text: str) -> tuple[str, int] | None:
    """The loop that a text ends in: the repeated unit, and how often it occurs; None if there is none.

    A unit contains a letter. It occurs at least four times, and the repetition has at least 60 characters.
    """
    tail = text[-_LOOP_TAIL:].rstrip()
    place = last = len(tail) - 1
    first = max(0, last - _LONGEST_UNIT)
    while place > first:
        # a unit begins after the last character of the one before
        place = tail.rfind(tail[last], first, place)
        unit = tail[place + 1 :]
        if place < 0 or 4 * len(unit) > len(tail):
            break
        times = max(4, -(-_SHORTEST_LOOP // len(unit)))
        if tail.endswith(unit * times) and any(map(str.isalpha, unit)):
            return unit, _times(text.rstrip(), unit)
    return None


def _times(text: str, unit: str) -> int:
    end, times = len(text), 0
    while text.endswith(unit, 0, end):
        end, times = end - len(unit), times + 1
    return times


def around(text: str, start: int, stop: int) -> str:
    """The words around a place in a text."""
    before, after = max(0, start - _AROUND), stop + _AROUND
    return f"{'…' * (before > 0)}{text[before:after]}{'…' * (after < len(text))}"


def _is_symbol(character: str) -> bool:
    import unicodedata

    return unicodedata.category(character)[0] in "SLNM"


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"
