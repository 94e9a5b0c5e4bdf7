"""Repeated conversations: each likeness is found, and conversations that only look alike are not."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from data_modules.records.conversation import Conversation, Message, Role
from lit_sft.lint.duplicates import DuplicateIndex, are_alike, similarity, traits_of


def dialogue(*texts: str) -> Conversation:
    turns = [Message((Role.USER, Role.ASSISTANT)[place % 2], text) for place, text in enumerate(texts)]
    return Conversation(tuple(turns), f"rows.jsonl:{hash(texts)}")


def alike(*conversations: Conversation) -> list[tuple[str, int, int]]:
    """The confirmed pairs."""
    index = DuplicateIndex()
    for conversation in conversations:
        index.add(conversation, 0)
    traits = [traits_of(conversation) for conversation in conversations]
    pairs = [
        (pair.likeness, pair.earlier, pair.later)
        for pair in index.candidates()
        if are_alike(pair.likeness, traits[pair.earlier], traits[pair.later])
    ]
    return pairs


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2+2?", "What is 2-2?"),
        ("Price: 3.5", "Price: 35"),
        ("Add 1 and 12", "Add 11 and 2"),
        ("Translate: \u4f60\u597d", "Translate: \u4f60\u4eec\u597d"),
    ],
)
def test_different_numbers_and_signs_are_not_the_same_words(one: str, other: str) -> None:
    found = alike(dialogue(one, "Done."), dialogue(other, "Done."))
    assert {likeness for likeness, _, _ in found} <= {"near"}


def test_every_likeness_is_found() -> None:
    first = dialogue("Who are you?", "A model.")
    assert alike(first, first) == [("exact", 0, 1)]
    # the same words are the same prompt too; lint reports the first only
    assert alike(first, dialogue("who are you", "a model"))[0] == ("normalized", 0, 1)
    assert alike(first, dialogue("Who are you?", "Nobody.")) == [("prompt", 0, 1)]


def test_other_tools_are_another_conversation() -> None:
    one, other = (
        replace(dialogue("Is it raining?", "No."), tools=(tool,)) for tool in ('{"name": "a"}', '{"name": "b"}')
    )
    assert [likeness for likeness, _, _ in alike(one, other)] == ["near"]
    assert alike(one, one) == [("exact", 0, 1)]


def test_documents_have_no_prompt_in_common() -> None:
    documents = [Conversation((Message(Role.TEXT, text),), "x:1") for text in ("One.", "Two.")]
    assert alike(*documents) == []


def test_near_duplicates_are_found_with_high_probability() -> None:
    chance = random.Random(0)
    words = [f"w{number}" for number in range(3000)]
    found, total = 0, 60
    for _ in range(total):
        text = chance.choices(words, k=150)
        changed = [*text]
        for place in chance.sample(range(150), 3):
            changed[place] = "changed"
        found += ("near", 0, 1) in alike(dialogue("Q", " ".join(text)), dialogue("R", " ".join(changed)))
    assert found >= total - 2


def test_unrelated_texts_are_never_near_duplicates() -> None:
    chance = random.Random(1)
    words = [f"w{number}" for number in range(200)]
    texts = [dialogue(f"Q{place}", " ".join(chance.choices(words, k=100))) for place in range(100)]
    assert alike(*texts) == []


def test_similarity_is_that_of_the_sets() -> None:
    assert similarity(np.array([1, 2, 3]), np.array([2, 3, 4])) == 2 / 4
    assert similarity(np.array([1]), np.array([2])) == 0


def test_memory_does_not_depend_on_the_length_of_texts() -> None:
    index = DuplicateIndex()
    for place in range(10):
        index.add(dialogue(f"Q{place}", f"{place} " * 50_000), 0)
    sizes = [band.nbytes for band in index._bands]
    assert all(one == other for one, other in pairwise(sizes))
    assert sum(sizes) + 3 * index._exact.itemsize * len(index) < 100 * len(index)
