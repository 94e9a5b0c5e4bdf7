"""Optimiser steps that give every trial the same budget, and their cost."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from data_modules.batching.pairs import documents_of
from data_modules.encoding.tokenizers import num_ids
from data_modules.errors import UserError
from data_modules.progress import with_progress
from data_modules.text_data_module import TextDataModule
from lit_sft.ablation.study import Arm, Budget, Settings, Study
from lit_sft.models.backbone import load_config, vocabulary_size
from lit_sft.models.flops import model_flops
from lit_sft.settings.reading import as_options, parse_settings
from lit_sft.settings.trust import own_code


@dataclass(frozen=True, slots=True)
class Amounts:
    """Size of one trial's training.

    Attributes:
        steps: Optimiser steps.
        batches: Micro-batches of those steps.
        examples: Examples seen, repeats included.
        tokens: Their tokens.
        supervised_tokens: Tokens in the loss under the trial's own mask.
        flops: Floating-point operations needed, see `lit_sft.models.flops`.
    """

    steps: int = 0
    batches: int = 0
    examples: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    flops: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What is known about the trials before they run.

    Attributes:
        amounts: Size of each trial, by arm and seed.
        intervals: Micro-batches between validations, by arm and seed.
        failures: Arms with invalid settings, and why; they have no amounts.
        callbacks: Class paths of the callbacks that each arm sets itself.
        code: Import paths outside the known packages that each arm's settings name.
        data: Digest of each arm's records and their encoding.
        is_text: Whether each arm is a text run.
    """

    amounts: dict[tuple[str, int], Amounts] = field(default_factory=dict)
    intervals: dict[tuple[str, int], int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    callbacks: dict[str, set[str]] = field(default_factory=dict)
    code: dict[str, set[str]] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    is_text: dict[str, bool] = field(default_factory=dict)


def settings_of(study: Study, arm: Arm, seed: int) -> Settings:
    """Settings of an arm's trial on top of the base config, without its length."""
    return {"seed_everything": seed, **study.settings, **arm.settings}


def arguments_of(study: Study, settings: Settings) -> list[str]:
    """Options of `fit`."""
    configs = [argument for file in study.base for argument in ("--config", file)]
    return [*configs, *as_options(settings)]


class TrialCost:
    """Counts the cost of a trial's steps from its data and its model's shape.

    Args:
        study: The study.
        arm: The arm.
        seed: Decides the order of the data.

    Raises:
        UserError: If the settings or the data are wrong.
    """

    def __init__(self, study: Study, arm: Arm, seed: int) -> None:
        settings = parse_settings(arguments_of(study, settings_of(study, arm, seed)))
        self.trainer, self.data = settings.config.trainer, settings.data_module()
        if self.trainer.devices not in (1, "1", "auto"):
            raise UserError(
                f"--trainer.devices {self.trainer.devices}: a trial of a study runs on one device; `--jobs` runs "
                "several trials at once."
            )
        model = settings.model()
        backbone, has_reference = model.backbone_settings, model.objective_settings.needs_reference
        config = load_config(backbone)
        if backbone.pretrained is None:
            config.vocab_size = vocabulary_size(backbone, self.data.tokenizer)
        elif backbone.new_tokens:
            config.vocab_size = max(config.vocab_size, num_ids(self.data.tokenizer))
        self.tuning, self.work = backbone.tuning, model_flops(config, backbone.adapters, has_reference=has_reference)
        self.trains_on_pairs = model.trains_on_pairs
        self.data.prepare_data()
        self.data.setup("fit")

    def own_steps(self) -> int:
        """Number of steps that the base config's own settings give."""
        limits = [self.trainer.max_steps] if self.trainer.max_steps > 0 else []
        if self.trainer.max_epochs and self.trainer.max_epochs > 0:
            batches = self.data.num_train_batches(self.trainer.limit_train_batches)
            limits.append(self.trainer.max_epochs * -(-batches // self.trainer.accumulate_grad_batches))
        if not limits:
            raise UserError("no length given; set `budget.amount`, or max_epochs or max_steps in the base config.")
        return int(min(limits))

    def until(self, budget: Budget, amount: float) -> Amounts:
        """Amounts when the budget is used up; the step that reaches it is the last."""
        total = Amounts()
        steps = self.data.train_steps(self.trainer.accumulate_grad_batches, self.trainer.limit_train_batches)
        for batches in itertools.islice(steps, 10**7):
            examples = [index for batch in batches for index in batch]
            lengths, supervised = self._sizes(examples)
            total = Amounts(
                total.steps + 1,
                total.batches + len(batches),
                total.examples + len(examples),
                total.tokens + sum(lengths),
                total.supervised_tokens + supervised,
                total.flops + self.work.flops(lengths, supervised, self.tuning),
            )
            if getattr(total, budget.equal) >= amount:
                return total
        raise UserError(f"budget.amount {amount:g}: not reached in ten million steps.")

    def _sizes(self, examples: list[int]) -> tuple[list[int], int]:
        """The length of each sequence that is attended to separately, and the number of tokens in the loss."""
        if isinstance(self.data, TextDataModule):
            blocks = self.data.training_blocks
            lengths = [length for index in examples for length in blocks.sequence_lengths(index)]
            return lengths, sum(lengths) - len(lengths)
        found = [self.data.stores["train"][index] for index in examples]
        if self.trains_on_pairs:
            found = documents_of(found)
        weights = (each.loss_weights(self.data.mask_of(each)) for each in found)
        return [len(example) for example in found], sum(int(np.count_nonzero(each)) for each in weights)


def make_plan(study: Study) -> Plan:
    """Compute the length of every trial.

    Raises:
        UserError: If the baseline's settings are invalid, as nothing could be compared.
    """
    plan, amount = Plan(), study.budget.amount
    trials = list(itertools.product(study.all_arms(), study.seeds))
    for arm, seed in with_progress(trials, "counting tokens", "trials", len(trials)):
        if arm.name in plan.failures:
            continue
        try:
            cost = TrialCost(study, arm, seed)
            if amount is None:  # the baseline comes first
                own = cost.until(Budget("steps"), cost.own_steps())
                amount = float(getattr(own, study.budget.equal))
            amounts = cost.until(study.budget, amount)
        except (UserError, OSError) as error:
            if arm == study.all_arms()[0]:
                raise  # without the baseline there is nothing to compare with
            plan.failures[arm.name] = str(error)
            continue
        plan.amounts[arm.name, seed] = amounts
        plan.intervals[arm.name, seed] = max(1, amounts.batches // study.validations)
        plan.callbacks[arm.name] = {callback.class_path for callback in cost.trainer.callbacks or []}
        plan.is_text[arm.name] = isinstance(cost.data, TextDataModule)
        plan.code[arm.name] = own_code(cost.trainer)
        plan.data[arm.name] = cost.data.fingerprint
    return plan
