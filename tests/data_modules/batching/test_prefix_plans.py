from __future__ import annotations

from itertools import pairwise

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from data_modules.batching.prefix_plans import ByPrefix, Families, families, grouped
from data_modules.batching.prefix_tree import in_order, stretches_of
from data_modules.batching.sampling import EvaluationSampler, WindowSampler
from tests.random_trees import random_documents

SEEDS = strategies.integers(0, 2**32 - 1)


def ids(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32)


def by_prefix(documents: list[np.ndarray], budget: int) -> ByPrefix:
    return ByPrefix(documents.__getitem__, budget)


def test_documents_that_begin_alike_share_a_micro_batch() -> None:
    documents = [ids(text) for text in ("x" * 20 + "a", "y" * 22 + "a", "x" * 20 + "b", "y" * 22 + "b")]
    assert by_prefix(documents, 32).micro_batches(range(4)) == [(0, 2), (1, 3)]
    assert by_prefix(documents, 90).micro_batches(range(4)) == [(0, 2, 1, 3)]
    assert by_prefix(documents, 1).micro_batches(range(4)) == [(0,), (2,), (1,), (3,)]
    assert by_prefix(documents, 1).shares(range(4), 2) == [[0, 2], [1, 3]]


@hypothesis.given(seed=SEEDS, budget=strategies.integers(1, 80), num=strategies.integers(1, 9))
@hypothesis.settings(max_examples=200)
def test_every_example_is_in_one_micro_batch_within_the_budget(seed: int, budget: int, num: int) -> None:
    documents = random_documents(seed)
    plan = by_prefix(documents, budget)
    shares = plan.shares(range(len(documents)), num)
    assert len(shares) == num
    assert sum(map(bool, shares)) == min(num, len(documents))
    assert all(not later for earlier, later in pairwise(shares) if not earlier)
    found = [group for share in shares for group in plan.micro_batches(share)]
    assert sorted(index for group in found for index in group) == list(range(len(documents)))
    for group in found:
        computed = sum(map(len, stretches_of([documents[index] for index in group])))
        assert group
        assert len(group) == 1 or computed <= budget


@hypothesis.given(
    seed=SEEDS, budget=strategies.integers(1, 80), most=strategies.integers(1, 5), world_size=strategies.integers(1, 3)
)
@hypothesis.settings(max_examples=100)
def test_every_example_is_evaluated_once_in_a_batch_within_the_budget_and_with_few_rows(
    seed: int, budget: int, most: int, world_size: int
) -> None:
    documents = random_documents(seed)
    ranks = [
        EvaluationSampler(
            list(map(len, documents)), batch_size=most, token_budget=budget, ids_of=documents.__getitem__, rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]  # fmt: skip
    assert len(set(map(len, ranks))) == 1
    found = [plan.indices for rank in ranks for plan in rank]
    assert sorted(index for group in found for index in group) == list(range(len(documents)))
    for group in found:
        assert len(group) <= most
        assert len(group) <= 1 or sum(map(len, stretches_of([documents[index] for index in group]))) <= budget


def test_evaluation_batches_hold_examples_that_begin_alike_the_most_expensive_first() -> None:
    documents = [ids(text) for text in ("x" * 20 + "a", "y" * 22 + "a", "x" * 20 + "b", "y" * 22 + "b", "z", "x" * 9)]
    assert by_prefix(documents, 99).groups(range(6)) == [(5, 0, 2, 1, 3, 4)]
    assert by_prefix(documents, 99).groups(range(6), most=2) == [(2, 1), (5, 0), (3, 4)]
    assert by_prefix(documents, 32).groups(range(6)) == [(1, 3, 4), (5, 0), (2,)]
    assert by_prefix(documents, 32).groups([]) == []


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_step_has_the_same_examples_as_without_sharing(world_size: int) -> None:
    documents = random_documents(7, most=60) + random_documents(8, most=60)
    lengths = list(map(len, documents))

    def steps(shares: bool) -> list[set[int]]:
        ranks = [
            list(
                WindowSampler(
                    lengths, batch_size=3, accumulate=2, weight_of=lengths.__getitem__, seed=1, token_budget=40,
                    ids_of=documents.__getitem__, share_prefixes=shares, rank=rank, world_size=world_size,
                )
            )
            for rank in range(world_size)
        ]  # fmt: skip
        batches = [[plan for rank in ranks for plan in [rank[number]]] for number in range(len(ranks[0]))]
        for plans in batches:
            assert len({len(plan.micro_batches) for plan in plans}) == 1  # ranks run as many forward passes
        found = [{index for plan in plans for index in plan.indices} for plans in batches]
        return [set.union(*found[start : start + 2]) for start in range(0, len(found), 2)]

    assert steps(True) == steps(False)


def test_grouped_steps_have_the_same_examples_however_they_are_cut_and_every_example_once() -> None:
    documents = [ids(f"conversation {n} " + "x" * 20 + "y" * turn) for n in range(9) for turn in range(4)]
    lengths = list(map(len, documents))
    steps: list[list[set[int]]] = []
    for shares in (True, False):
        sampler = WindowSampler(
            lengths, batch_size=4, accumulate=2, weight_of=lengths.__getitem__, seed=1, ids_of=documents.__getitem__,
            share_prefixes=shares, families=Families(len(documents), documents.__getitem__),
        )  # fmt: skip
        plans = list(sampler)
        steps.append([{*one.indices, *other.indices} for one, other in zip(plans[::2], plans[1::2], strict=False)])
        assert sorted(index for plan in plans for index in plan.indices) == list(range(36))
    assert steps[0] == steps[1]
    assert all(len({index // 4 for index in step}) == 2 for step in steps[0])  # two whole conversations in each


def test_examples_in_file_order_are_grouped_too() -> None:
    documents = [ids(f"conversation {n} " + "x" * 20) for n in (0, 1, 2, 0, 1, 0)]
    sampler = WindowSampler(
        list(map(len, documents)), batch_size=2, accumulate=1, weight_of=lambda _: 1.0, seed=1, shuffle=False,
        families=Families(len(documents), documents.__getitem__),
    )  # fmt: skip
    assert [sorted(plan.indices) for plan in sampler] == [[0, 3], [1, 4], [2, 5]]


def test_families_share_half_of_the_shorter_example() -> None:
    documents = [ids(text) for text in ("aaaax", "bbb", "aaaay", "aab", "aaaaxzzzz", "bcd")]
    family = families(len(documents), documents.__getitem__, 4)
    assert family[0] == family[2] == family[4] == family[3]
    assert len({family[0], family[1], family[5]}) == 3


@hypothesis.given(seed=SEEDS, rows=strategies.integers(1, 7))
def test_a_family_moves_to_its_first_example_at_most_a_step_at_a_time(seed: int, rows: int) -> None:
    generator = np.random.default_rng(seed)
    family = generator.integers(0, 6, 30)
    order = generator.permutation(30)
    new = grouped(order, family, rows)
    assert sorted(new.tolist()) == list(range(30))
    expected, waiting = [], order.tolist()
    while waiting:
        members = [index for index in waiting if family[index] == family[waiting[0]]][:rows]
        expected += members
        waiting = [index for index in waiting if index not in members]
    assert new.tolist() == expected


def test_families_larger_than_a_step_are_split_by_what_follows_their_common_beginning() -> None:
    documents = [ids("tools " * 20 + name * 6 + "xyz"[:turn]) for turn in range(4) for name in "abc"]
    one = families(12, documents.__getitem__, 12)
    split = families(12, documents.__getitem__, 4)
    assert set(one.tolist()) == {0}
    assert split.tolist() == [0, 1, 2] * 4


@hypothesis.given(seed=SEEDS, rows=strategies.integers(1, 9))
def test_every_family_is_one_run_of_the_sorted_examples(seed: int, rows: int) -> None:
    documents = random_documents(seed)
    family = families(len(documents), documents.__getitem__, rows)[in_order(documents)]
    assert np.isin(np.diff(family), (0, 1)).all()
    equal = [one.tobytes() == other.tobytes() for one, other in pairwise(documents[i] for i in in_order(documents))]
    assert not np.diff(family)[equal].any()  # equal examples are of one family
