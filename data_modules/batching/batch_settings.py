"""How examples form batches on each device, and the samplers that plan them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning.pytorch import Trainer

from data_modules.batching.sampling import LengthSampler, WindowSampler, batches_done


@dataclass(frozen=True)
class BatchSettings:
    """How examples form batches on each device.

    Attributes:
        batch_size: Training examples per batch.
        eval_batch_size: Maximum number of rows in an evaluation batch. None: twice the training batch.
        packing: Whether documents are concatenated in one row.
        token_budget: Maximum number of tokens in a forward pass, padding included.
        shuffle: Whether to shuffle the training examples every epoch.
        seed: Seed for their order.
    """

    batch_size: int
    eval_batch_size: int | None
    packing: bool
    token_budget: int
    shuffle: bool
    seed: int

    @property
    def eval_rows(self) -> int:
        """Maximum number of rows in an evaluation batch."""
        return self.eval_batch_size or 2 * self.batch_size

    def train_sampler(
        self,
        lengths: Sequence[int],
        weight_of: Callable[[int], float],
        trainer: Trainer | None,
        *,
        accumulate: int = 1,
        limit: int | float | None = None,
    ) -> WindowSampler:
        """The sampler of training batches, at the place where the trainer is.

        Args:
            lengths: Tokens in each training example.
            weight_of: Returns the loss weight of an example, by index.
            trainer: Its accumulation, limit, epoch and devices apply. None: one device and the following two.
            accumulate: Batches per optimiser step.
            limit: Lightning's `limit_train_batches`.
        """
        return WindowSampler(
            lengths,
            batch_size=self.batch_size,
            accumulate=trainer.accumulate_grad_batches if trainer else accumulate,
            weight_of=weight_of,
            seed=self.seed,
            # to overfit, every epoch must have the same batches
            shuffle=self.shuffle and not (trainer and trainer.overfit_batches),  # type: ignore[attr-defined]
            packed=self.packing,
            token_budget=self.token_budget,
            limit=trainer.limit_train_batches if trainer else limit,
            epoch=trainer.current_epoch if trainer else 0,
            done=batches_done(trainer) if trainer else 0,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def eval_sampler(self, lengths: list[int], trainer: Trainer | None) -> LengthSampler:
        """The sampler of evaluation batches.

        Args:
            lengths: Tokens in each example.
            trainer: Its devices share the batches. None: one device.
        """
        return LengthSampler(
            lengths,
            batch_size=self.eval_rows,
            token_budget=self.token_budget,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
