from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules.batching.packing import best_fit, equal_shares, length_groups, similar_lengths

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


def flat(groups: list[list[int]]) -> list[int]:
    return sorted(itertools.chain(*groups))


def test_best_fit_takes_the_fullest_row_that_has_room() -> None:
    # 7 | 5: 4 fits into either row (5 or 7 tokens left of 12); the first is fuller
    assert best_fit([7, 5, 4, 3, 2], 12) == [[0, 1], [2, 3, 4]]
    assert best_fit([4, 7, 8], 12) == [[0, 2], [1]]
    assert best_fit([20, 3], 12) == [[0], [1]]


@given(LENGTHS, st.integers(1, 80))
def test_best_fit_keeps_every_document_once_within_the_budget(lengths: list[int], budget: int) -> None:
    rows = best_fit(lengths, budget)
    assert flat(rows) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= budget or len(row) == 1 for row in rows)


@given(st.lists(st.integers(1, 50), max_size=9), st.just(50))
def test_best_fit_is_close_to_the_minimum_number_of_rows(lengths: list[int], budget: int) -> None:
    assert len(best_fit(lengths, budget)) <= 11 / 9 * fewest_rows(sorted(lengths, reverse=True), budget) + 6 / 9


def fewest_rows(lengths: list[int], budget: int) -> int:
    """By brute force."""

    def place(rest: list[int], rows: list[int], best: int) -> int:
        if len(rows) >= best:
            return best
        if not rest:
            return len(rows)
        for i in range(len(rows)):
            if rows[i] + rest[0] <= budget:
                best = place(rest[1:], [*rows[:i], rows[i] + rest[0], *rows[i + 1 :]], best)
        return place(rest[1:], [*rows, rest[0]], best)

    return place(lengths, [], len(lengths) + 1)


@given(LENGTHS, st.integers(1, 80), st.sampled_from([None, 1, 3]))
def test_length_groups_keep_every_document_once_within_the_budget(
    lengths: list[int], budget: int, most: int | None
) -> None:
    groups = length_groups(lengths, budget, most)
    assert flat(groups) == list(range(len(lengths)))
    for group in groups:
        assert len(group) * max(lengths[i] for i in group) <= budget or len(group) == 1
        assert most is None or len(group) <= most


@pytest.mark.parametrize("share_out", [equal_shares, similar_lengths])
@given(lengths=LENGTHS, num=st.integers(1, 9))
def test_shares_keep_every_document_once(share_out: type[list], lengths: list[int], num: int) -> None:  # type: ignore[type-arg]
    shares = share_out(lengths, num)  # type: ignore[call-arg]
    assert len(shares) == num
    assert flat(shares) == list(range(len(lengths)))


@given(LENGTHS.filter(bool), st.integers(1, 9))
def test_equal_shares_differ_by_less_than_the_longest_document(lengths: list[int], num: int) -> None:
    sums = [sum(lengths[i] for i in share) for share in equal_shares(lengths, num)]
    assert max(sums) - min(sums) <= max(lengths)
    assert min(map(len, equal_shares(lengths, num))) >= (1 if len(lengths) >= num else 0)
