"""Which examples form a batch, and which batches form an optimiser step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The examples of one batch of one rank.

    Attributes:
        indices: Their indices.
        normaliser: Weight of all examples in the same optimiser step, on every rank.
    """

    indices: tuple[int, ...]
    normaliser: float


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
        max_batches: End an epoch after so many batches.
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
        max_batches: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_examples, self.batch_size, self.accumulate = num_examples, batch_size, accumulate
        self.weight_of, self.seed, self.shuffle = weight_of, seed, shuffle
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        self.sampler = self  # where Lightning looks for `set_epoch`
        num_batches = -(-num_examples // (batch_size * world_size))
        self.num_batches = num_batches if max_batches is None else min(num_batches, max_batches)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[BatchPlan]:
        order = self._order()
        rows = self.batch_size * self.world_size
        batches = [order[i * rows : (i + 1) * rows] for i in range(self.num_batches)]
        for start in range(0, len(batches), self.accumulate):
            window = batches[start : start + self.accumulate]
            normaliser = sum(self.weight_of(index) for batch in window for index in batch)
            for batch in window:
                yield BatchPlan(tuple(batch[self.rank :: self.world_size]), normaliser)

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.num_examples))
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return torch.randperm(self.num_examples, generator=generator).tolist()


class LengthSampler(Sampler[BatchPlan]):
    """Batches for evaluation: every example once, similar lengths together, the longest first.

    No example is repeated to make ranks even, so sums over ranks are exact.

    Args:
        lengths: Tokens of every example.
        batch_size: Rows of a batch.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, lengths: list[int], *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))[rank::world_size]
        self.plans = [BatchPlan(tuple(order[i : i + batch_size]), 1.0) for i in range(0, len(order), batch_size)]

    def __len__(self) -> int:
        return len(self.plans)

    def __iter__(self) -> Iterator[BatchPlan]:
        return iter(self.plans)
