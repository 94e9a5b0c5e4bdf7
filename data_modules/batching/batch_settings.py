"""How examples form batches on each device, and the samplers that plan them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning.pytorch import Trainer

from data_modules.batching.pairs import are_pairs
from data_modules.batching.prefix_plans import Families, IdsOf
from data_modules.batching.sampling import EvaluationSampler, WindowSampler, batches_done
from data_modules.encoding.example_store import ExampleStore
from data_modules.setting_checks import check_sizes


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
        share_prefixes: Whether what the documents of a row share is computed once, if the model computes the same.
        group_by_prefix: Whether examples that share at least half of their tokens follow one another.
    """

    batch_size: int
    eval_batch_size: int | None
    packing: bool
    token_budget: int
    shuffle: bool
    seed: int
    share_prefixes: bool = False
    group_by_prefix: bool = False

    def __post_init__(self) -> None:
        check_sizes(self.batch_size, self.eval_batch_size, self.token_budget)

    def packs(self, trainer: Trainer | None) -> bool:
        """Whether rows hold several documents: it is asked for, and the trainer's model keeps them apart."""
        model = trainer.lightning_module if trainer else None
        return self.packing and (model is None or getattr(model, "packs", True))

    def shares(self, trainer: Trainer | None, split: str) -> bool:
        """Whether rows share prefixes: it is asked for, rows are packed, and the trainer's model can do it."""
        model = trainer.lightning_module if trainer else None
        can_share = model is None or split in getattr(model, "shares_prefixes", ())
        return self.share_prefixes and self.packing and can_share

    @staticmethod
    def trains_on_pairs(trainer: Trainer | None) -> bool:
        """Whether the trainer's model trains on both documents of preference pairs, not on the chosen one alone."""
        return trainer is not None and getattr(trainer.lightning_module, "trains_on_pairs", False)

    def has_pairs(self, trainer: Trainer | None, split: str, store: ExampleStore) -> bool:
        """Whether batches of a split have both documents of its pairs, which are always evaluated."""
        return self.trains_on_pairs(trainer) if split == "train" else are_pairs(store)

    @property
    def eval_rows(self) -> int:
        """Maximum number of rows in an evaluation batch."""
        return self.eval_batch_size or 2 * self.batch_size

    def train_sampler(
        self,
        lengths: Sequence[int],
        weight_of: Callable[[int], float],
        trainer: Trainer | None,
        accumulate: int = 1,
        limit: int | float | None = None,
        *,
        ids_of: IdsOf | None = None,
        families: Families | None = None,
    ) -> WindowSampler:
        """The sampler of training batches, at the place where the trainer is.

        Args:
            lengths: Tokens in each training example.
            weight_of: Returns the loss weight of an example, by index.
            trainer: Its accumulation, limit, epoch and devices apply. None: one device and the following two.
            accumulate: Batches per optimiser step.
            limit: Lightning's `limit_train_batches`.
            ids_of: Returns the ids of an example, by index. None: examples share nothing.
            families: Of the examples, for `group_by_prefix`.
        """
        return WindowSampler(
            lengths,
            batch_size=self.batch_size,
            accumulate=trainer.accumulate_grad_batches if trainer else accumulate,
            weight_of=weight_of,
            seed=self.seed,
            # to overfit, every epoch must have the same batches
            shuffle=self.shuffle and not (trainer and trainer.overfit_batches),  # type: ignore[attr-defined]
            packed=self.packs(trainer),
            token_budget=self.token_budget,
            ids_of=ids_of,
            share_prefixes=self.shares(trainer, "train"),
            families=families if self.group_by_prefix else None,
            limit=trainer.limit_train_batches if trainer else limit,
            epoch=trainer.current_epoch if trainer else 0,
            done=batches_done(trainer) if trainer else 0,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def eval_sampler(
        self, lengths: list[int], trainer: Trainer | None, *, split: str = "val", ids_of: IdsOf | None = None
    ) -> EvaluationSampler:
        """The sampler of evaluation batches.

        Args:
            lengths: Tokens in each example.
            trainer: Its devices share the batches. None: one device.
            split: `val` or `test`.
            ids_of: Returns the ids of an example, by index. None: examples share nothing.
        """
        limit = getattr(trainer, f"limit_{split}_batches", None)
        # with a limit, the batches decide what is evaluated, and this must not depend on what is computed once
        reads_all = limit is None or (isinstance(limit, float) and limit == 1.0)
        return EvaluationSampler(
            lengths,
            batch_size=self.eval_rows,
            token_budget=self.token_budget,
            ids_of=ids_of if reads_all and self.shares(trainer, split) else None,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
