"""Preference pairs in batches: always whole, neighbours, and counted as what they cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_modules.batching.batch import collate
from data_modules.batching.pairs import extents
from data_modules.batching.sampling import WindowSampler
from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore, record_batch, write_batches
from data_modules.rendering.masking import MASKS, Reduction, resolve_mask
from data_modules.rendering.segments import SegmentKind

K = SegmentKind
OUTPUT_ONLY = MASKS["output_only"]
Make = Callable[..., ExampleStore]


def document(prompt: int, answer: int, first: int, origin: str = "f:1") -> Example:
    """A prompt of ids 10, 11 ... and an answer of ids from `first`."""
    size = prompt + answer
    ids = np.concatenate([np.arange(10, 10 + prompt), np.arange(first, first + answer)]).astype(np.int32)
    kinds = np.repeat(np.array([K.USER, K.FINAL_ANSWER], dtype=np.uint8), [prompt, answer])
    return Example(ids, kinds, np.zeros(size, dtype=np.int16), origin)


def pair(prompt: int, chosen: int, rejected: int, origin: str = "f:1") -> Example:
    other = document(prompt, rejected, 200, origin)
    one = document(prompt, chosen, 100, origin)
    return Example(one.input_ids, one.kinds, one.turns, origin, rejected=other)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def _make(*examples: Example) -> ExampleStore:
        write_batches(tmp_path / "x.arrow", [record_batch(list(examples))])
        return ExampleStore(tmp_path / "x.arrow")

    return _make


def test_documents_of_a_pair_are_neighbours_with_weights_of_opposite_signs() -> None:
    batch = collate([pair(2, 1, 2), pair(2, 1, 1, "f:2")], mask=OUTPUT_ONLY, pack=True, pairs=True)
    assert batch.input_ids.tolist() == [[10, 11, 100, 10, 11, 200, 201, 10, 11, 100, 10, 11, 200]]
    assert batch.preferences is not None
    assert batch.preferences.tolist() == [[0, 0, 1, 0, 0, -1, -1, 0, 0, 1, 0, 0, -1]]
    assert batch.weights.tolist() == [[0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]]
    assert batch.targets.tolist() == [2, 5, 6, 9, 12]
    assert (batch.normaliser, batch.lengths, batch.origins) == (2.0, (3, 4, 3, 3), ("f:1", "f:1", "f:2", "f:2"))


def test_padded_pairs_have_one_document_per_row() -> None:
    batch = collate([pair(2, 1, 2)], mask=OUTPUT_ONLY, pairs=True)
    assert batch.input_ids.tolist() == [[10, 11, 100, 0], [10, 11, 200, 201]]
    assert batch.preferences is not None
    assert batch.preferences.tolist() == [[0, 0, 1, 0], [0, 0, -1, -1]]
    assert batch.targets.tolist() == [2, 6, 7]


def test_scoring_leaves_out_what_the_chosen_document_has_already() -> None:
    batch = collate([pair(3, 1, 2)], mask=OUTPUT_ONLY, pack=True, pairs=True, score_all=True)
    assert batch.targets.tolist() == [1, 2, 3, 7, 8]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("reduction", ["token", "sample", "turn"])
@pytest.mark.parametrize("pack", [True, False])
def test_answers_are_scored_alike_whatever_is_trained(mask: str, reduction: Reduction, pack: bool) -> None:
    masks = (MASKS[mask], resolve_mask("output_only", prompt_weight=0.5))
    pairs = [pair(3, 2, 1), pair(1, 1, 3, "f:2")]
    for each in masks:
        batch = collate(pairs, mask=each, reduction=reduction, pack=pack, pairs=True, score_all=True)
        assert batch.preferences is not None
        sizes = batch.pair_sums(torch.ones(len(batch.targets)))
        assert sizes.tolist() == [[2, 1], [1, 3]]
        scored = batch.preferences.flatten()[batch.targets]
        assert sorted(scored.tolist()) == [-1] * 4 + [0] * 2 + [1] * 3
        trained = sum(float(one.loss_weights(each, reduction).sum()) for one in pairs)
        assert batch.weights.sum().item() == pytest.approx(trained)


def test_without_pairs_a_batch_has_the_chosen_documents_only() -> None:
    batch = collate([pair(2, 1, 2)], mask=OUTPUT_ONLY, pack=True)
    assert (batch.input_ids.tolist(), batch.preferences) == ([[10, 11, 100]], None)
    assert (batch.targets.tolist(), batch.normaliser) == ([2], 1.0)


def test_dummy_batch_of_pairs_counts_nothing() -> None:
    batch = collate([pair(2, 1, 2)], mask=OUTPUT_ONLY, pack=True, pairs=True, counts=False)
    assert batch.preferences is not None
    assert (batch.targets.tolist(), batch.preferences.abs().sum().item(), batch.normaliser) == ([], 0.0, 0.0)


def test_prompt_of_a_pair_is_computed_once() -> None:
    batch = collate([pair(20, 3, 5)], mask=OUTPUT_ONLY, pack=True, pairs=True, share_prefixes=True)
    assert batch.tree is not None
    assert batch.tree.lengths == (20, 3, 5)
    moved = batch.to("cpu")
    assert moved.preferences is not None
    assert batch.preferences is not None
    assert moved.preferences.tolist() == batch.preferences.tolist()


@pytest.mark.parametrize(
    ("pairs", "packed", "lengths"),
    [(True, True, [48, 10, 8]), (True, False, [50, 14, 8]), (False, True, [23, 7, 8])],
)
def test_pair_takes_what_is_in_the_batch(make: Make, pairs: bool, packed: bool, lengths: list[int]) -> None:
    store = make(pair(20, 3, 5), pair(2, 5, 1), document(4, 4, 100))
    found, ids_of = extents(store, pairs=pairs, packed=packed)
    assert found == lengths
    assert [len(ids_of(index)) for index in range(3)] == ([28, 8, 8] if pairs else [23, 7, 8])
    assert ids_of(1).tolist() == [10, 11, 100, 101, 102, 103, 104, *([200] if pairs else [])]


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from([1, 2, 3]),
    st.integers(1, 120),
    st.booleans(),
    st.booleans(),
)
def test_every_pair_is_in_one_micro_batch_and_counts_once(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[tuple[int, int, int]],
    batch_size: int,
    world_size: int,
    budget: int,
    packed: bool,
    shares: bool,
) -> None:
    path = tmp_path_factory.mktemp("pairs") / "x.arrow"
    write_batches(path, [record_batch([pair(*size, f"f:{n}") for n, size in enumerate(sizes)])])
    store = ExampleStore(path)
    lengths, ids_of = extents(store, pairs=True, packed=packed)
    found: list[str] = []
    for rank in range(world_size):
        sampler = WindowSampler(
            lengths, batch_size=batch_size, accumulate=2, weight_of=lambda _: 1.0, seed=0, packed=packed,
            token_budget=budget, ids_of=ids_of if shares and packed else None, share_prefixes=shares and packed,
            rank=rank, world_size=world_size,
        )  # fmt: skip
        for plan in sampler:
            for number, micro_batch in enumerate(plan.micro_batches):
                counts = number < plan.num_counting
                examples = [store[index] for index in micro_batch]
                batch = collate(
                    examples, mask=OUTPUT_ONLY, pack=packed, pairs=True, counts=counts, share_prefixes=shares
                )
                assert batch.origins[::2] == batch.origins[1::2]
                if counts:
                    found += batch.origins[::2]
                    computed = sum(batch.tree.lengths) if batch.tree else batch.input_ids.numel()
                    assert computed <= budget or len(examples) == 1
    assert sorted(found) == sorted(f"f:{n}" for n in range(len(sizes)))
