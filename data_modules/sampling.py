"""Which examples form a batch, and which batches form an optimiser step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch.utils.data import Sampler


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
    is divided by it once: a mean over supervised tokens, not a mean of means over micro-batches.

    Args:
        num_examples: Size of the training set.
        batch_size: Rows of a batch on one rank.
        accumulate: Batches of an optimiser step.
        weight_of: Weight of an example in the loss, from its index.
        seed: Determines the order, with the epoch.
        shuffle: Whether to shuffle every epoch.
        limit: Lightning's `limit_train_batches`: the trainer ends an epoch after so many batches (or such a share), and
            the last window must know that it is the last.
        done: Batches of the first epoch that an interrupted run has done; they are not given again.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        batch_size: int,
        accumulate: int,
        weight_of: Callable[[int], float],
        seed: int,
        shuffle: bool = True,
        limit: int | float | None = None,
        done: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_examples, self.batch_size, self.accumulate = num_examples, batch_size, accumulate
        self.weight_of, self.seed, self.shuffle, self.done = weight_of, seed, shuffle, done
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        self.sampler = self  # where Lightning looks for `set_epoch`
        self.num_batches = -(-num_examples // (batch_size * world_size))
        self.num_used = _limited(self.num_batches, limit)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[BatchPlan]:
        # a generator, so that the epoch is looked at when the first batch is asked for, not before it is set
        done, self.done = self.done % max(1, self.num_used), 0
        order = self._order()
        rows = self.batch_size * self.world_size
        batches = [order[i * rows : (i + 1) * rows] for i in range(self.num_used)]
        plans = (plan for start in range(0, len(batches), self.accumulate) for plan in self._window(batches, start))
        yield from islice(plans, done, None)

    def _window(self, batches: list[list[int]], start: int) -> Iterator[BatchPlan]:
        window = batches[start : start + self.accumulate]
        normaliser = sum(self.weight_of(index) for batch in window for index in batch)
        for batch in window:
            mine = tuple(batch[self.rank :: self.world_size])
            yield BatchPlan(mine or tuple(batch[:1]), normaliser, counts=bool(mine))

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.num_examples))
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return torch.randperm(self.num_examples, generator=generator).tolist()


class LengthSampler(Sampler[BatchPlan]):
    """Batches for evaluation: every example once, similar lengths together, the longest first.

    No example counts twice to make ranks even, so sums over ranks are exact.

    Args:
        lengths: Tokens of every example, at least one.
        batch_size: Rows of a batch.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, lengths: list[int], *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        mine = order[rank::world_size]
        self.plans = [BatchPlan(tuple(mine[i : i + batch_size]), 1.0) for i in range(0, len(mine), batch_size)]
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
