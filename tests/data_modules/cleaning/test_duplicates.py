"""Exact duplicates and near-duplicates: planted at a known similarity, they are found; other documents stay."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from data_modules.cleaning.buckets import Buckets
from data_modules.cleaning.cleaner import Cleaner
from data_modules.cleaning.duplicates import ExactDuplicates, NearDuplicates
from data_modules.cleaning.minhash import HASHES, shingles_of, signature_of
from data_modules.errors import UserError
from tests.documents import text_of

LATIN, CHINESE = "abcdefghijklmnopqrstuvwxyz", "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))


def units(language: str, num: int, chance: random.Random) -> list[str]:
    """Random words of three letters, or random characters."""
    if language == "zh":
        return chance.choices(CHINESE, k=num)
    return ["".join(chance.choices(LATIN, k=3)) for _ in range(num)]


def pair(language: str, likeness: float, chance: random.Random) -> tuple[str, str]:
    """Two documents of 454 units, which have 450 shingles, of which a run of other units replaces some."""
    gap = " " * (language == "en")
    one = units(language, 454, chance)
    lost = round(450 * (1 - likeness) / (1 + likeness))
    other, start = list(one), chance.randint(4, 450 - lost)
    if lost:
        other[start : start + lost - 4] = units(language, lost - 4, chance)
    return gap.join(one), gap.join(other)


def jaccard(one: str, other: str) -> float:
    """The similarity of the shingles themselves."""
    first, second = set(shingles_of(one).tolist()), set(shingles_of(other).tolist())
    return len(first & second) / len(first | second)


def judged(texts: list[str], rules: list[Any]) -> list[bool]:
    """Whether each document is dropped, in reading order."""
    cleaner = Cleaner.from_settings(rules)
    duplicates = cleaner.duplicates()
    return [duplicates.judge(cleaner.clean(text)).is_dropped for text in texts]


def planted(likeness: float, num: int, seed: int) -> tuple[list[str], list[str]]:
    """Documents in both languages, and their copies at a similarity."""
    chance = random.Random(seed)
    pairs = [pair(("en", "zh")[i % 2], likeness, chance) for i in range(num)]
    assert all(abs(jaccard(*each) - likeness) < 0.005 for each in pairs)
    return [one for one, _ in pairs], [other for _, other in pairs]


def test_planted_near_duplicates_are_found_and_other_documents_stay(capsys: pytest.CaptureFixture[str]) -> None:
    originals, copies = planted(0.8, 400, seed=0)
    decoys = [text for percent in (30, 50, 70) for texts in planted(percent / 100, 200, seed=percent) for text in texts]
    order = random.Random(2).sample(range(2000), 2000)
    texts = [[*originals, *copies, *decoys][i] for i in order]
    dropped = {i for i, is_dropped in zip(order, judged(texts, ["near_duplicates"]), strict=True) if is_dropped}
    found = sum(i in dropped or i + 400 in dropped for i in range(400)) / 400
    false = sum(i >= 800 for i in dropped) / len(decoys)
    with capsys.disabled():
        print(f"\nnear-duplicates planted at 0.8: {found:.1%} found; other documents: {false:.2%} dropped")
    assert len([i for i in dropped if i < 800]) == round(found * 400), "one of each pair stays"
    assert found >= 0.95
    assert false < 0.01


def sweep() -> Iterator[str]:
    """Rows of the table in docs/cleaning.md: share of planted pairs that are found, by similarity and threshold."""
    for percent in range(50, 100, 5):
        prints = [NearDuplicates().fingerprint(text) for texts in planted(percent / 100, 50, percent) for text in texts]
        shares = []
        for threshold in (0.7, 0.8, 0.9):
            finder = NearDuplicates(threshold).finder()
            dropped = [finder.find(fingerprint, place) for place, fingerprint in enumerate(prints)]
            shares.append(sum(map(bool, dropped)) / 50)
        yield f"| {percent / 100:.2f} | {' | '.join(f'{share:.0%}' for share in shares)} |"


def test_sweep_of_the_docs_is_what_the_code_finds() -> None:
    rows = list(sweep())
    assert not set(rows) - set(text_of("docs/cleaning.md").splitlines()), "\n".join(rows)


def test_first_of_a_group_stays_and_only_likeness_to_kept_documents_counts() -> None:
    text = " ".join(units("en", 300, random.Random(0)))
    texts = [text, text.upper(), f"{text}!", "something else altogether", text]
    assert judged(texts, ["near_duplicates"]) == [False, True, True, False, True]


def test_reason_names_the_document_that_is_repeated() -> None:
    cleaner = Cleaner.from_settings(["exact_duplicates", "near_duplicates"])
    duplicates, ledger = cleaner.duplicates(), cleaner.ledger()
    one, other = pair("en", 0.9, random.Random(0))
    for line, text in enumerate(["Unique.", " ", one, other, f"{one}  \n"], start=1):
        ledger.add(duplicates.judge(cleaner.clean(text)), f"a.txt:{line}")
    reasons = {label: [each.reason for each in counts.examples] for label, counts in ledger.rules.items()}
    assert reasons["exact_duplicates"] == ["repeats document 3"]
    (near,) = reasons["near_duplicates"]
    assert near in [f"about {percent}% like document 3" for percent in range(85, 96)]
    assert ledger.rules["near_duplicates"].dropped_characters == len(other)
    assert (ledger.records_kept, ledger.characters_kept) == (2, len(one) + len("Unique."))


@pytest.mark.parametrize(
    ("likeness", "texts", "expected"),
    [
        ("exact", ["One text.", "One text. \n\n", "One Text."], [0, 1, 0]),
        ("exact", ["一段文字。", "一段文字", "一段文字。\t"], [0, 0, 1]),
        ("normalized", ["One text.", "one text", "One, text!", "another"], [0, 1, 1, 0]),
        ("normalized", ["一段文字。", "一段文字", "別的文字"], [0, 1, 0]),
        ("exact", ["a\nb", "a\n\nb", "ab", "a b", "a\r\nb", "  a\nb"], [0, 1, 0, 0, 1, 1]),
    ],
)
def test_exact_duplicates(likeness: str, texts: list[str], expected: list[int]) -> None:
    assert judged(texts, [{"exact_duplicates": {"likeness": likeness}}]) == [bool(each) for each in expected]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Hello, world!", "hello world", "Hello there, world"], [0, 1, 0]),
        (["短文。", "短文", "短句"], [0, 1, 0]),
        (["!!!", "???", "!!!"], [0, 0, 1]),
        (["a b c d e", "a b c d e f"], [0, 0]),
        (["the cat sat on the mat", "the dog sat on the mat"], [0, 0]),
        (["一二三四五六七", "七六五四三二一"], [0, 0]),
    ],
)
def test_near_duplicates_among_short_texts(texts: list[str], expected: list[int]) -> None:
    assert judged(texts, ["near_duplicates"]) == [bool(each) for each in expected]


def test_signature_is_the_same_on_every_machine() -> None:
    signature = signature_of("The quick brown fox jumps over the lazy dog. 敏捷的棕色狐狸跳过了懒狗。")
    assert signature.shape == (HASHES,)
    assert signature[:8].tolist() == [97, 224, 117, 37, 7, 196, 81, 28]
    assert (signature == signature_of("the QUICK brown fox, jumps over the lazy dog;敏捷的棕色狐狸跳过了懒狗")).all()


def test_buckets_find_the_same_after_growing() -> None:
    chance = np.random.default_rng(0)
    stored = chance.integers(0, 4, (5000, 24), dtype=np.uint8)
    buckets = Buckets(24, bands=4, rows=6)
    for fingerprint in stored:
        buckets.add(fingerprint)
    for index in range(0, 5000, 97):
        numbers, found = buckets.candidates(stored[index])
        equal = (stored.reshape(5000, 4, 6) == stored[index].reshape(4, 6)).all(axis=2).any(axis=1)
        assert set(np.flatnonzero(equal).tolist()) <= set(numbers)
        assert (stored[numbers] == found).all()
        assert len(numbers) < 30


@pytest.mark.parametrize(("rule", "most"), [(NearDuplicates(), 600), (ExactDuplicates(), 28)])
def test_memory_of_each_document_is_bounded(rule: Any, most: int) -> None:
    finder = rule.finder()
    chance = np.random.default_rng(0)
    for place in range(3000):
        finder.find(chance.bytes(rule.size), place)
    arrays = 16_384 * most  # they grow in steps of so many documents
    assert 0 < finder.num_bytes <= arrays


def test_rules_about_the_set_come_last() -> None:
    with pytest.raises(
        UserError, match=r"--data\.cleaning: near_duplicates is before nfc; duplicates are found among clean"
    ):
        Cleaner.from_settings(["tags", "near_duplicates", "nfc"])
