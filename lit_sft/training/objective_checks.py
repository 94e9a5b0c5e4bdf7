"""Whether an objective works with the other settings of a run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from data_modules.errors import UserError, UserNotice
from data_modules.rendering.segments import PROMPT_KINDS
from data_modules.wording import counted
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.objectives import ObjectiveSettings
from lit_sft.training.data import TrainingData


def check_objective(settings: ObjectiveSettings, backbone: BackboneSettings, strategy: Strategy) -> None:
    """Refuse an objective that cannot be computed, and warn about one that makes no sense for the model.

    Raises:
        UserError: If a strategy shards the weights, and the objective needs a copy of them; or if the model without
            its adapters is not the one before training.
    """
    is_whole = isinstance(strategy, SingleDeviceStrategy | DDPStrategy)
    if settings.needs_reference and backbone.tuning == "full" and not is_whole:
        raise UserError(
            f"--model.objective with {type(strategy).__name__}: it compares the model with the one before training, of "
            "which every process would keep a whole copy. Use `--model.backbone.tuning lora`, which needs no copy, or "
            "DDP: `--config configs/overlays/ddp.yaml`."
        )
    if settings.needs_reference and (started := _not_from_base(backbone)):
        raise UserError(
            f"{started}: the objective compares the model with the one before training, which is the base model "
            "without adapters. Merge the adapter and train a new one on the merged model, or leave the setting out."
        )
    if backbone.pretrained is None and (reason := _needs_pretrained(settings)):
        warnings.warn(
            f"{reason} Use `--model.objective.name next_token` for random weights, or `--model.backbone.pretrained`.",
            UserNotice,
            stacklevel=2,
        )


def _not_from_base(backbone: BackboneSettings) -> str:
    """The setting with which a model without its adapters is not the model before training; empty if there is none."""
    if backbone.adapter is not None:
        return f"--model.backbone.adapter {backbone.adapter}"
    if backbone.tuning == "lora" and backbone.lora.changes_base:
        return f"--model.backbone.lora.init {backbone.lora.init}"
    return ""


def check_pairs(settings: ObjectiveSettings, data: TrainingData, trainer: Trainer) -> None:
    """Refuse preference tuning on other data, and say what is trained of preference data otherwise.

    Raises:
        UserError: If an example to train on or to validate is not a pair, or a setting of the data has no meaning.
    """
    ledgers = {split: data.ledgers[split] for split in ("train", "val") if split in data.ledgers}
    if trainer.state.fn != TrainerFn.FITTING:
        return
    if not settings.is_preference:
        _say_what_is_trained(ledgers.get("train", {}))
        return
    for split, ledger in ledgers.items():
        _check_examples(settings.name, split, ledger)
    _check_settings(settings.name, data)
    if any(callback.monitor == "val/loss" for callback in trainer.checkpoint_callbacks):  # type: ignore[attr-defined]
        warnings.warn(
            "--checkpoint.monitor val/loss: this is the negative log-likelihood of the chosen answers, which often "
            "rises while preferences improve. Set `--checkpoint.monitor val/preference_loss`.",
            UserNotice,
            stacklevel=2,
        )


def _say_what_is_trained(ledger: Mapping[str, Any]) -> None:
    """Of preference data, an objective of single answers trains on the chosen ones.

    Raises:
        UserError: If there are none.
    """
    unpaired = ledger.get("unpaired", 0)
    if unpaired and unpaired == ledger["examples"] and not ledger["answers"]["output_only"]["read"]:
        raise UserError(
            f"all {counted(unpaired, 'rated answer')} in the training data are bad, and only good ones are trained on. "
            "To train away from bad ones too, set `--model.objective.name apo_zero`."
        )
    for count, what, name, which in (
        (ledger.get("pairs", 0) - unpaired, "preference pair", "dpo", "chosen answers only"),
        (unpaired, "rated answer", "apo_zero", "good answers only"),
    ):
        if count:
            rank_zero_info(
                f"{counted(count, what)} in the training data: the model trains on the {which}; "
                f"`--model.objective.name {name}` trains on both."
            )


def _check_examples(objective: str, split: str, ledger: Mapping[str, Any]) -> None:
    """Refuse examples that an objective of preferences cannot train on."""
    pairs, unpaired, examples = ledger.get("pairs", 0), ledger.get("unpaired", 0), ledger["examples"]
    if objective == "apo_zero":
        others = examples - pairs
        expected = "preference pairs or rated answers. Give records with `prompt`, and `chosen` and `rejected` or "
        expected += "`completion` and `label`, true or false"
    else:
        others = examples - (pairs - unpaired)
        expected = "preference pairs. Give records with `prompt`, `chosen` and `rejected`"
    if not others:
        return
    if unpaired and objective != "apo_zero":
        instead = "apo_zero`, which trains on answers rated one by one"
    else:
        instead = "next_token`"
    raise UserError(
        f"--model.objective.name {objective}: {others:,} of {counted(examples, f'{split} example')} are not {expected} "
        f"(docs/preferences.md), or set `--model.objective.name {instead}."
    )


def _check_settings(objective: str, data: TrainingData) -> None:
    """Refuse settings of the data that are about single answers."""
    mixture = getattr(data, "mixture", None)
    for mask in mixture.masks if mixture else (data.mask,):
        if any(map(mask.supervises, PROMPT_KINDS)):
            raise UserError(
                f"--data.mask {mask.name} with `--model.objective.name {objective}`: only answers are compared with "
                "the model before training. Set `--data.mask output_only`, without `--data.prompt_weight`."
            )
    if data.reduction != "token":
        raise UserError(
            f"--data.reduction {data.reduction} with `--model.objective.name {objective}`: every pair counts equally, "
            "and the log-probability of an answer is the sum over its tokens. Remove it."
        )


def _needs_pretrained(settings: ObjectiveSettings) -> str:
    """Why an objective makes no sense for a model with random weights; empty if it does."""
    if settings.needs_reference:
        return "--model.objective compares the model with the one before training, whose weights are random."
    if settings.name in ("dft", "profit"):
        how = {
            "dft": "weights each token by the probability the model already gives it",
            "profit": "skips tokens the model finds unlikely",
        }
        return (
            f"--model.objective.name {settings.name} {how[settings.name]}; "
            "a model with random weights finds none likely and will learn little or nothing."
        )
    return ""
