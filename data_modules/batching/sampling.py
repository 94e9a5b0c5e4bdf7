"""Plans which examples form an optimiser step, and how micro-batches and ranks share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Trainer
from torch.utils.data import Sampler

from data_modules.batching.packing import best_fit, equal_shares, length_groups, similar_lengths
from data_modules.batching.prefix_plans import ByPrefix, Families, IdsOf, grouped
from data_modules.errors import UserError

_SEEDS_APART = 1_000_003


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The examples of one batch on one rank.

    Attributes:
        micro_batches: Indices of the examples in each micro-batch, that is, in each forward pass.
        normaliser: Total weight of all examples in the same optimiser step, over all ranks.
        num_counting: Number of real micro-batches. The rest are dummies, so that all ranks run the same number of
            forward passes.
    """

    micro_batches: tuple[tuple[int, ...], ...]
    normaliser: float
    num_counting: int

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of the examples in real micro-batches."""
        return tuple(index for micro_batch in self.micro_batches[: self.num_counting] for index in micro_batch)


class ByLength:
    """Distributes the examples of an optimiser step by their lengths.

    Args:
        lengths: Tokens in each example.
        token_budget: Maximum number of tokens in a micro-batch, padding included, unless it is a single example.
        packed: Whether batches are packed (equal numbers of tokens) or padded (similar lengths).
    """

    def __init__(self, lengths: Sequence[int], token_budget: int, *, packed: bool) -> None:
        self.lengths, self.token_budget = lengths, token_budget
        self.share_out, self.cut = (equal_shares, best_fit) if packed else (similar_lengths, length_groups)

    def shares(self, window: Sequence[int], num: int) -> list[list[int]]:
        """Distribute a step over `num` parts; some are empty if there are fewer examples."""
        shares = self.share_out([self.lengths[index] for index in window], num)
        return [[window[position] for position in share] for share in shares]

    def micro_batches(self, share: Sequence[int]) -> list[tuple[int, ...]]:
        """Cut a part into micro-batches within the budget."""
        groups = self.cut([self.lengths[index] for index in share], self.token_budget)
        return [tuple(share[position] for position in group) for group in groups]


class WindowSampler(Sampler[BatchPlan]):
    """Plans training batches, one optimiser step (one *window* of micro-batches) at a time.

    A plan covers the window on all ranks, so each batch knows the weight of the whole step, and the loss is divided by
    it once: a mean over supervised tokens, not a mean of micro-batch means. The examples of a window are distributed
    by length, so that micro-batches are of similar size with little padding.

    Args:
        lengths: Tokens in each training example.
        batch_size: Examples per batch on one rank; an average if batches are packed.
        accumulate: Batches per optimiser step.
        weight_of: Returns the loss weight of an example, by index.
        seed: Seed for the order, together with the epoch.
        shuffle: Whether to shuffle every epoch.
        packed: Whether batches are packed (equal numbers of tokens) or padded (similar lengths).
        token_budget: Maximum number of tokens in a micro-batch, padding included, unless it is a single example. What
            examples share is counted once if it is computed once.
        ids_of: Returns the ids of an example, by index, for the following.
        share_prefixes: Whether what examples have in common at their beginning is computed once.
        families: The families of the examples, if their members follow one another.
        limit: Lightning's `limit_train_batches`, which ends an epoch after this many batches (or this share). Needed
            to normalise the last window, which may be shorter.
        epoch: The first epoch. With prefetching workers, Lightning sets it too late.
        done: Batches of the first epoch that were done before an interruption; skipped.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_size: int,
        accumulate: int,
        weight_of: Callable[[int], float],
        seed: int,
        shuffle: bool = True,
        packed: bool = True,
        token_budget: int = 2**31,
        ids_of: IdsOf | None = None,
        share_prefixes: bool = False,
        families: Families | None = None,
        limit: int | float | None = None,
        epoch: int = 0,
        done: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.lengths, self.batch_size, self.accumulate = lengths, batch_size, accumulate
        self.weight_of, self.seed, self.shuffle, self.done = weight_of, seed, shuffle, done
        by_length = ByLength(lengths, token_budget, packed=packed)
        self.division = ByPrefix(ids_of, token_budget) if ids_of and share_prefixes else by_length
        self.families = families
        self.rank, self.world_size = rank, world_size
        self.sampler = self  # where Lightning looks for `set_epoch`
        self.num_batches = -(-len(lengths) // (batch_size * world_size))
        self.num_used = limited(self.num_batches, limit)
        # a run interrupted after the last batch of an epoch continues with the next epoch
        self.epoch = epoch + done // max(1, self.num_used)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[BatchPlan]:
        # a generator, so that the epoch is read with the first batch, not before it is set
        done, self.done = self.done % max(1, self.num_used), 0
        order = self._order()[: self.num_used * self.batch_size * self.world_size]
        windows = (order[start : start + self._rows].tolist() for start in range(0, len(order), self._rows))
        plans = (plan for window in windows for plan in self._window(window))
        yield from islice(plans, done, None)

    def _window(self, window: list[int]) -> Iterator[BatchPlan]:
        normaliser = sum(self.weight_of(index) for index in window)
        num_batches = -(-len(window) // (self.batch_size * self.world_size))
        shares = self.division.shares(window, num_batches * self.world_size)
        for start in range(0, len(shares), self.world_size):
            ranks = [self.division.micro_batches(share) for share in shares[start : start + self.world_size]]
            mine = ranks[self.rank]
            dummies = [(window[0],)] * (max(map(len, ranks)) - len(mine))
            yield BatchPlan((*mine, *dummies), normaliser, num_counting=len(mine))

    def _order(self) -> npt.NDArray[np.int64]:
        """The examples of the epoch, in an array because there may be many millions."""
        order = np.arange(len(self.lengths))
        if self.shuffle:
            # far apart, so that different seeds never share an epoch's order
            generator = torch.Generator().manual_seed(self.seed + _SEEDS_APART * self.epoch)
            order = torch.randperm(len(self.lengths), generator=generator).numpy()
        return order if self.family is None else grouped(order, self.family, self._rows)

    @property
    def family(self) -> npt.NDArray[np.int64] | None:
        """The family of each example; None if their members do not follow one another."""
        return None if self.families is None else self.families.of(self._rows)

    @property
    def _rows(self) -> int:
        """Examples per optimiser step."""
        return self.accumulate * self.batch_size * self.world_size


def windows(sampler: WindowSampler, accumulate: int, limit: int | float | None = None) -> Iterator[list[list[int]]]:
    """Yield the examples of each optimiser step, forever: their indices, by batch.

    Args:
        sampler: Plans the batches.
        accumulate: Batches per optimiser step.
        limit: Lightning's `limit_train_batches`, for the error.

    Raises:
        UserError: If an epoch has no batch.
    """
    while True:
        if not sampler.num_used:
            raise UserError(f"--trainer.limit_train_batches {limit}: leaves none of {sampler.num_batches} batches.")
        plans = islice(sampler, sampler.num_used)
        while window := list(islice(plans, accumulate)):
            yield [list(plan.indices) for plan in window]
        sampler.set_epoch(sampler.epoch + 1)


class EvaluationSampler(Sampler[BatchPlan]):
    """Plans evaluation batches: every example once, largest batches first.

    Similar lengths stand together; or examples that begin alike, if what they share is computed once.

    No example is repeated to even out ranks, so sums over ranks are exact.

    Args:
        lengths: Tokens in each example; at least one example.
        batch_size: Maximum number of rows in a batch.
        token_budget: Maximum number of tokens in a batch, padding included. What examples share is counted once if it
            is computed once.
        ids_of: Returns the ids of an example, by index, if what examples share is computed once.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        lengths: list[int],
        *,
        batch_size: int,
        token_budget: int,
        ids_of: IdsOf | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if ids_of is None:
            groups = [tuple(group) for group in length_groups(lengths, token_budget, most=batch_size)]
        else:
            groups = ByPrefix(ids_of, token_budget).groups(range(len(lengths)), most=batch_size)
        mine = groups[rank::world_size]
        self._lengths, self._world_size = lengths, world_size
        dummies = [(groups[0][0],)] * (-(-len(groups) // world_size) - len(mine))
        self.plans = [BatchPlan((group,), 1.0, num_counting=1) for group in mine]
        self.plans += [BatchPlan((group,), 1.0, num_counting=0) for group in dummies]

    def __len__(self) -> int:
        return len(self.plans)

    def __iter__(self) -> Iterator[BatchPlan]:
        return iter(self.plans)

    def extent(self, limit: int | float | None = None) -> tuple[int, int]:
        """Rows and tokens that an evaluation reads, over all processes.

        Args:
            limit: Lightning's `limit_val_batches` or `limit_test_batches`.
        """
        rows = [index for plan in self.plans[: limited(len(self), limit)] for index in plan.indices]
        return len(rows) * self._world_size, sum(self._lengths[row] for row in rows) * self._world_size


def limited(num_batches: int, limit: int | float | None) -> int:
    """The number of batches under one of Lightning's limits: a number of batches, or a share of them."""
    if limit is None:
        return num_batches
    return int(num_batches * limit) if isinstance(limit, float) else min(num_batches, limit)


def batches_done(trainer: Trainer) -> int:
    """Batches already done in the epoch that a run resumes; Lightning continues counting from there."""
    loop = trainer.fit_loop.epoch_loop
    return int(loop.batch_progress.current.ready) if loop.restarting else 0
