from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from data_modules.batching.sampling import EvaluationSampler, WindowSampler

WEIGHTS = [float(n % 5) for n in range(23)]
LENGTHS = [1 + n * 7 % 19 for n in range(23)]


def sampler(**settings: Any) -> WindowSampler:
    defaults = {"batch_size": 3, "accumulate": 2, "seed": 7}
    return WindowSampler(LENGTHS, weight_of=WEIGHTS.__getitem__, **(defaults | settings))


def test_each_epoch_has_every_example_once_in_an_order_set_by_seed_and_epoch() -> None:
    this = sampler()
    first = [plan.indices for plan in this]
    assert sorted(index for indices in first for index in indices) == list(range(23))
    assert len(first) == len(this) == 8
    assert [plan.indices for plan in sampler()] == first
    this.set_epoch(1)
    assert [plan.indices for plan in this] != first


def test_different_seeds_never_share_an_epochs_order() -> None:
    orders = [
        tuple(plan.indices for plan in sampler(seed=seed, epoch=epoch)) for seed in range(5) for epoch in range(5)
    ]
    assert len(set(orders)) == 25


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_normaliser_is_the_weight_of_the_window_over_all_ranks(accumulate: int, world_size: int) -> None:
    ranks = [
        list(sampler(accumulate=accumulate, rank=rank, world_size=world_size, batch_size=2))
        for rank in range(world_size)
    ]
    for start in range(0, len(ranks[0]), accumulate):
        window = [plan for plans in ranks for plan in plans[start : start + accumulate]]
        total = sum(WEIGHTS[index] for plan in window for index in plan.indices)
        assert {plan.normaliser for plan in window} == {total}


def test_batch_size_and_accumulation_do_not_change_the_steps() -> None:
    def steps(batch_size: int, accumulate: int) -> list[set[int]]:
        plans = list(sampler(batch_size=batch_size, accumulate=accumulate))
        return [
            {index for plan in plans[start : start + accumulate] for index in plan.indices}
            for start in range(0, len(plans), accumulate)
        ]

    assert steps(8, 1) == steps(4, 2) == steps(1, 8) == steps(2, 4)


def test_limited_epoch_normalises_its_last_window() -> None:
    for limit in (3, 0.4):  # of eight batches
        plans = list(sampler(limit=limit))
        assert len(plans) == 3
        assert plans[2].normaliser == sum(WEIGHTS[index] for index in plans[2].indices)


def test_resumed_epoch_yields_the_remaining_batches() -> None:
    this = sampler(done=5)
    assert list(this) == list(sampler())[5:]
    this.set_epoch(1)
    assert len(list(this)) == 8


def test_a_rank_without_an_example_gets_a_dummy_that_does_not_count() -> None:
    # 23 examples, batches of 11 on each of 2 ranks: the last batch has one example, for the first rank
    plans = [list(sampler(batch_size=11, accumulate=1, rank=rank, world_size=2))[-1] for rank in range(2)]
    assert sorted(plan.num_counting for plan in plans) == [0, 1]
    assert plans[0].micro_batches == plans[1].micro_batches
    assert plans[0].normaliser == plans[1].normaliser
    (only,) = EvaluationSampler([4], batch_size=2, token_budget=99, rank=1, world_size=2)
    assert only.num_counting == 0


def test_packed_batches_have_equal_token_counts_and_padded_ones_similar_lengths() -> None:
    def batches(packed: bool) -> list[list[int]]:
        ranks = [sampler(accumulate=3, world_size=2, packed=packed, rank=rank) for rank in range(2)]
        plans = [plan for rank in ranks for plan in list(rank)[:3]]
        return [[LENGTHS[index] for index in plan.indices] for plan in plans]

    packed, padded = batches(True), batches(False)
    assert sorted(chain(*packed)) == sorted(chain(*padded))
    assert max(map(sum, packed)) - min(map(sum, packed)) <= 3
    assert sum(max(batch) * len(batch) for batch in padded) <= 1.2 * sum(sum(batch) for batch in padded)


@pytest.mark.parametrize("packed", [True, False])
def test_all_ranks_go_through_the_model_equally_often(packed: bool) -> None:
    ranks = [
        list(sampler(batch_size=4, accumulate=1, world_size=3, token_budget=14, packed=packed, rank=rank))
        for rank in range(3)
    ]
    own = [[plan.num_counting for plan in plans] for plans in ranks]
    assert own[0] != own[1] or own[1] != own[2]  # without balancing they would not
    for plans in zip(*ranks, strict=True):
        assert len({len(plan.micro_batches) for plan in plans}) == 1
        for plan in plans:
            assert all(
                sum(LENGTHS[i] for i in micro_batch) <= 14 or len(micro_batch) == 1
                for micro_batch in plan.micro_batches
            )
    assert sorted(index for plans in ranks for plan in plans for index in plan.indices) == list(range(23))
    scored = [EvaluationSampler(LENGTHS, batch_size=4, token_budget=40, rank=rank, world_size=3) for rank in range(3)]
    assert len({len(plans) for plans in scored}) == 1
    assert {plan.num_counting for plans in scored for plan in plans} == {0, 1}


def test_length_sampler_gives_every_example_once_over_all_ranks() -> None:
    lengths = [5, 9, 1, 7, 7, 3, 2]
    plans = [EvaluationSampler(lengths, batch_size=2, token_budget=99, rank=rank, world_size=2) for rank in range(2)]
    assert sorted(index for rank in plans for plan in rank for index in plan.indices) == list(range(7))
    alone = EvaluationSampler(lengths, batch_size=3, token_budget=99)
    assert [plan.indices for plan in alone] == [(1, 3, 4), (0, 5, 6), (2,)]


def test_length_sampler_keeps_the_token_budget() -> None:
    plans = EvaluationSampler([5, 9, 1, 7, 7, 3, 2], batch_size=3, token_budget=14)
    assert [plan.indices for plan in plans] == [(1,), (3, 4), (0, 5), (6, 2)]
