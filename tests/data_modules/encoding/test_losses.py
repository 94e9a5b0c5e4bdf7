"""Every token of every conversation is kept or lost for a named reason, by the kind that it has in its record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder, OverLong
from data_modules.encoding.example import Example
from data_modules.encoding.ledger import Ledger
from data_modules.encoding.losses import Loss
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind as K
from data_modules.rendering.templates import TemplateName, resolve_template
from tests.conftest import byte_tokenizer

TOKENIZER = byte_tokenizer()
OWN = byte_tokenizer()
OWN.chat_template = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
POLICIES: tuple[OverLong, ...] = ("drop", "truncate", "split", "error")
TEMPLATES: tuple[TemplateName, ...] = ("chatml", "plain", "alpaca", "tokenizer")
SPOKEN = (K.SYSTEM, K.USER, K.ANSWER, K.FINAL_ANSWER, K.CONTEXT_ANSWER, K.TEXT)


@dataclass(frozen=True)
class Told:
    """A conversation in which every letter occurs in one turn only, so that a token shows which turn it is from.

    Attributes:
        sizes: Letters in each turn.
        has_system: Whether the first turn is a system message.
        untrained: Turns of weight 0.
        has_context: Whether user turns refer to material.
    """

    sizes: tuple[int, ...]
    has_system: bool = False
    untrained: frozenset[int] = frozenset()
    has_context: bool = False

    def conversation(self) -> Conversation:
        return Conversation(tuple(map(self._turn, range(len(self.sizes)))), "a.jsonl:1")

    def _turn(self, index: int) -> Message:
        if index == 0 and self.has_system:
            return Message(Role.SYSTEM, self._text(index))
        role = Role.ASSISTANT if (index - self.has_system) % 2 else Role.USER
        context = self._text(index) if self.has_context and role is Role.USER else ""
        return Message(role, self._text(index), context, weight=float(index not in self.untrained))

    def _text(self, index: int) -> str:
        return chr(ord("a") + index) * self.sizes[index]


def kinds_of(example: Example) -> list[tuple[int, K]]:
    """Each token outside the template's text, as the letter that shows its turn (an end token: the one before it)."""
    found, letter = [], 0
    for token, kind in zip(example.input_ids.tolist(), example.kinds.tolist(), strict=True):
        letter = token if ord("a") <= token <= ord("z") else letter
        if kind != K.TEMPLATE:
            found.append((letter if token != ord("\n") else -1, K(kind)))
    return found


def tellings() -> st.SearchStrategy[Told]:
    def told(sizes: list[int], has_system: bool, untrained: set[int], has_context: bool) -> Told:
        # a system turn and whole exchanges
        odd = len(sizes) % 2 != has_system
        return Told(tuple(sizes[odd:]), has_system, frozenset(untrained), has_context)

    return st.builds(told, st.lists(st.integers(1, 30), min_size=4, max_size=13), st.booleans(),
                     st.sets(st.integers(0, 12), max_size=3), st.booleans())  # fmt: skip


def encoded(told: Told, limit: int, policy: OverLong, template: TemplateName) -> tuple[list[Example], Ledger]:
    tokenizer = OWN if template == "tokenizer" else TOKENIZER
    encoder, ledger = Encoder(tokenizer, resolve_template(template, tokenizer), limit, policy), Ledger()
    return encoder.encode(told.conversation(), ledger), ledger


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tellings(), st.integers(1, 400), st.sampled_from(POLICIES), st.sampled_from(TEMPLATES))
def test_every_token_is_kept_or_lost_for_a_named_reason(
    told: Told, limit: int, policy: OverLong, template: TemplateName
) -> None:
    (whole,), _ = encoded(told, 10**6, "error", template)
    if policy == "error" and len(whole) > limit:
        with pytest.raises(ValueError, match=f"{len(whole)} tokens; expected at most {limit}"):
            encoded(told, limit, policy, template)
        return
    examples, ledger = encoded(told, limit, policy, template)
    entry = ledger.to_dict()
    by_kind = entry["tokens_by_kind_in_record"]
    for counts in by_kind.values():
        assert counts["read"] == counts["kept"] + sum(counts["lost"].values())
        assert min(counts["kept"], counts["added"], *counts["lost"].values()) >= 0
        assert counts["lost"].keys() == {reason.value for reason in Loss}
    assert {name: counts["read"] for name, counts in by_kind.items() if counts["read"]} == {
        K(kind).name.lower(): count for kind, count in Counter(whole.kinds.tolist()).items()
    }
    assert sum(counts["kept"] + counts["added"] for counts in by_kind.values()) == sum(map(len, examples))
    expected = _kept_by_kind(whole, examples)
    for kind in SPOKEN:
        assert by_kind.get(kind.name.lower(), {"kept": 0})["kept"] == expected[kind], kind
    for name, mask in MASKS.items():
        counts = entry["supervised_tokens"][name]
        assert counts["read"] == int(np.isin(whole.kinds, [k for k in K if mask.supervises(k)]).sum())
        assert counts["read"] == counts["kept"] + sum(counts["lost"].values())
        assert entry["supervised_tokens_lost"][name] == sum(counts["lost"].values())
    assert (ledger.truncated, ledger.dropped) == (_is_truncated(entry) and bool(examples), not examples)


def _kept_by_kind(whole: Example, examples: list[Example]) -> Counter[K]:
    """By kind in the whole conversation, the tokens that some example has; what examples repeat counts once."""
    kind_of = dict(kinds_of(whole))
    kept: Counter[int] = Counter()
    for example in examples:
        kept |= Counter(letter for letter, _ in kinds_of(example))
    read = Counter(letter for letter, _ in kinds_of(whole))
    return Counter({kind: sum(min(kept[x], read[x]) for x in kind_of if kind_of[x] is kind) for kind in SPOKEN})


def _is_truncated(entry: dict[str, Any]) -> bool:
    reasons = ("message_cut", "turn_dropped")
    return any(counts["lost"][name] for counts in entry["tokens_by_kind_in_record"].values() for name in reasons)


def lost(entry: dict[str, Any], kind: str) -> dict[str, int]:
    return {reason: count for reason, count in entry["tokens_by_kind_in_record"][kind]["lost"].items() if count}


LAST_IS_LONG = Told((5, 20, 5, 20, 5, 90))


def test_splitting_does_not_hide_what_the_true_final_answer_lost() -> None:
    examples, ledger = encoded(LAST_IS_LONG, 64, "split", "chatml")
    assert len(examples) == 3
    entry = ledger.to_dict()
    left = sum(token == ord("f") for example in examples for token in example.input_ids.tolist())
    assert 0 < left < 64
    # every example has a final answer, but that of the record lost its end
    assert lost(entry, "final_answer") == {"message_cut": 91 - left}
    assert lost(entry, "answer") == {}
    assert entry["supervised_tokens_lost"] == {**entry["supervised_tokens_lost"], "output_only": 91 - left,
                                               "firefly_multi_turn": 91 - left}  # fmt: skip
    assert entry["end_tokens_lost"]["output_only"] == 1
    assert entry["answers"]["output_only"] == {"read": 1, "cut": 1, "lost": 0}
    assert entry["answers"]["firefly_multi_turn"] == {"read": 3, "cut": 1, "lost": 0}
    assert entry["tokens_by_kind_in_record"]["answer"]["kept"] == 42
    assert entry["tokens"]["kept"]["final_answer"] == 42 + left  # as the examples have it


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (
            "truncate",
            {"answer": {"turn_dropped": 42}, "user": {"turn_dropped": 10}, "final_answer": {"message_cut": 1}},
        ),
        ("drop", {"answer": {"conversation_dropped": 42}, "user": {"conversation_dropped": 15}}),
    ],
)
def test_the_reason_of_a_loss_is_named(policy: OverLong, expected: dict[str, dict[str, int]]) -> None:
    (whole,), _ = encoded(replace(LAST_IS_LONG, sizes=(5, 90)), 10**6, "error", "chatml")
    _, ledger = encoded(LAST_IS_LONG, len(whole) - 2, policy, "chatml")  # without the newline at the end and one more
    assert {kind: lost(ledger.to_dict(), kind) for kind in expected} == expected


def test_a_document_loses_its_end() -> None:
    document = Conversation((Message(Role.TEXT, "x" * 50),), "a.txt:1")
    template = resolve_template("plain", TOKENIZER)
    counts = {}
    for policy in ("truncate", "split", "drop"):
        ledger = Ledger()
        Encoder(TOKENIZER, template, 25, policy).encode(document, ledger)  # type: ignore[arg-type]
        counts[policy] = ledger.to_dict()["tokens_by_kind_in_record"]["text"]
    nothing = dict.fromkeys((reason.value for reason in Loss), 0)
    assert counts == {
        "truncate": {"read": 51, "kept": 25, "lost": {**nothing, "message_cut": 26}, "added": 0},
        # the third block would be the end token alone, with nothing before it that predicts it
        "split": {"read": 51, "kept": 50, "lost": {**nothing, "message_cut": 1}, "added": 0},
        "drop": {"read": 51, "kept": 0, "lost": {**nothing, "conversation_dropped": 51}, "added": 0},
    }


def test_a_repeated_system_message_is_added_not_kept_twice() -> None:
    examples, ledger = encoded(Told((10, 5, 20, 5, 20), has_system=True), 70, "split", "chatml")
    assert len(examples) == 2
    counts = ledger.to_dict()["tokens_by_kind_in_record"]["system"]
    assert (counts["read"], counts["kept"], counts["added"]) == (10, 10, 10)


def test_ledgers_of_several_chunks_add_up(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(tokenizer, resolve_template("chatml", tokenizer), 64, "split")
    whole, parts = Ledger(), [Ledger(), Ledger()]
    for ledger in parts:
        encoder.encode(LAST_IS_LONG.conversation(), ledger)
        encoder.encode(LAST_IS_LONG.conversation(), whole)
    parts[0].add(parts[1])
    assert parts[0].to_dict() == whole.to_dict()
