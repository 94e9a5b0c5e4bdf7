"""Which examples form an optimiser step, and how micro-batches and ranks share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch.utils.data import Sampler

from data_modules.packing import equal_shares, length_groups, similar_lengths


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The examples of one batch of one rank.

    Attributes:
        indices: Their indices.
        normaliser: Weight of all examples in the same optimiser step, on every rank.
        counts: Whether they count. Not so for a stand-in, given to a rank for which there is no example, so that every
            rank makes as many steps.
    """

    indices: tuple[int, ...]
    normaliser: float
    counts: bool = True


class WindowSampler(Sampler[BatchPlan]):
    """Batches for training, planned one optimiser step (one *window* of micro-batches) at a time.

    Because the plan covers the window on all ranks, each batch can carry the weight of the whole step, and the loss
    is divided by it once: a mean over supervised tokens, not a mean of means over micro-batches. The examples of a
    window are shared out by length, so that no micro-batch is much larger than another, or much of it padding.

    Args:
        lengths: Tokens of every example of the training set.
        batch_size: Examples of a batch on one rank; an average, where batches are packed.
        accumulate: Batches of an optimiser step.
        weight_of: Weight of an example in the loss, from its index.
        seed: Determines the order, with the epoch.
        shuffle: Whether to shuffle every epoch.
        packed: Whether batches are packed (each gets as many tokens) or padded (each gets similar lengths).
        limit: Lightning's `limit_train_batches`: the trainer ends an epoch after so many batches (or such a share), and
            the last window must know that it is the last.
        done: Batches of the first epoch that an interrupted run has done; they are not given again.
        rank: This process.
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
        limit: int | float | None = None,
        done: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.lengths, self.batch_size, self.accumulate = lengths, batch_size, accumulate
        self.weight_of, self.seed, self.shuffle, self.done = weight_of, seed, shuffle, done
        self.share_out = equal_shares if packed else similar_lengths
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        self.sampler = self  # where Lightning looks for `set_epoch`
        self.num_batches = -(-len(lengths) // (batch_size * world_size))
        self.num_used = _limited(self.num_batches, limit)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[BatchPlan]:
        # a generator, so that the epoch is looked at when the first batch is asked for, not before it is set
        done, self.done = self.done % max(1, self.num_used), 0
        order = self._order()[: self.num_used * self.batch_size * self.world_size]
        rows = self.accumulate * self.batch_size * self.world_size
        windows = (order[start : start + rows] for start in range(0, len(order), rows))
        plans = (plan for window in windows for plan in self._window(window))
        yield from islice(plans, done, None)

    def _window(self, window: list[int]) -> Iterator[BatchPlan]:
        normaliser = sum(self.weight_of(index) for index in window)
        num_batches = -(-len(window) // (self.batch_size * self.world_size))
        shares = self.share_out([self.lengths[index] for index in window], num_batches * self.world_size)
        for share in shares[self.rank :: self.world_size]:
            mine = tuple(window[position] for position in share)
            yield BatchPlan(mine or (window[0],), normaliser, counts=bool(mine))

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(len(self.lengths)))
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return torch.randperm(len(self.lengths), generator=generator).tolist()


class LengthSampler(Sampler[BatchPlan]):
    """Batches for evaluation: every example once, similar lengths together, the longest first.

    No example counts twice to make ranks even, so sums over ranks are exact.

    Args:
        lengths: Tokens of every example, at least one.
        batch_size: Most rows of a batch.
        token_budget: Most tokens of a batch, with its padding.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self, lengths: list[int], *, batch_size: int, token_budget: int, rank: int = 0, world_size: int = 1
    ) -> None:
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        mine = order[rank::world_size]
        groups = length_groups([lengths[index] for index in mine], token_budget, most=batch_size)
        self.plans = [BatchPlan(tuple(mine[position] for position in group), 1.0) for group in groups]
        if not self.plans:
            self.plans = [BatchPlan((order[0],), 1.0, counts=False)]

    def __len__(self) -> int:
        return len(self.plans)

    def __iter__(self) -> Iterator[BatchPlan]:
        return iter(self.plans)


def _limited(num_batches: int, limit: int | float | None) -> int:
    """As Lightning reads a limit: a number of batches, or a share of them."""
    if limit is None:
        return num_batches
    return int(num_batches * limit) if isinstance(limit, float) else min(num_batches, limit)
