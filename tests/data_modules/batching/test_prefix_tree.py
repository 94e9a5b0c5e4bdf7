from __future__ import annotations

import pickle

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies

from data_modules.batching import prefix_tree as module
from data_modules.batching.prefix_tree import SHORTEST, PrefixTree, common_length, in_order, prefix_tree, stretches_of
from tests.random_trees import random_documents

RANDOM = {"seed": strategies.integers(0, 2**32 - 1), "shortest": strategies.sampled_from([1, 3, SHORTEST])}


def ids(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32)


def texts(documents: list[str], shortest: int = 1) -> list[tuple[int, str, tuple[int, ...]]]:
    return [
        (s.parent, documents[s.documents[0]][s.begin : s.end], s.documents)
        for s in stretches_of([ids(document) for document in documents], shortest)
    ]


def test_what_documents_share_stands_once_and_each_subtree_in_one_piece() -> None:
    assert texts(["aaaabb", "aaaac", "xy", "aaaad", "aaaabz"]) == [
        (-1, "aaaa", (0, 4, 1, 3)),
        (0, "b", (0, 4)),
        (1, "b", (0,)),
        (1, "z", (4,)),
        (0, "c", (1,)),
        (0, "d", (3,)),
        (-1, "xy", (2,)),
    ]


def test_equal_documents_and_one_that_is_the_beginning_of_another_have_no_empty_branches() -> None:
    assert texts(["abc", "abcd", "abc"]) == [(-1, "abc", (0, 2, 1)), (0, "d", (1,))]


def test_short_common_beginnings_are_not_worth_a_stretch() -> None:
    assert [text for _, text, _ in texts(["abcx", "abcy", "ab"], shortest=3)] == ["ab", "abc", "x", "y"]


@hypothesis.given(**RANDOM)
@hypothesis.settings(max_examples=100)
def test_the_stretches_of_a_document_are_the_document(seed: int, shortest: int) -> None:
    documents = random_documents(seed)
    paths = [np.zeros(0, dtype=np.int32)] * len(documents)
    last = [-1] * len(documents)
    stretches = stretches_of(documents, shortest)
    for number, stretch in enumerate(stretches):
        assert len(stretch) > 0
        for document in stretch.documents:
            assert last[document] == stretch.parent
            last[document] = number
            paths[document] = np.concatenate([paths[document], documents[document][stretch.begin : stretch.end]])
        if len(stretch.documents) > 1:
            assert len(stretch) >= shortest
    for path, document in zip(paths, documents, strict=True):
        assert path.tolist() == document.tolist()


@hypothesis.given(seed=RANDOM["seed"])
@hypothesis.settings(max_examples=100)
def test_with_no_least_length_every_distinct_beginning_is_computed_exactly_once(seed: int) -> None:
    documents = random_documents(seed)
    beginnings = {tuple(document[: end + 1]) for document in documents for end in range(len(document))}
    assert sum(map(len, stretches_of(documents, 1))) == len(beginnings)


@hypothesis.given(seed=RANDOM["seed"])
@hypothesis.settings(max_examples=100)
def test_every_token_and_every_target_finds_its_place(seed: int) -> None:
    documents = random_documents(seed)
    row = np.concatenate(documents)
    targets = np.flatnonzero(np.random.default_rng(seed).random(len(row)) < 0.5)
    tree = prefix_tree(documents, targets)
    if tree is None:
        neighbours = [common_length(a, b) for i, a in enumerate(documents) for b in documents[:i]]
        assert max(neighbours, default=0) < SHORTEST
        return
    assert sum(tree.lengths) == len(tree.computed) < len(row)
    assert row[tree.computed.numpy()][tree.places.numpy()].tolist() == row.tolist()
    assert torch.equal(tree.places[tree.targets][tree.repeats], tree.places[torch.from_numpy(targets)])
    assert len(set(tree.places[tree.targets].tolist())) == len(tree.targets)


def test_a_tree_of_a_worker_process_is_the_same_tree() -> None:
    tree = prefix_tree([ids("x" * 9 + "a"), ids("x" * 9 + "b")], np.array([3, 9, 13, 19]))
    assert tree is not None
    received = pickle.loads(pickle.dumps(tree))
    for name in PrefixTree.__slots__:
        ours, theirs = getattr(tree, name), getattr(received, name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    assert received.lengths == (9, 1, 1)
    assert received.repeats.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize(("one", "other", "length"), [("abc", "abd", 2), ("abc", "abcd", 3), ("x", "y", 0)])
def test_common_length(one: str, other: str, length: int) -> None:
    assert common_length(ids(one), ids(other)) == length


@hypothesis.given(seed=RANDOM["seed"], at_once=strategies.integers(1, 9))
@hypothesis.settings(max_examples=100)
def test_documents_are_sorted_by_all_of_their_ids_however_many_are_compared_at_once(seed: int, at_once: int) -> None:
    documents = [document * 200 for document in random_documents(seed, most=30)]  # ids of one byte and of two
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TOKENS_AT_ONCE", at_once)
        assert in_order(documents) == sorted(range(len(documents)), key=lambda index: documents[index].tolist())
