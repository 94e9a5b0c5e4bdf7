from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data_modules.encoding import encoder as encoding
from data_modules.encoding import truncation
from data_modules.encoding.encoder import Encoder, OverLong
from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.encoding.strings import StringEncoder
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.templates import resolve_template
from lit_sft.reporting.token_view import show_example
from tests.conftest import byte_tokenizer
from tests.data_modules.rendering.test_templates import JINJA_CHATML, JINJA_STRIPPING

ROOT = Path(__file__).parents[3]
JINJA_NUMBERED = JINJA_CHATML.replace("<|im_start|>{{", "{{ loop.index }}<|im_start|>{{").replace(
    "%}<|im_start|>assistant", "%}{{ messages | length + 1 }}<|im_start|>assistant"
)
"""The text before a turn depends on how many turns precede it, so lengths of runs do not add up."""

WORDS = [
    "a",
    "bc",
    " the",
    "hello",
    "你好",
    "。",
    "👩‍🔬",
    "\n",
    "\n\n",
    ":",
    ")",
    " ",
    "<|im_end|>",
    "### Response:",
    "x" * 30,
]
PARTS: tuple[OverLong, ...] = ("truncate", "split")


def with_template(jinja: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = jinja
    return tokenizer


def merging() -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(ROOT / "examples" / "tokenizer")
    return tokenizer


ENCODERS = {
    "alpaca": ("alpaca", byte_tokenizer),
    "chatml": ("chatml", byte_tokenizer),
    "plain, merges": ("plain", merging),
    "alpaca, merges": ("alpaca", merging),
    "own": ("tokenizer", lambda: with_template(JINJA_CHATML)),
    "own, strips": ("tokenizer", lambda: with_template(JINJA_STRIPPING)),
    "own, numbered": ("tokenizer", lambda: with_template(JINJA_NUMBERED)),
}


def encoder(name: str) -> Encoder:
    template, tokenizer = ENCODERS[name][0], ENCODERS[name][1]()
    return Encoder(tokenizer, resolve_template(template, tokenizer), 10**9, "error")  # type: ignore[arg-type]


def text(draw: random.Random, most: int) -> str:
    return "".join(draw.choices(WORDS, k=draw.randint(1, most))).strip() or "?"


def random_conversation(draw: random.Random) -> Conversation:
    turns = [Message(Role.SYSTEM, text(draw, 8))] if draw.random() < 0.3 else []
    most = draw.choice([1, 3, 10])
    for _ in range(draw.choice([1, 2, 3, 5, 8, 14])):
        context = text(draw, 6) if draw.random() < 0.3 else ""
        turns += [Message(Role.USER, text(draw, most), context), Message(Role.ASSISTANT, text(draw, 2 * most))]
    return Conversation(tuple(turns[:-1] if draw.random() < 0.1 else turns), "f:1")


def scanned(conversation: Conversation, whole: Encoder, limit: int, over_long: OverLong) -> list[Conversation]:
    """The parts to keep, by rendering and encoding every candidate."""

    def fits(part: Conversation) -> bool:
        return len(whole.encode(part)[0]) <= limit

    exchanges = conversation.exchanges()
    if fits(conversation):
        return [conversation]
    if over_long == "truncate":
        ends = [conversation.with_exchanges(exchanges[first:]) for first in range(len(exchanges))]
        return [next(filter(fits, ends), ends[-1])]
    parts = [[exchanges[0]]]
    for exchange in exchanges[1:]:
        if fits(conversation.with_exchanges([*parts[-1], exchange])):
            parts[-1].append(exchange)
        else:
            parts.append([exchange])
    return [conversation.with_exchanges(part) for part in parts]


def content(examples: list[Example]) -> list[Any]:
    return [(e.input_ids.tolist(), e.kinds.tolist(), e.turns.tolist()) for e in examples]


@pytest.mark.parametrize("name", ENCODERS)
def test_truncation_keeps_the_same_as_an_exhaustive_scan(name: str) -> None:
    draw = random.Random(name)
    whole = encoder(name)
    for _ in range(60):
        conversation = random_conversation(draw)
        total = len(whole.encode(conversation)[0])
        for over_long in PARTS:
            limit = draw.randint(1, total)
            this = replace(whole, max_length=limit, over_long=over_long)
            expected = [e for part in scanned(conversation, whole, limit, over_long) for e in this.encode(part)]
            assert content(this.encode(conversation)) == content(expected), (conversation, limit, over_long)


def dialogue(num_turns: int) -> Conversation:
    turns = (Message(Role.ASSISTANT if n % 2 else Role.USER, f"This is turn {n}.") for n in range(num_turns))
    return Conversation(tuple(turns), "f:1")


def test_a_fitting_suffix_is_found_even_if_a_shorter_one_does_not_fit() -> None:
    # with an input, Alpaca's opening grows by more than the length of the preceding exchange
    exchanges = [
        (Message(Role.USER, "a" * 99), Message(Role.ASSISTANT, "b")),
        (Message(Role.USER, "c"), Message(Role.ASSISTANT, "d")),
        (Message(Role.USER, "e", "input"), Message(Role.ASSISTANT, "f")),
    ]
    conversation = Conversation(tuple(turn for exchange in exchanges for turn in exchange), "f:1")
    whole = encoder("alpaca")
    two, one = (whole.encode(conversation.with_exchanges(exchanges[first:])) for first in (1, 2))
    assert len(one[0]) > len(two[0])
    this = replace(whole, max_length=len(two[0]), over_long="truncate")
    assert content(this.encode(conversation)) == content(two)


def test_template_that_numbers_its_turns_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    scans: list[Conversation] = []
    original = truncation._scan_for_newest

    def counted(conversation: Conversation, *arguments: Any) -> Conversation:
        scans.append(conversation)
        return original(conversation, *arguments)

    monkeypatch.setattr(truncation, "_scan_for_newest", counted)
    for name, expected in (("own", 0), ("own, numbered", 1)):
        replace(encoder(name), max_length=1000, over_long="truncate").encode(dialogue(60))
        assert len(scans) == expected


def test_scan_measures_only_what_may_fit() -> None:
    class Uneven:
        """Each exchange is longer than the one before."""

        measured = 0

        def length(self, part: Conversation) -> int:
            self.measured += 1
            return sum(10 + index for index in range(len(part.exchanges())))

    measure, conversation = Uneven(), dialogue(2000)
    (kept,) = truncation.newest_that_fits(conversation, 100, measure)
    assert kept == conversation.with_exchanges(conversation.exchanges()[-7:])
    assert measure.measured < 60
    (last,) = truncation.newest_that_fits(conversation, 3, measure)
    assert last.turns == conversation.turns[-2:]


class Work:
    """Counts what an encoder does: characters encoded and turns rendered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, over_long: OverLong) -> None:
        self.characters = self.turns = 0
        self.encoder = replace(encoder(name), max_length=400, over_long=over_long)
        encode = StringEncoder._batch

        def encoded(this: StringEncoder, texts: list[str], *, plain: bool) -> list[list[int]]:
            self.characters += sum(map(len, texts))
            return encode(this, texts, plain=plain)

        monkeypatch.setattr(StringEncoder, "_batch", encoded)
        owner, method = {"tokenizer": (type(self.encoder.tokenizer), "apply_chat_template")}.get(
            ENCODERS[name][0], (type(self.encoder.template), "render")
        )
        lay_out = getattr(owner, method)

        def laid_out(this: Any, given: Any, *arguments: Any, **settings: Any) -> Any:
            self.turns += len(given.turns if isinstance(given, Conversation) else given)
            return lay_out(this, given, *arguments, **settings)

        monkeypatch.setattr(owner, method, laid_out)

    def of(self, conversation: Conversation) -> tuple[int, int]:
        self.characters = self.turns = 0
        assert self.encoder.encode(conversation)
        return self.characters, self.turns


@pytest.mark.parametrize("over_long", PARTS)
@pytest.mark.parametrize("name", ["alpaca", "own"])
def test_truncation_takes_time_linear_in_the_turns(
    name: str, over_long: OverLong, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(monkeypatch, name, over_long)
    few, many = dialogue(200), dialogue(800)
    characters, turns = work.of(few)
    more_characters, more_turns = work.of(many)
    assert characters < 3 * sum(len(part.text) for part in work.encoder.template.render(few))
    assert more_characters < 4.2 * characters
    assert more_turns < 4.2 * turns


def test_vocabulary_is_read_once_for_markers_in_many_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import AddedToken

    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("</turn>", special=False, normalized=False)])
    tokenizer.eos_token = "</turn>"
    this = Encoder(tokenizer, resolve_template("plain", tokenizer), 10**6)
    read = []
    original = PreTrainedTokenizerFast.get_vocab
    monkeypatch.setattr(PreTrainedTokenizerFast, "get_vocab", lambda self: read.append(1) or original(self))
    end = tokenizer.convert_tokens_to_ids("</turn>")
    turns = (Message(Role.ASSISTANT if n % 2 else Role.USER, f"{n}</turn>") for n in range(40))
    (example,) = this.encode(Conversation(tuple(turns), "f:1"))
    assert int((example.input_ids == end).sum()) == 20
    assert len(read) <= 2


def test_too_many_turns_are_rejected_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_LAST_TURN", 9)
    whole, ledger = encoder("chatml"), Ledger()
    with pytest.raises(ValueError, match="f:1: 12 turns in one example; expected at most 10"):
        whole.encode(dialogue(12), ledger)
    assert ledger == Ledger()
    assert len(replace(whole, max_length=150, over_long="split").encode(dialogue(12))) > 1


def test_preview_reads_the_ids_of_an_example_once() -> None:
    class Counted(np.ndarray[Any, Any]):
        reads = 0

        def tolist(self) -> Any:
            Counted.reads += 1
            return np.asarray(self).tolist()

    whole = encoder("chatml")
    (example,) = whole.encode(dialogue(20))
    counted = replace(example, input_ids=example.input_ids.view(Counted))
    assert show_example(counted, whole.tokenizer, []) == show_example(example, whole.tokenizer, [])
    assert Counted.reads <= 2
